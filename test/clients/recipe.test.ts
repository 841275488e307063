/** The program of docs/CONSUMING.md ("Without a library"), as written, on a real Redis. */
import { assert, describe, it, vi } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { follow, memory } from "../../clients/typescript/src/index.ts"
import { directory } from "../support/directory.ts"
import { python, shell } from "../support/shell.ts"
import { Dice } from "./JournalModel.ts"
import * as StreamWriter from "./StreamWriter.ts"
import { named } from "./StreamWriter.ts"

const text = readFileSync("docs/CONSUMING.md", "utf8")
const [, program] = /^```python\n([\s\S]*?)^```$/m.exec(text)!

/** Replaces a text of the program that must be there. */
const replaced = (text: string, by: string) => {
  assert.include(program, text)
  return program!.replace(text, by)
}

/** Another order of events: `RECIPE_SEED=2`. */
const seed = Number(process.env["RECIPE_SEED"] ?? 1)

const keys = ["events:1", "{events:1}:head", "{events:1}:window"]

/** A stream, and a directory with the program. */
const setup = Effect.gen(function* () {
  const stream = yield* StreamWriter.start()
  const place = yield* directory
  const { client } = stream
  return {
    stream,
    /** Starts the program; with `looks`, it ends after so many of them. */
    run: (text: string, looks?: number, url = stream.url) => {
      const file = join(place, "reader.py")
      const limited = text.replace("while True:", `for _ in range(${looks}):`)
      writeFileSync(file, looks === undefined ? text : limited)
      return shell(`cd ${place} && exec ${python} reader.py`, { REDIS_URL: url })
    },
    /** The blocks of the rows in its table. */
    rows: () => {
      const database = new DatabaseSync(join(place, "logs.db"), { timeout: 5000 })
      try {
        const rows = database.prepare("SELECT block_hash, log_index FROM logs").all()
        return rows.map(({ block_hash: hash, log_index: index }) => `${String(hash)}:${String(index)}`).sort()
      } catch {
        return []
      } finally {
        database.close()
      }
    },
    /** Copies the store; returns a function that sets it back. */
    copy: async () => {
      const saved = await Promise.all(keys.map((key) => client.dumpBuffer(key)))
      return async () => {
        const all = client.multi().del(...keys)
        for (const [i, dump] of saved.entries()) if (dump !== null) all.restore(keys[i]!, 0, dump)
        await all.exec()
      }
    },
  }
})

const rowsOf = (names: ReadonlyArray<string>) =>
  names.flatMap((name) => [0, 1].map((index) => `${named(name).hash}:${index}`)).sort()

/** Whether it holds within half a minute. */
const until = (holds: () => boolean) =>
  vi.waitUntil(holds, { interval: 10, timeout: 30_000 }).catch(() => false)

describe("the program of docs/CONSUMING.md", () => {
  it.live(
    "keeps a table equal to the chain through reorgs, kill -9 and a store that is set back",
    () =>
      Effect.gen(function* () {
        const { stream, run, rows, copy } = yield* setup
        const text = replaced('count = 1, "logs", 1000', 'count = 1, "logs", 7')
        const dice = new Dice(seed)
        // The chain, how far it is final, and the blocks in the stream.
        let chain = ["1a"]
        let final = 1
        let written: ReadonlyArray<string> = []
        let forks = 0
        const extend = (blocks: number) => {
          const names = Array.from({ length: blocks }, (_, i) => {
            const fork = [...String(++forks)].map((digit) => "abcdefghij"[Number(digit)]).join("")
            return `${chain.length + 1 + i}x${fork}`
          })
          chain = [...chain, ...names]
        }
        const reorg = () => {
          chain = chain.slice(0, Math.max(final, chain.length - 1 - dice.below(4)))
        }
        /** Writes what an ingestor writes, so that the stream is the chain. */
        const ingest = async () => {
          const different = chain.findIndex((name, i) => written[i] !== name)
          const common = different === -1 ? chain.length : different
          if (common < written.length) await stream.popTo(common)
          if (common < chain.length) await stream.push(chain.slice(common))
          written = chain
          await stream.finalize(chain[final - 1]!)
        }
        let saved:
          | { readonly restore: () => Promise<void>; readonly written: ReadonlyArray<string> }
          | undefined
        let reader = yield* run(text)
        const isEqual = () =>
          until(
            () => JSON.stringify(rows()) === JSON.stringify(rowsOf(chain)) || reader.child.exitCode !== null,
          )
        yield* Effect.promise(ingest)
        for (let i = 0; i < 80; i++) {
          const die = dice.below(12)
          if (die === 11) {
            reader.child.kill("SIGKILL")
            reader = yield* run(text)
          }
          yield* Effect.promise(async () => {
            // The reader catches up now and then; at other steps it is somewhere behind.
            if (die === 10) await isEqual()
            if (die === 9) saved = { restore: await copy(), written }
            if (die === 8 && saved !== undefined) {
              await saved.restore()
              written = saved.written
              saved = undefined
              if (dice.chance(0.7)) reorg()
            }
            if (die === 7) final = Math.max(final, chain.length - dice.below(6))
            if (die === 6 || die === 5) reorg()
            extend(1 + dice.below(3))
            await ingest()
          })
        }
        yield* Effect.promise(isEqual)
        assert.deepStrictEqual(rows(), rowsOf(chain), `seed ${seed}: ${reader.output()}`)
        const report = JSON.parse(
          (yield* Effect.promise(() => stream.client.hget("{events:1}:readers", "logs")))!,
        )
        assert.strictEqual(
          report.id,
          (yield* Effect.promise(() => stream.client.xrevrange(keys[0]!, "+", "-", "COUNT", 1)))[0]![0],
        )
      }),
    60_000,
  )

  /** Reads one page of an orphaned block whose height is final by now; then the store is set back to before it. */
  const behind = (text: string) =>
    Effect.gen(function* () {
      const { stream, run, rows, copy } = yield* setup
      yield* Effect.promise(() => stream.push(["1a"]))
      const restore = yield* Effect.promise(copy)
      yield* Effect.promise(async () => {
        await stream.push(["2a"])
        await stream.popTo(1)
        await stream.push(["2b", "3b"])
        await stream.finalize("2b")
      })
      const first = yield* run(text, 1)
      yield* Effect.promise(() => until(() => first.child.exitCode !== null))
      assert.deepStrictEqual(rows(), rowsOf(["1a", "2a"]))
      yield* Effect.promise(async () => {
        await restore()
        await stream.push(["2b", "3b"])
        await stream.finalize("2b")
      })
      const second = yield* run(text, 4)
      yield* Effect.promise(() => until(() => second.child.exitCode !== null))
      return rows()
    })

  const page = (text: string) => text.replace('count = 1, "logs", 1000', 'count = 1, "logs", 4')

  it.live("believes no final number while it is behind, and would be wrong if it did", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* behind(page(program!)), rowsOf(["1a", "2b", "3b"]))
      const credulous = replaced(
        "    if len(page) < count:\n        complete",
        "    if True:\n        complete",
      )
      assert.deepStrictEqual(yield* behind(page(credulous)), rowsOf(["1a", "2a", "3b"]))
    }),
  )

  it.live("needs only the rights that are named there, and so does the library", () =>
    Effect.gen(function* () {
      const { stream, run, rows } = yield* setup
      const [, rights] = /^ACL SETUSER (reader .*)$/m.exec(text)!
      yield* Effect.promise(() => stream.client.call("ACL", "SETUSER", ...rights!.split(" ")))
      yield* Effect.promise(() => stream.push(["1a", "2a"]))
      const url = stream.url.replace("://", "://reader:secret@")
      const { child } = yield* run(program!, 1, url)
      yield* Effect.promise(() => until(() => child.exitCode !== null))
      assert.deepStrictEqual(rows(), rowsOf(["1a", "2a"]))
      const stop = new AbortController()
      const numbers: Array<number> = []
      yield* Effect.promise(() =>
        follow({
          redis: url,
          chain: 1,
          name: "library",
          from: "earliest",
          finality: "latest",
          checkpoint: memory(),
          signal: stop.signal,
          apply: ({ block }) => {
            numbers.push(block.number)
            if (block.number === 2) stop.abort()
          },
          undo: () => {},
        }),
      )
      assert.deepStrictEqual(numbers, [1, 2])
    }),
  )

  it.live("stops when entries that it needs were trimmed", () =>
    Effect.gen(function* () {
      const { stream, run } = yield* setup
      yield* Effect.promise(() => stream.push(["1a", "2a", "3a", "4a", "5a"], true))
      yield* run(page(program!), 1)
      yield* Effect.promise(async () => {
        const isPublished = async () => (await stream.client.hexists("{events:1}:readers", "logs")) === 1
        await vi.waitUntil(isPublished, { interval: 10, timeout: 30_000 })
        await stream.client.xtrim(keys[0]!, "MAXLEN", 4)
        await stream.trim()
      })
      const { says } = yield* run(page(program!), 1)
      yield* says(/entries were trimmed: start over from block 4/)
    }),
  )
})
