/** The parts of the consumer that need no stream. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { renameSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { encodeAbiParameters, encodeEventTopics, parseAbi } from "viem"
import { follow, memory, sqlite } from "../../clients/typescript/src/index.ts"
import type { Block, ConsumerError, FollowOptions } from "../../clients/typescript/src/index.ts"
import { identityOf } from "../../clients/typescript/src/Entry.ts"
import type { Entry, Log } from "../../clients/typescript/src/Entry.ts"
import type { Position } from "../../clients/typescript/src/Position.ts"
import { reconcile, standingOf } from "../../clients/typescript/src/Reconcile.ts"
import type { Source } from "../../clients/typescript/src/Source.ts"
import { makeDecoder } from "../../clients/typescript/src/Events.ts"
import type { Event } from "../../clients/typescript/src/Events.ts"
import { followFrom } from "../../clients/typescript/src/Follow.ts"
import { assertIncluded, assertStillIncluded } from "../../clients/typescript/src/Filter.ts"
import type { Asked } from "../../clients/typescript/src/Filter.ts"
import { plan } from "../../clients/typescript/src/Plan.ts"
import { replay } from "../../clients/typescript/src/Testing.ts"
import { openSqlite } from "../../clients/typescript/src/SqliteSource.ts"
import { afterPush, emptyHead } from "../../src/store/Journal.ts"
import { pushes } from "../../src/store/Pushes.ts"
import { blocks } from "../support/blocks.ts"
import { openSqlite as openStore } from "../support/ingestor.ts"
import { directory } from "../support/directory.ts"
import { join } from "node:path"

const promise = <A>(run: () => Promise<A>) => Effect.promise(run)

const codeOf = (run: () => Promise<unknown>) =>
  run().then(
    () => "none",
    ({ code, message }: ConsumerError) => `${code} ${message}`,
  )

const valid = {
  redis: "redis://127.0.0.1:1",
  chain: 1,
  name: "reader",
  from: "earliest",
  finality: "latest",
  checkpoint: memory(),
  apply: () => {},
  undo: () => {},
} as const satisfies FollowOptions<never, undefined>

describe("options", () => {
  const wrong: ReadonlyArray<readonly [what: string, options: object, message: RegExp]> = [
    ["no stream", { redis: undefined }, /redis or sqlite/],
    ["two streams", { sqlite: "x.db" }, /redis or sqlite/],
    ["no chain", { chain: undefined }, /chain or chains/],
    ["a chain twice", { chain: undefined, chains: [1, 1] }, /one twice/],
    ["an impossible chain", { chain: -1 }, /no ids of chains/],
    ["no name", { name: undefined }, /name/],
    ["a name with a space", { name: "a b" }, /name: "a b"/],
    ["no from", { from: undefined }, /from: undefined: set "earliest"/],
    ["an impossible from", { from: 1.5 }, /from: 1.5/],
    ["no finality", { finality: "safe" }, /finality: "safe": set "latest"/],
    ["a negative finality", { finality: -1 }, /finality: -1/],
    ["an address with a wrong length", { addresses: ["0x12"] }, /addresses/],
    ["no checkpoint", { checkpoint: undefined }, /checkpoint: set postgres/],
    ["no handler", { apply: undefined }, /apply or applyMany/],
    ["two handlers", { applyMany: () => {} }, /apply or applyMany/],
    ["no undo before finality", { undo: undefined }, /undo: a reorg may replace/],
    ["a batch of nothing", { batch: { blocks: 0 } }, /batch/],
    ["an unknown duration", { lease: "soon" }, /lease: "soon" is no duration/],
    ["an ABI without events", { events: [] }, /no event/],
    [
      "an anonymous event",
      { events: [{ type: "event", name: "A", inputs: [], anonymous: true }] },
      /A is anonymous/,
    ],
    [
      "two events that cannot be distinguished",
      {
        events: parseAbi(["event A(uint256 indexed x, uint256 y)", "event A(uint256 x, uint256 indexed y)"]),
      },
      /two events A/,
    ],
    [
      "concurrency in a transaction",
      { concurrency: { by: () => "" }, checkpoint: sqlite(new DatabaseSync(":memory:")) },
      /concurrency: a transaction has one order/,
    ],
  ]
  for (const [what, options, message] of wrong)
    it.live(`refuses ${what}`, () =>
      Effect.gen(function* () {
        const failed = yield* promise(() => codeOf(async () => follow({ ...valid, ...options } as never)))
        assert.match(failed, message)
        assert.match(failed, /^OPTION /)
      }),
    )
})

describe("the ingestor's filter", () => {
  const address = `0x${"ab".repeat(20)}`
  const topic = `0x${"01".repeat(32)}`
  const transfer = [{ topic0: topic, topics: 3 }]
  const named = { addresses: [address.toUpperCase().replace("X", "x")], events: transfer }
  const unnamed = { addresses: [], events: [] }
  const other = `0x${"cd".repeat(20)}`
  const rows: ReadonlyArray<
    readonly [
      what: string,
      content: unknown,
      named: "includes" | "lacks",
      afterChange: boolean,
      unnamed: boolean,
    ]
  > = [
    ["everything", [[], []], "includes", true, true],
    ["this contract and event", [[address], [[topic]]], "includes", true, false],
    [
      "more contracts and events",
      [[address, other], [[topic, `0x${"02".repeat(32)}`]]],
      "includes",
      true,
      false,
    ],
    ["another contract", [[other], []], "lacks", false, false],
    ["another event", [[], [[`0x${"02".repeat(32)}`]]], "lacks", false, false],
    ["a condition on another topic", [[], [null, [topic]]], "includes", false, false],
  ]
  for (const [what, content, includes, afterChange, unnamedAfterChange] of rows)
    it(`${includes} what a reader names if it is ${what}`, () => {
      const text = JSON.stringify(content)
      const check = (asserts: typeof assertIncluded, asked: Asked, passes: boolean) => {
        if (passes) asserts(1, text, asked)
        else assert.throws(() => asserts(1, text, asked), /the ingestor's filter/)
      }
      check(assertIncluded, named, includes === "includes")
      check(assertStillIncluded, named, afterChange)
      // What a reader does not name is whatever the ingestor stores, but a change may have taken some of it.
      assertIncluded(1, text, unnamed)
      check(assertStillIncluded, unnamed, unnamedAfterChange)
    })

  it("is not accepted after a change if it is unknown", () => {
    assert.throws(() => assertStillIncluded(1, undefined, named), /set onFilterChanged/)
  })
})

const abi = parseAbi([
  "event Transfer(address indexed from, address indexed to, uint256 value)",
  "event Named(string indexed key, string text, (uint8 a, bytes b)[] pairs)",
])

const logOf = (topics: ReadonlyArray<unknown>, data: string): Log => ({
  chain: 1,
  blockNumber: 1,
  blockHash: "0x01",
  txHash: "0x02",
  txIndex: 0,
  index: 0,
  contract: "0x03",
  topics: topics as Log["topics"],
  data: data as Log["data"],
  key: "1:0x01:0",
})

describe("decoded events", () => {
  const [a, b] = [`0x${"11".repeat(20)}`, `0x${"22".repeat(20)}`] as const
  const transfer = logOf(
    encodeEventTopics({ abi, eventName: "Transfer", args: { from: a, to: b } }),
    encodeAbiParameters([{ type: "uint256" }], [5n]),
  )

  it.live("have the names and the types of the ABI, and leave out what is no encoding of it", () =>
    Effect.gen(function* () {
      const { topics, decode } = yield* promise(() => makeDecoder(abi))
      assert.deepStrictEqual(
        topics.map(({ topics }) => topics),
        [3, 2],
      )
      const named = logOf(
        encodeEventTopics({ abi, eventName: "Named", args: { key: "k" } }),
        encodeAbiParameters(abi[1].inputs.slice(1) as never, ["text", [{ a: 1, b: "0x0102" }]] as never),
      )
      const broken = { ...transfer, data: "0x01" as const }
      const { events } = decode({
        chain: 1,
        number: 1,
        hash: "0x01",
        timestamp: 1,
        finalized: true,
        logs: [transfer, named, broken],
      })
      assert.deepStrictEqual(
        events.map(({ name }) => name),
        ["Transfer", "Named"],
      )
      const [first, second] = events
      if (first?.name !== "Transfer" || second?.name !== "Named") return assert.fail("other names")
      // These assignments are also the test of the types.
      const value: bigint = first.args.value
      const from: `0x${string}` = first.args.from
      const key: `0x${string}` = second.args.key
      const text: string = second.args.text
      assert.deepStrictEqual([value, from.toLowerCase(), text], [5n, a, "text"])
      assert.strictEqual(key, named.topics[1])
      assert.deepStrictEqual(second.args.pairs, [{ a: 1, b: "0x0102" }])
    }),
  )

  it("have no other names", () => {
    type Name = Event<typeof abi>["name"]
    const known: Record<Name, true> = { Transfer: true, Named: true }
    const isOther: "Approval" extends Name ? true : false = false
    assert.deepStrictEqual([Object.keys(known), isOther], [["Transfer", "Named"], false])
  })
})

const entry = (number: number, fork: string, index: number, removed = false) => ({
  chain_id: "1",
  block_number: String(number),
  block_hash: `0x${fork}${number}`,
  tx_hash: "0x02",
  log_index: String(index),
  contract: "0x03",
  topics: "[]",
  data: "0x",
  timestamp: "1",
  tx_index: "0",
  removed: String(removed),
})

describe("replay", () => {
  it.live("delivers recorded entries as a reader would, for tests of handlers", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const note =
        (sign: string) =>
        ({ block }: { readonly block: Block }) =>
          void seen.push(`${sign}${block.hash}:${block.logs.length}${block.finalized ? "!" : ""}`)
      const entries = [
        entry(1, "a", 0),
        entry(1, "a", 1),
        entry(2, "a", 0),
        entry(2, "a", 0, true),
        entry(2, "b", 0),
        entry(3, "b", 0),
      ]
      yield* promise(() => replay(entries, { apply: note("+"), undo: note("-"), finalNumber: 2 }))
      assert.deepStrictEqual(seen, ["+0xa1:2!", "+0xa2:1", "-0xa2:1", "+0xb2:1!", "+0xb3:1"])
    }),
  )
})

describe("a plan", () => {
  const position = {
    id: "0",
    identity: "",
    epoch: "e",
    offset: 0,
    final: 0,
    block: 0,
    filter: "none",
    owner: "",
    beat: 0,
  }
  const entries = (all: ReadonlyArray<ReturnType<typeof entry>>): Array<Entry> =>
    all.map((fields, i) => ({ id: String(i + 1), fields }))
  const horizon = { number: 3, hash: "0xb3", part: 0, finalNumber: 3 }

  it("does not take the height of a block as a proof that it is final", () => {
    const view = {
      entries: entries([entry(2, "a", 0), entry(3, "a", 0)]),
      horizon,
      isAtHorizon: false,
      laterMinimum: 2,
    }
    const { steps, state } = plan({ position, stack: [] }, view, {
      finality: "finalized",
      matches: () => true,
    })
    assert.deepStrictEqual([steps, state.position.final], [[], 0])
  })

  it("undoes a block whose removal is missing when another one takes its place", () => {
    const stacked = plan(
      { position, stack: [] },
      {
        entries: entries([entry(2, "a", 0)]),
        horizon: { ...horizon, number: 2, finalNumber: 0 },
        isAtHorizon: true,
        laterMinimum: Infinity,
      },
      { finality: "latest", matches: () => true },
    )
    const { steps } = plan(
      stacked.state,
      {
        entries: entries([entry(2, "b", 0)]),
        horizon: { ...horizon, number: 2, finalNumber: 0 },
        isAtHorizon: true,
        laterMinimum: Infinity,
      },
      { finality: "latest", matches: () => true },
    )
    assert.deepStrictEqual(
      steps.map(({ kind, block }) => `${kind} ${block.hash}`),
      ["undo 0xa2", "apply 0xb2"],
    )
  })
})

describe("reconcile", () => {
  /** The entries that a stream has, from id 11 on. */
  let entries: ReadonlyArray<Entry> = []
  const hold = (...moves: ReadonlyArray<readonly [number: number, fork: string, removed?: boolean]>) => {
    entries = moves.map(([number, fork, removed = false], i) => ({
      id: String(i + 11),
      fields: entry(number, fork, 0, removed),
    }))
  }
  const source: Source = {
    name: "entries",
    lowest: "0",
    compare: (one, other) => Number(one) - Number(other),
    readBack: async () => entries.toReversed(),
    snapshot: () => assert.fail("no snapshot"),
    measure: () => assert.fail("nothing is behind"),
    changed: async () => {},
    report: async () => {},
    close: async () => {},
  }
  const at: Position = {
    id: "10",
    identity: "lost",
    epoch: "one",
    offset: 10,
    final: 3,
    block: 5,
    filter: "none",
    owner: "",
    beat: 0,
  }
  const head = {
    version: 2,
    epoch: "two",
    epochReason: "lost",
    number: 6,
    hash: "0xb6",
    part: 0,
    finalNumber: 6,
    startNumber: 1,
    firstNumber: 6,
    filter: "none",
    filterContent: undefined,
    added: 13,
  }

  for (const [id, epoch, added, known, standing] of [
    // Before the first entry: five entries were trimmed that it does not need.
    ["0", "one", 8, undefined, "continues"],
    ["0", "one", 9, undefined, "trimmed"],
    // An older copy, from which fewer were trimmed; or one of which it is not known what it has lost.
    ["0", "one", 7, undefined, "set back"],
    ["0", "two", 8, undefined, "set back"],
    // The ingestor does not count.
    ["0", "one", 0, undefined, "continues"],
    // After an entry.
    ["11", "two", 8, "0xa5:0:true", "continues"],
    ["11", "one", 8, "another", "set back"],
    ["12", "one", 8, undefined, "set back"],
    ["5", "one", 8, undefined, "continues"],
    ["5", "one", 9, undefined, "trimmed"],
    ["5", "one", 7, undefined, "set back"],
    ["5", "two", 8, undefined, "set back"],
  ] as const) {
    it(`finds that a position after ${id} of ${epoch}, with ${added} entries added, ${standing}`, () => {
      hold(...replaced)
      const position = { ...at, id, identity: known ?? "", offset: 5 }
      const snapshot = {
        head: { ...head, epoch, added },
        length: 3,
        first: "11",
        last: "13",
        known: [known && entries[0]!],
        page: [],
      }
      assert.strictEqual(standingOf(position, snapshot, source, identityOf), standing)
    })
  }

  /** After ten entries that were trimmed. The first number is 6. @param blocks the applied ones, `6b`; pending: `6b?` */
  const run = (blocks: ReadonlyArray<string>, position: Partial<Position> = {}, pinned = true) => {
    const stack = blocks.map((name) => ({
      chain: 1,
      number: Number(name[0]),
      hash: `0x${name[1]}${name[0]}` as const,
      timestamp: 1,
      finalized: false,
      logs: [],
      skipped: false,
      pending: name.endsWith("?"),
    }))
    const state = { position: { ...at, ...position }, stack }
    const snapshot = {
      head: { ...head, added: 10 + entries.length },
      length: entries.length,
      first: entries[0]?.id,
      last: entries.at(-1)?.id,
      known: [entries.find(({ id }) => id === state.position.id)],
      page: [],
    }
    return reconcile(source, state, snapshot, { chain: 1, matches: () => true, pinned }, identityOf)
  }
  /** The add of block 5a was trimmed: what is kept begins with its removal. */
  const replaced = [
    [5, "a", true],
    [5, "b"],
    [6, "b"],
  ] as const

  it.live(
    "undoes a block whose add was trimmed and whose removal is kept, and applies what replaced it",
    () =>
      Effect.gen(function* () {
        hold(...replaced)
        const found = yield* promise(() => run(["5a"]))
        assert.deepStrictEqual(
          found?.steps.map(({ kind, block }) => `${kind} ${block.hash}`),
          ["undo 0xa5"],
        )
        // What is kept is read again: the removal of a block that is not applied is skipped.
        assert.deepStrictEqual([found?.state.position.id, found?.state.position.final], ["0", 3])
      }),
  )

  it.live("keeps the old position, with its epoch, until the last block is retracted", () =>
    Effect.gen(function* () {
      hold(...replaced)
      const found = yield* promise(() => run(["5a", "6a"]))
      assert.deepStrictEqual(
        found?.steps.map(({ block, position }) => [block.hash, position.id, position.epoch]),
        [
          ["0xa6", "10", "one"],
          ["0xa5", "0", "two"],
        ],
      )
    }),
  )

  it.live("reports what was trimmed before it was read", () =>
    Effect.gen(function* () {
      hold(...replaced)
      const failed = yield* promise(() => codeOf(() => run(["5a"], { offset: 5, id: "5" })))
      assert.match(failed, /^TRIMMED /)
    }),
  )

  it.live("resumes at the position without a set-back: what was read may be trimmed at any time", () =>
    Effect.gen(function* () {
      hold([5, "b"], [6, "c"], [6, "c", true], [6, "b"])
      const position = { id: "13", identity: "0xc6:0:true", offset: 13 }
      const found = yield* promise(() => run(["5b", "6b?"], position))
      const { id, offset, epoch } = found!.state.position
      assert.deepStrictEqual([id, offset, epoch], ["13", 13, "two"])
      hold([6, "b"])
      const unpinned = yield* promise(() => run(["6b?"], { epoch: "two" }, false))
      assert.strictEqual(unpinned?.state.position.id, "10")
    }),
  )

  it.live("reads again what must be applied again, without a set-back", () =>
    Effect.gen(function* () {
      hold([5, "b"], [6, "b"], [7, "b"])
      const position = { id: "13", identity: "0xb7:0:false", offset: 13 }
      const found = yield* promise(() => run(["5b", "6b?", "7b"], position))
      assert.deepStrictEqual(
        found?.steps.map(({ kind, block }) => `${kind} ${block.hash}`),
        ["undo 0xb7"],
      )
      assert.strictEqual(found?.state.position.id, "11")
    }),
  )
})

describe("the ingestor's SQLite file", () => {
  it.live("is read as a stream, and the reader's position is written to it", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "events.db")
      const store = yield* openStore(path)
      for (const push of pushes(emptyHead(1), blocks(1, "a", [2, 0, 3]), false))
        yield* store.push(1, "none", push)
      yield* store.trim(1, "none [[],[]]")
      const seen: Array<string> = []
      const stop = new AbortController()
      yield* promise(() =>
        follow({
          ...valid,
          redis: undefined as never,
          sqlite: path,
          signal: stop.signal,
          apply: ({ block }: { readonly block: Block }) =>
            void seen.push(`${block.number}:${block.logs.length}`),
          onProgress: ({ through }: { readonly through: number }) => through === 3 && stop.abort(),
        } as never),
      )
      assert.deepStrictEqual(seen, ["1:2", "3:3"])
      const source = openSqlite(path, 1)
      const { known, head, length, first, last } = yield* promise(() =>
        source.snapshot({ known: ["1", "9"], after: "0", count: 0 }),
      )
      assert.deepStrictEqual(
        [known[0]?.fields["removed"], known[1], length, first, last],
        ["false", undefined, 5, "1", "5"],
      )
      assert.deepStrictEqual([head?.number, head?.filterContent], [3, "[[],[]]"])
      const database = new DatabaseSync(path)
      const reader = database.prepare('SELECT name, id, "offset", block, finality FROM readers').get()
      assert.deepStrictEqual(
        { ...reader },
        { name: "reader", id: 5, offset: 5, block: 3, finality: "latest" },
      )
      database.close()
      yield* promise(() => source.close())
    }),
  )

  for (const logs of [1, 200])
    it.live(
      `is caught up in one query a thousand entries, and hardly any is read twice: ${logs} a block`,
      () =>
        Effect.gen(function* () {
          const path = join(yield* directory, "events.db")
          const store = yield* openStore(path)
          const total = 20_000
          const counts = Array.from({ length: total / logs }, () => logs)
          for (const push of pushes(emptyHead(1), blocks(1, "a", counts), true))
            yield* store.push(1, "none", push)
          const looks: Array<number> = []
          const stop = new AbortController()
          let delivered = 0
          const apply = ({ block }: { readonly block: Block }) => {
            delivered += block.logs.length
            if (delivered === total) stop.abort()
          }
          const open = (): Source => {
            const source = openSqlite(path, 1)
            const snapshot: Source["snapshot"] = async (query) => {
              const found = await source.snapshot(query)
              if (query.count > 0) looks.push(found.page.length)
              return found
            }
            return { ...source, snapshot }
          }
          yield* promise(() =>
            followFrom(open, { ...valid, checkpoint: memory(), apply, signal: stop.signal }),
          )
          assert.strictEqual(delivered, total)
          assert.isAtMost(looks.length, total / 1000 + 3)
          assert.isAtMost(
            looks.reduce((sum, length) => sum + length, 0),
            total * 1.3,
          )
        }),
    )

  it.live("is not read with the log of the file that it replaced, so that the ingestor can reopen it", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "events.db")
      const store = yield* openStore(path)
      const [one, two, three] = blocks(1, "a", [1, 1, 1])
      const [first] = pushes(emptyHead(1), [one!], false)
      yield* store.push(1, "none", first!)
      const copy = `${path}.copy`
      const database = new DatabaseSync(path)
      database.prepare("VACUUM INTO ?").run(copy)
      database.close()
      for (const push of pushes(afterPush(first!), [two!, three!], false)) yield* store.push(1, "none", push)
      const source = openSqlite(path, 1)
      const query = { known: [], after: "0", count: 10 }
      const read = Effect.tryPromise(() => source.snapshot(query))
      assert.strictEqual((yield* read).page.length, 3)
      renameSync(copy, path)
      assert.match(String((yield* Effect.flip(read)).cause), /write-ahead log beside it/)
      assert.include((yield* Effect.flip(store.load(1))).detail, "was replaced")
      assert.strictEqual((yield* store.load(1))?.head.number, 1)
      assert.strictEqual((yield* read).page.length, 1)
      yield* promise(() => source.close())
    }),
  )
})
