/**
 * Records the streams in test/fixtures/streams: each is what the store's own scripts write on a real Redis, with the changes that a
 * reader must see. Run: node test/clients/record.ts
 *
 * A stream is a file of JSON lines:
 *
 * - `append`: entries, each `[id, fields]`, and `head`: all fields of the head
 * - `trim`: the lowest id that is kept · `restore`: the store is set back to these entries · `delete`: ids that are deleted
 * - `expect`: for each finality the changes since the last line of that kind: `[apply or undo, number, hash, log indexes, finalized]`,
 *   or the code of the error that ends the reader
 */
import { Effect } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Block } from "../../src/Domain.ts"
import type { Journal, Position } from "../../src/store/Journal.ts"
import { emptyHead } from "../../src/store/Journal.ts"
import type { Known } from "../../src/store/JournalStore.ts"
import { pushes } from "../../src/store/Pushes.ts"
import { block } from "../support/blocks.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"

const directory = join(import.meta.dirname, "../fixtures/streams")

type Change = readonly [
  kind: "apply" | "undo",
  number: number,
  hash: string,
  logs: ReadonlyArray<number>,
  finalized: boolean,
]

/** `+3a`: block 3 of fork a is applied; `+3a!`: as final; `-3a`: it is retracted. */
type Shorthand = ReadonlyArray<string> | { readonly error: string }

interface Expected {
  readonly latest: Shorthand
  readonly finalized: Shorthand
  readonly "2": Shorthand
}

/** What a scenario does. Blocks are named by their number and fork; `sizes` gives their logs, 1 by default. */
interface Scenario {
  /** Pushes blocks, `final`: as final ones. */
  readonly push: (names: ReadonlyArray<string>, final?: boolean) => Promise<void>
  /** Pushes only the first logs of a block. */
  readonly pushPart: (name: string, logs: number) => Promise<void>
  /** Removes blocks until the head is at this number or below. */
  readonly popTo: (number: number) => Promise<void>
  /** Removes only the last logs of the top block. */
  readonly popPart: (logs: number) => Promise<void>
  readonly finalize: (name: string) => Promise<void>
  readonly trim: (entries: number) => Promise<void>
  readonly save: () => Promise<void>
  /** Restores the saved copy; `noticed`: an ingestor begins a new epoch. */
  readonly setBack: (noticed: boolean) => Promise<void>
  readonly reset: () => Promise<void>
  readonly changeFilter: (filter: string) => Promise<void>
  readonly expect: (changes: Expected) => void
}

const sizes: Record<string, number> = {}
const sizeOf = (name: string) => sizes[name] ?? 1
const blockOf = (name: string): Block => {
  const [, number, fork] = /^(\d+)([a-z]+)$/.exec(name)!
  return block(Number(number), fork!, sizeOf(name))
}

const record = (name: string, about: string, run: (scenario: Scenario) => Promise<void>) =>
  Effect.gen(function* () {
    const server = yield* RedisServer.start()
    const store = yield* openRedis(standalone(server.port), "events", 0, "5 seconds", {
      logs: 100_000,
      blocks: 1000,
      bytes: 100_000_000,
    })
    const { client } = server
    const lines: Array<unknown> = [{ op: "stream", chain: 1, name, about }]
    const keys = ["events:1", "{events:1}:head", "{events:1}:window"]
    let seen = "0-0"
    let filter = "none"
    let known: Known | undefined
    let copy: ReadonlyArray<Buffer | null> = []
    const does = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(effect)
    const journal = () => does(store.load(1)) as Promise<Journal | undefined>
    const position = async (first: number): Promise<Position> => (await journal())?.head ?? emptyHead(first)
    const headFields = () => client.hgetall(keys[1]!)
    const note = async () => {
      const entries = await client.xrange(keys[0]!, `(${seen}`, "+")
      seen = entries.at(-1)?.[0] ?? seen
      const fieldsOf = (flat: ReadonlyArray<string>) =>
        Object.fromEntries(flat.flatMap((field, i) => (i % 2 === 0 ? [[field, flat[i + 1]!]] : [])))
      lines.push({
        op: "append",
        entries: entries.map(([id, fields]) => [id, fieldsOf(fields)]),
        head: await headFields(),
      })
    }
    const checked = (result: {
      readonly _tag: string
      readonly added?: { readonly last: Known["last"] }
    }) => {
      if (["Conflict", "FilterChanged", "Paused"].includes(result._tag))
        throw new Error(`${name}: ${result._tag}`)
      if (result.added !== undefined) known = { last: result.added.last, before: known?.before ?? [] }
    }
    const changesOf = (shorthand: Shorthand): unknown =>
      "error" in shorthand
        ? shorthand
        : shorthand.map((text): Change => {
            const [, sign, name, final] = /^([+-])(\w+)(!?)$/.exec(text)!
            const { number, hash, logs } = blockOf(name!)
            return [
              sign === "+" ? "apply" : "undo",
              number,
              hash,
              logs.map(({ index }) => index),
              final === "!",
            ]
          })
    const scenario: Scenario = {
      push: async (names, final = false) => {
        const all = names.map(blockOf)
        for (const push of pushes(await position(all[0]!.number), all, final))
          checked(await does(store.push(1, filter, push)))
        await note()
      },
      pushPart: async (name, count) => {
        const whole = blockOf(name)
        const parts = pushes(await position(whole.number), [whole], false, {
          logs: count,
          blocks: 1,
          bytes: 1e9,
        })
        checked(await does(store.push(1, filter, parts.next().value!)))
        await note()
      },
      popTo: async (number) => {
        for (let head = (await journal())!.head; head.number > number; head = (await journal())!.head)
          checked(await does(store.pop(1, filter, { _tag: "Pop", expected: head })))
        await note()
      },
      popPart: async (logs) => {
        const small = await does(
          Effect.scoped(
            Effect.gen(function* () {
              const store = yield* openRedis(standalone(server.port), "events", 0, "5 seconds", {
                logs,
                blocks: 1,
                bytes: 1e9,
              })
              const { head } = (yield* store.load(1))!
              return yield* store.pop(1, filter, { _tag: "Pop", expected: head })
            }),
          ),
        )
        checked(small)
        await note()
      },
      finalize: async (name) => {
        const { number, hash } = blockOf(name)
        const { head } = (await journal())!
        checked(
          await does(
            store.finalize(1, filter, {
              _tag: "Finalize",
              expected: head,
              number,
              hash,
            }),
          ),
        )
        await note()
      },
      trim: async (entries) => {
        await client.xtrim(keys[0]!, "MAXLEN", entries)
        await does(store.trim(1))
        lines.push({ op: "trim", lowest: (await client.xrange(keys[0]!, "-", "+", "COUNT", 1))[0]![0] })
        await note()
      },
      save: async () => {
        copy = await Promise.all(keys.map((key) => client.dumpBuffer(key)))
      },
      setBack: async (noticed) => {
        const all = client.multi().del(...keys)
        for (const [i, dump] of copy.entries()) if (dump !== null) all.restore(keys[i]!, 0, dump)
        await all.exec()
        if (noticed) {
          const check = await does(store.checkEpoch(1, known))
          if (check.outcome !== "lost") throw new Error(`${name}: ${check.outcome}`)
          known = check.known
        }
        lines.push({ op: "restore" })
        seen = "0-0"
        await note()
      },
      reset: async () => {
        await does(store.reset(1, { delete: true, from: undefined, filter }))
        lines.push({ op: "restore" })
        seen = "0-0"
        await note()
      },
      changeFilter: async (next) => {
        filter = next
        await does(store.changeFilter(1, next))
        await note()
      },
      expect: (changes) => {
        const all = Object.entries(changes).map(([finality, shorthand]) => [finality, changesOf(shorthand)])
        lines.push({ op: "expect", ...Object.fromEntries(all) })
      },
    }
    yield* Effect.promise(() => run(scenario))
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, `${name}.jsonl`), lines.map((line) => `${JSON.stringify(line)}\n`).join(""))
  }).pipe(Effect.scoped)

Object.assign(sizes, {
  "3a": 0,
  "5a": 0,
  "4b": 0,
  "6b": 0,
  "2e": 0,
  "40a": 4,
  "7c": 60,
  "8c": 3,
})

/** Readers see six blocks, of which the store loses the last three. */
const loseTail = async (s: Scenario) => {
  await s.push(["1a", "2a", "3a"])
  await s.finalize("1a")
  await s.save()
  await s.push(["4a", "5a", "6a"])
  s.expect({ latest: ["+1a!", "+2a", "+4a", "+6a"], finalized: ["+1a!"], "2": ["+1a!", "+2a", "+4a"] })
  await s.setBack(true)
}

const none = { latest: [], finalized: [], "2": [] }

const scenarios = [
  record("history", "final blocks, then blocks that become final one after another", async (s) => {
    await s.push(["1a", "2a", "3a", "4a"], true)
    s.expect({ latest: ["+1a!", "+2a!", "+4a!"], finalized: ["+1a!", "+2a!", "+4a!"], "2": ["+1a!", "+2a!"] })
    await s.push(["5a", "6a", "7a"])
    s.expect({ latest: ["+6a", "+7a"], finalized: [], "2": ["+4a!"] })
    await s.finalize("6a")
    s.expect({ latest: [], finalized: ["+6a!"], "2": [] })
    await s.push(["8a"])
    s.expect({ latest: ["+8a"], finalized: [], "2": ["+6a!"] })
  }),
  record(
    "live",
    "one block after the other, each seen before the next; the head announces empty ones",
    async (s) => {
      await s.push(["1a"])
      s.expect({ latest: ["+1a"], finalized: [], "2": [] })
      await s.push(["2a"])
      s.expect({ latest: ["+2a"], finalized: [], "2": [] })
      await s.push(["3a"])
      s.expect({ latest: [], finalized: [], "2": ["+1a"] })
      await s.push(["4a"])
      s.expect({ latest: ["+4a"], finalized: [], "2": ["+2a"] })
      await s.finalize("3a")
      s.expect({ latest: [], finalized: ["+1a!", "+2a!"], "2": [] })
    },
  ),
  ...[1, 2, 3, 4, 5, 6, 7, 8].map((depth) =>
    record(
      `reorg-${depth}`,
      `a reorg of ${depth}, with empty blocks between, seen before and after`,
      async (s) => {
        const top = 10
        const numbers = Array.from({ length: top }, (_, i) => i + 1)
        const old = numbers.map((number) => `${number}a`)
        const kept = top - depth
        const replaced = old.slice(kept).filter((name) => sizeOf(name) > 0)
        const all = old.filter((name) => sizeOf(name) > 0)
        const fresh = numbers.slice(kept).map((number) => `${number}b`)
        const applied = fresh.filter((name) => sizeOf(name) > 0)
        await s.push(old)
        s.expect({
          latest: all.map((name) => `+${name}`),
          finalized: [],
          "2": all.filter((name) => Number.parseInt(name, 10) <= top - 2).map((name) => `+${name}`),
        })
        await s.popTo(kept)
        await s.push([...fresh, "11b"])
        const confirmed = (name: string) => Number.parseInt(name, 10) <= top + 1 - 2
        const retracted = replaced.filter((name) => Number.parseInt(name, 10) <= top - 2)
        s.expect({
          latest: [
            ...replaced.toReversed().map((name) => `-${name}`),
            ...applied.map((name) => `+${name}`),
            "+11b",
          ],
          finalized: [],
          "2": [
            ...retracted.toReversed().map((name) => `-${name}`),
            ...(depth === 1 ? ["+9a"] : []),
            ...applied.filter(confirmed).map((name) => `+${name}`),
          ],
        })
        await s.finalize("11b")
        s.expect({
          latest: [],
          finalized: [...all.filter((name) => !replaced.includes(name)), ...applied, "11b"].map(
            (name) => `+${name}!`,
          ),
          "2": [],
        })
      },
    ),
  ),
  record(
    "unseen-reorg",
    "a reorg that is over before anybody looks: its blocks are not delivered",
    async (s) => {
      await s.push(["1a", "2a", "4a"].flatMap((name) => (name === "4a" ? ["3a", "4a"] : [name])))
      await s.popTo(2)
      await s.push(["3b", "4b", "5b"])
      s.expect({ latest: ["+1a", "+2a", "+3b", "+5b"], finalized: [], "2": ["+1a", "+2a", "+3b"] })
    },
  ),
  record("parts", "a block that is written, and removed, in parts: never half of it", async (s) => {
    await s.push(["1c"])
    s.expect({ latest: ["+1c"], finalized: [], "2": [] })
    await s.push(["2c", "3c", "4c", "5c", "6c"])
    await s.pushPart("7c", 25)
    s.expect({
      latest: ["+2c", "+3c", "+4c", "+5c", "+6c"],
      finalized: [],
      "2": ["+1c", "+2c", "+3c", "+4c"],
    })
    await s.pushPart("7c", 25)
    s.expect(none)
    await s.push(["7c"])
    s.expect({ latest: ["+7c"], finalized: [], "2": ["+5c"] })
    await s.popPart(20)
    s.expect({ latest: ["-7c"], finalized: [], "2": [] })
    await s.popTo(6)
    s.expect(none)
    await s.push(["7c", "8c"])
    s.expect({ latest: ["+7c", "+8c"], finalized: [], "2": ["+6c"] })
    await s.finalize("7c")
    s.expect({
      latest: [],
      finalized: ["+1c!", "+2c!", "+3c!", "+4c!", "+5c!", "+6c!", "+7c!"],
      "2": [],
    })
  }),
  record("comes-back", "blocks that a reorg replaces, and that are canonical again later", async (s) => {
    await s.push(["1a", "2a", "3a", "4a"])
    s.expect({ latest: ["+1a", "+2a", "+4a"], finalized: [], "2": ["+1a", "+2a"] })
    await s.popTo(1)
    await s.push(["2b", "3b", "4b", "5b"])
    s.expect({ latest: ["-4a", "-2a", "+2b", "+3b", "+5b"], finalized: [], "2": ["-2a", "+2b", "+3b"] })
    await s.popTo(1)
    await s.push(["2a", "3a", "4a", "5a", "6a"])
    s.expect({
      latest: ["-5b", "-3b", "-2b", "+2a", "+4a", "+6a"],
      finalized: [],
      "2": ["-3b", "-2b", "+2a", "+4a"],
    })
  }),
  record(
    "trimmed",
    "entries that every reader has read are trimmed, and then some that are not read",
    async (s) => {
      await s.push(["1a", "2a", "3a", "4a"], true)
      s.expect({
        latest: ["+1a!", "+2a!", "+4a!"],
        finalized: ["+1a!", "+2a!", "+4a!"],
        "2": ["+1a!", "+2a!"],
      })
      await s.trim(1)
      await s.push(["5a", "6a"])
      s.expect({ latest: ["+6a"], finalized: [], "2": ["+4a!"] })
      await s.push(["7a", "8a", "9a"], true)
      await s.trim(1)
      s.expect({ latest: { error: "TRIMMED" }, finalized: { error: "TRIMMED" }, "2": { error: "TRIMMED" } })
    },
  ),
  record(
    "removed-only",
    "removals whose adds were trimmed: what was not applied is not retracted",
    async (s) => {
      await s.push(["1a", "2a", "3a", "4a", "5a", "6a"])
      s.expect({ latest: ["+1a", "+2a", "+4a", "+6a"], finalized: [], "2": ["+1a", "+2a", "+4a"] })
      await s.popTo(3)
      await s.push(["3a", "4b", "5b", "6b", "7b", "8b"])
      await s.trim(5)
      s.expect({
        latest: ["-6a", "-4a", "+5b", "+7b", "+8b"],
        // These have not read the add of block 6 yet.
        finalized: { error: "TRIMMED" },
        "2": { error: "TRIMMED" },
      })
    },
  ),
  record("set-back", "the store lost its last entries, which are written again unchanged", async (s) => {
    await loseTail(s)
    await s.push(["4a", "5a", "6a", "7a"])
    s.expect({ latest: ["+7a"], finalized: [], "2": [] })
    await s.finalize("7a")
    s.expect({ latest: [], finalized: ["+2a!", "+4a!", "+6a!", "+7a!"], "2": [] })
  }),
  record(
    "set-back-reorg",
    "the store lost its last entries, and other blocks are written in their place",
    async (s) => {
      await loseTail(s)
      await s.popTo(1)
      await s.push(["2b", "3b", "4b", "5b", "6b", "7b"])
      s.expect({
        latest: ["-6a", "-4a", "-2a", "+2b", "+3b", "+5b", "+7b"],
        finalized: [],
        "2": ["-4a", "-2a", "+2b", "+3b", "+5b"],
      })
      await s.finalize("7b")
      s.expect({ latest: [], finalized: ["+2b!", "+3b!", "+5b!", "+7b!"], "2": [] })
    },
  ),
  record(
    "set-back-unnoticed",
    "the same while no ingestor ran: the epoch stays, the cursor tells",
    async (s) => {
      await s.push(["1a", "2a", "3a"])
      await s.save()
      await s.push(["4a", "5a", "6a"])
      s.expect({ latest: ["+1a", "+2a", "+4a", "+6a"], finalized: [], "2": ["+1a", "+2a", "+4a"] })
      await s.setBack(false)
      await s.push(["4c", "5c", "6c"])
      await s.finalize("6c")
      s.expect({
        latest: ["-6a", "-4a", "+4c!", "+5c!", "+6c!"],
        finalized: ["+1a!", "+2a!", "+4c!", "+5c!", "+6c!"],
        "2": ["-4a", "+4c!"],
      })
    },
  ),
  record("two-epochs", "the store is set back twice before anybody looks again", async (s) => {
    await s.push(["1a", "2a"])
    await s.save()
    await s.push(["3a", "4a"])
    s.expect({ latest: ["+1a", "+2a", "+4a"], finalized: [], "2": ["+1a", "+2a"] })
    await s.setBack(true)
    await s.push(["3b"])
    await s.save()
    await s.push(["4b", "5b"])
    await s.setBack(true)
    await s.push(["4a", "5a", "6a"])
    s.expect({ latest: ["-4a", "+3b", "+4a", "+6a"], finalized: [], "2": ["+3b", "+4a"] })
  }),
  record("reset", "the journal is reset: what was applied may have no entry any more", async (s) => {
    await s.push(["1a", "2a"])
    s.expect({ latest: ["+1a", "+2a"], finalized: [], "2": [] })
    await s.reset()
    await s.push(["1b", "2b"])
    s.expect({ latest: { error: "RESET" }, finalized: { error: "RESET" }, "2": { error: "RESET" } })
  }),
  record("filter-changed", "the ingestor's filter changes", async (s) => {
    await s.push(["1a", "2a", "3a"])
    s.expect({ latest: ["+1a", "+2a"], finalized: [], "2": ["+1a"] })
    await s.changeFilter("0123456789abcdef")
    await s.push(["4a"])
    s.expect({ latest: { error: "FILTER" }, finalized: { error: "FILTER" }, "2": { error: "FILTER" } })
  }),
]

await Effect.runPromise(Effect.all(scenarios))
