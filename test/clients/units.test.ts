/** The parts of the consumer that need no stream. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { DatabaseSync } from "node:sqlite"
import { encodeAbiParameters, encodeEventTopics, parseAbi } from "viem"
import { follow, memory, sqlite } from "../../clients/typescript/src/index.ts"
import type { Block, ConsumerError, FollowOptions } from "../../clients/typescript/src/index.ts"
import { identityOf } from "../../clients/typescript/src/Entry.ts"
import type { Entry, Log } from "../../clients/typescript/src/Entry.ts"
import type { Position } from "../../clients/typescript/src/Position.ts"
import { reconcile } from "../../clients/typescript/src/Reconcile.ts"
import type { Source } from "../../clients/typescript/src/Source.ts"
import { makeDecoder } from "../../clients/typescript/src/Events.ts"
import type { Event } from "../../clients/typescript/src/Events.ts"
import { assertIncluded } from "../../clients/typescript/src/Filter.ts"
import { plan } from "../../clients/typescript/src/Plan.ts"
import { replay } from "../../clients/typescript/src/Testing.ts"
import { openSqlite } from "../../clients/typescript/src/SqliteSource.ts"
import { emptyHead } from "../../src/store/Journal.ts"
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
      "two events that cannot be told apart",
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
  const rows: ReadonlyArray<readonly [what: string, content: string | undefined, ok: boolean]> = [
    ["everything", "[[],[]]", true],
    ["this contract and event", JSON.stringify([[address], [[topic]]]), true],
    [
      "more contracts and events",
      JSON.stringify([[address, `0x${"cd".repeat(20)}`], [[topic, `0x${"02".repeat(32)}`]]]),
      true,
    ],
    ["another contract", JSON.stringify([[`0x${"cd".repeat(20)}`], []]), false],
    ["another event", JSON.stringify([[], [[`0x${"02".repeat(32)}`]]]), false],
    ["a condition on another topic", JSON.stringify([[], [null, [topic]]]), false],
    ["an unknown one", undefined, false],
  ]
  for (const [what, content, ok] of rows)
    it(`${ok ? "includes" : "does not include"} what is asked for if it is ${what}`, () => {
      const check = () =>
        assertIncluded(1, content, { addresses: [address.toUpperCase().replace("X", "x")], events: transfer })
      if (ok) check()
      else assert.throws(check, /filter/)
    })

  it("includes everything only if it is everything", () => {
    assertIncluded(1, "[[],[]]", { addresses: [], events: [] })
    assert.throws(
      () => assertIncluded(1, JSON.stringify([[address], []]), { addresses: [], events: [] }),
      /no longer includes/,
    )
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
  const entries = [entry(5, "a", 0, true), entry(5, "b", 0), entry(6, "b", 0)].map((fields, i): Entry => ({
    id: String(i + 11),
    fields,
  }))
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
  /** The add of block 5a was trimmed: what is kept begins with its removal. */
  const run = (position: Partial<Position>) => {
    const block = {
      chain: 1,
      number: 5,
      hash: "0xa5",
      timestamp: 1,
      finalized: false,
      logs: [],
      skipped: false,
      pending: false,
    } as const
    const state = {
      position: {
        id: "10",
        identity: "lost",
        epoch: "one",
        offset: 10,
        final: 3,
        block: 5,
        filter: "none",
        owner: "",
        beat: 0,
        ...position,
      },
      stack: [block],
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
    const snapshot = { head, length: 3, first: "11", last: "13", known: [undefined], page: [] }
    return reconcile(
      source,
      state,
      snapshot,
      { finality: "latest", matches: () => true, pinned: true },
      identityOf,
    )
  }

  it.live(
    "undoes a block whose add was trimmed and whose removal is kept, and applies what replaced it",
    () =>
      Effect.gen(function* () {
        const found = yield* promise(() => run({}))
        assert.deepStrictEqual(
          found?.steps.map(({ kind, block }) => `${kind} ${block.hash}`),
          ["undo 0xa5"],
        )
        // What is kept is read again: the removal of a block that is not applied is skipped.
        assert.deepStrictEqual([found?.state.position.id, found?.state.position.final], ["0", 3])
      }),
  )

  it.live("reports what was trimmed before it was read", () =>
    Effect.gen(function* () {
      const failed = yield* promise(() => codeOf(() => run({ offset: 5, id: "5" })))
      assert.match(failed, /^TRIMMED /)
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
})
