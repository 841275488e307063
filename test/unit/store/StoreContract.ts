/** The contract of every store, one test per promise. The test file of a store calls `contract` with a way to open it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import type { Scope } from "effect"
import type { Block, Hex } from "../../../src/Domain.ts"
import { afterPush, callLimits, emptyJournal, applied, emptyHead } from "../../../src/store/Journal.ts"
import { digestOfPart, pushes } from "../../../src/store/Pushes.ts"
import type { Journal, Position, Push } from "../../../src/store/Journal.ts"
import { Replay } from "../../../src/store/Replay.ts"
import { StoreError } from "../../../src/store/StoreError.ts"
import type { Stored } from "../../../src/store/Entries.ts"
import type { Store } from "../../../src/store/Store.ts"
import { block, blocks, hash } from "../../support/blocks.ts"

/** One data set, with any number of clients. */
export interface Harness {
  /** Opens another client of the same data, which keeps about `maxLength` entries per chain (default: all). */
  readonly open: (maxLength?: number) => Effect.Effect<Store, unknown, Scope.Scope>
  /** Takes a snapshot of the data. Running the result restores it. */
  readonly snapshot: Effect.Effect<Effect.Effect<void, unknown>, unknown>
  readonly wipe: Effect.Effect<void, unknown>
  /** Deletes entries behind the store's back. */
  readonly deleteEntries: (chain: number, ids: ReadonlyArray<string>) => Effect.Effect<void, unknown>
  /** Sets the version of a journal. */
  readonly setVersion: (chain: number, version: number) => Effect.Effect<void, unknown>
  /**
   * Publishes the position of a reader, as readers do.
   *
   * @param seen unix seconds; by default so long ago that the reader is not pinned
   */
  readonly putReader: (chain: number, name: string, id: string, seen?: number) => Effect.Effect<void, unknown>
  /** How many entries were trimmed that a reader had not read. */
  readonly missed: (chain: number, reader: string) => Effect.Effect<number, unknown>
  /** The filters that were replaced, oldest first. */
  readonly filters: (chain: number) => Effect.Effect<ReadonlyArray<string>, unknown>
  /** The digest of the decoded events in the head. */
  readonly abi: (chain: number) => Effect.Effect<string, unknown>
}

const chain = 31337
const filter = "none"

/** Pushes blocks on top of a journal, divided into calls as the service does. Returns the new head. */
const push = Effect.fnUntraced(function* (
  store: Store,
  expected: Position,
  blocks: ReadonlyArray<Block>,
  final = false,
) {
  let position = expected
  for (const move of pushes(expected, blocks, final)) {
    assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Pushed")
    position = afterPush(move)
  }
  return position
})

/** Pops until the head is at or below a height. */
const popTo = Effect.fnUntraced(function* (store: Store, height: number) {
  for (;;) {
    const { head } = (yield* store.load(chain))!
    if (head.number <= height && head.part === 0) return head
    assert.strictEqual((yield* store.pop(chain, filter, { _tag: "Pop", expected: head }))._tag, "Popped")
  }
})

export const readAll = (store: Store, chain: number, after?: string) =>
  Stream.runCollect(store.after(chain, after))

/** Replays the journal; asserts that it has no fault and holds exactly these blocks. */
const holds = Effect.fnUntraced(function* (store: Store, expected: ReadonlyArray<Block>) {
  const replay = new Replay()
  for (const stored of yield* readAll(store, chain)) replay.apply(stored)
  assert.deepStrictEqual(replay.faults, [])
  assert.deepStrictEqual(
    replay.blocks.map((block) => [block.number, block.hash, block.logs.length]),
    expected
      .filter((block) => block.logs.length > 0)
      .map((block) => [block.number, block.hash, block.logs.length]),
  )
  return replay
})

const summary = (entries: ReadonlyArray<Stored>) =>
  entries.map(
    ({ entry }) => `${entry.removed === "true" ? "-" : "+"}${entry.block_number}/${entry.log_index}`,
  )

/** One random step on a journal. Heights and sizes are reduced to valid ones when it runs. */
const Step = Schema.Union([
  Schema.TaggedStruct("Push", {
    sizes: Schema.Array(Schema.Int).check(Schema.isMinLength(1), Schema.isMaxLength(4)),
  }),
  Schema.TaggedStruct("Pop", { times: Schema.Int }),
  Schema.TaggedStruct("Finalize", { depth: Schema.Int }),
])

export const contract = (
  name: string,
  fresh: Effect.Effect<Harness, unknown, Scope.Scope>,
  runs = 100,
): void => {
  const test = (
    title: string,
    body: (store: Store, harness: Harness) => Effect.Effect<unknown, unknown, Scope.Scope>,
  ) =>
    it.live(title, () =>
      Effect.gen(function* () {
        const harness = yield* fresh
        yield* body(yield* harness.open(), harness)
      }).pipe(Effect.scoped),
    )
  const start = emptyHead(100)

  // `npm run store-contract` selects the tests by these words.
  describe(`${name} keeps the contract of a store`, () => {
    test("has no journal of a chain before the first push", (store) =>
      Effect.gen(function* () {
        assert.isUndefined(yield* store.load(chain))
        assert.deepStrictEqual(yield* readAll(store, chain), [])
        assert.isUndefined(yield* store.seek(chain, 5))
        assert.strictEqual((yield* store.stats(chain)).entries, 0)
      }))

    /** A block whose logs were decoded: every third without success. */
    const decodedBlock = (number: number, logs: number, abi = "digest"): Block => {
      const plain = block(number, "a", logs)
      const event = "Transfer(address,address,uint256)"
      const decoded = plain.logs.map((log) =>
        log.index % 3 === 2
          ? { ...log, event }
          : { ...log, event, args: `{"value":"${log.index}","\\u00e9":[]}` },
      )
      return { ...plain, abi, logs: decoded }
    }

    test("writes event and args of decoded logs, also of blocks in parts and in removals", (store) =>
      Effect.gen(function* () {
        const large = decodedBlock(101, callLimits.logs + 500)
        const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        const all = [{ ...decodedBlock(100, 5), traceparent }, large, block(102, "a", 2)]
        yield* push(store, start, all)
        yield* popTo(store, 100)
        const entries = (yield* readAll(store, chain)).map(({ entry }) => entry)
        const expected = all.flatMap(({ logs }) => logs.map(({ index, event, args }) => [index, event, args]))
        const removed = expected.slice(5).toReversed()
        assert.deepStrictEqual(
          entries.map(({ log_index, event, args }) => [Number(log_index), event, args]),
          [...expected, ...removed],
        )
        assert.deepStrictEqual(Object.keys(entries[0]!).slice(-3), ["traceparent", "event", "args"])
        assert.deepStrictEqual(Object.keys(entries[2]!).slice(-2), ["traceparent", "event"])
        assert.notProperty(
          entries.find(({ block_number }) => block_number === "102")!,
          "event",
        )
      }))

    test("keeps the digest of the events of the last push in the head", (store, { abi }) =>
      Effect.gen(function* () {
        const first = yield* push(store, start, [block(100, "a", 1)])
        assert.strictEqual(yield* abi(chain), "")
        const second = yield* push(store, first, [decodedBlock(101, 1, "one")])
        assert.strictEqual(yield* abi(chain), "one")
        const third = yield* push(store, second, [decodedBlock(102, 1, "two")])
        assert.strictEqual(yield* abi(chain), "two")
        yield* popTo(store, 101)
        assert.strictEqual(yield* abi(chain), "two")
        yield* push(store, { ...third, number: 101, hash: second.hash }, [
          block(102, "b", 0, second.hash as Hex),
        ])
        assert.strictEqual(yield* abi(chain), "")
      }))

    test("trims and deletes what was decoded with the entries", (_, { open }) =>
      Effect.gen(function* () {
        const store = yield* open(100)
        let position = start
        for (let i = 0; i < 8; i++)
          position = yield* push(store, position, [decodedBlock(100 + i, 100)], true)
        yield* store.trim(chain)
        const left = (yield* readAll(store, chain)).map(({ entry }) => entry)
        assert.isBelow(left.length, 2000)
        assert.isTrue(left.every(({ event }) => event === "Transfer(address,address,uint256)"))
        yield* store.reset(chain, { from: 100, filter, delete: true })
        yield* push(store, start, [block(100, "a", 2)])
        assert.isTrue((yield* readAll(store, chain)).every(({ entry }) => entry.event === undefined))
      }))

    test("writes exactly the documented fields of an entry, all as text", (store) =>
      Effect.gen(function* () {
        const pushedBlock = block(100, "a", 2)
        yield* push(store, start, [pushedBlock])
        const log = pushedBlock.logs[1]!
        const [, second] = yield* readAll(store, chain)
        assert.deepStrictEqual(Object.entries(second!.entry), [
          ["chain_id", "31337"],
          ["block_number", "100"],
          ["block_hash", pushedBlock.hash],
          ["tx_hash", log.txHash],
          ["log_index", "1"],
          ["contract", log.contract],
          ["topics", JSON.stringify(log.topics)],
          ["data", log.data],
          ["timestamp", "1700000100"],
          ["tx_index", "0"],
          ["removed", "false"],
        ])
      }))

    test("appends a resent push once [G-089]", (store) =>
      Effect.gen(function* () {
        const [move] = [...pushes(start, blocks(100, "a", [2, 1]), false)] as [Push]
        assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Pushed")
        assert.deepStrictEqual(yield* store.push(chain, filter, move), { _tag: "Duplicate" })
        assert.deepStrictEqual(summary(yield* readAll(store, chain)), ["+100/0", "+100/1", "+101/0"])
      }))

    test("reports a resent push as a duplicate after its successor was written", (store) =>
      Effect.gen(function* () {
        const all = blocks(100, "a", [2, 1, 3])
        const [first] = [...pushes(start, all.slice(0, 2), false)] as [Push]
        yield* push(store, start, all)
        assert.deepStrictEqual(yield* store.push(chain, filter, first), { _tag: "Duplicate" })
        yield* holds(store, all)
      }))

    test("rejects a move that expects a wrong head, reports the actual head and changes nothing", (store) =>
      Effect.gen(function* () {
        const head = yield* push(store, start, blocks(100, "a", [1, 1]))
        const before = yield* store.load(chain)
        const elsewhere = { number: 101, hash: hash("b", 101), part: 0 }
        const late = [...pushes(elsewhere, [block(102, "b", 1)], false)][0]!
        const conflict = { _tag: "Conflict", head } as const
        assert.deepStrictEqual(yield* store.push(chain, filter, late), conflict)
        assert.deepStrictEqual(
          yield* store.pop(chain, filter, { _tag: "Pop", expected: elsewhere }),
          conflict,
        )
        const raise = { _tag: "Finalize", expected: elsewhere, number: 100, hash: hash("a", 100) } as const
        assert.deepStrictEqual(yield* store.finalize(chain, filter, raise), conflict)
        assert.deepStrictEqual(yield* store.load(chain), before)
        assert.strictEqual((yield* readAll(store, chain)).length, 2)
      }))

    test("reports a conflict without a head when the chain has no journal", (store) =>
      Effect.gen(function* () {
        const late = [...pushes({ number: 7, hash: hash("a", 7), part: 0 }, [block(8, "a", 1)], false)][0]!
        assert.deepStrictEqual(yield* store.push(chain, filter, late), { _tag: "Conflict", head: undefined })
        assert.isUndefined(yield* store.load(chain))
      }))

    test("keeps the start block, every block with logs and the head in the window", (store) =>
      Effect.gen(function* () {
        let head = yield* push(store, start, [block(100, "a", 0)])
        for (const next of blocks(101, "a", [0, 2, 0, 0])) head = yield* push(store, head, [next])
        const journal = (yield* store.load(chain))!
        assert.deepStrictEqual(
          journal.window.map(({ number, count }) => [number, count]),
          [
            [100, 0],
            [102, 2],
            [104, 0],
          ],
        )
        assert.deepStrictEqual(journal.start, { number: 100, hash: hash("a", 100) })
        assert.deepStrictEqual(journal.head, { number: 104, hash: hash("a", 104), part: 0 })
        assert.strictEqual(journal.window[2]!.parentHash, hash("a", 103))
      }))

    test("pops a block by writing removed copies in reverse order, and moves the head to the next recorded block", (store) =>
      Effect.gen(function* () {
        const kept = blocks(100, "a", [1, 0, 0])
        const head = yield* push(store, start, [...kept, block(103, "a", 3)])
        const before = yield* readAll(store, chain)
        const result = yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
        assert.deepInclude(result, { _tag: "Popped", removed: 3, missing: 0 })
        const after = yield* readAll(store, chain)
        assert.deepStrictEqual(summary(after.slice(4)), ["-103/2", "-103/1", "-103/0"])
        assert.deepStrictEqual(
          after.slice(4).map(({ entry }) => ({ ...entry, removed: "false" })),
          before
            .slice(1)
            .reverse()
            .map(({ entry }) => entry),
        )
        assert.deepStrictEqual((yield* store.load(chain))!.head, {
          number: 100,
          hash: hash("a", 100),
          part: 0,
        })
        yield* holds(store, kept)
      }))

    test("accepts a retracted block again [G-082]", (store) =>
      Effect.gen(function* () {
        const all = blocks(100, "a", [1, 2])
        const head = yield* push(store, start, all)
        yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
        yield* push(store, { number: 100, hash: hash("a", 100), part: 0 }, [all[1]!])
        const replay = yield* holds(store, all)
        assert.strictEqual(replay.entries, 7)
      }))

    test("retracts every block including the start block, and starts again", (store) =>
      Effect.gen(function* () {
        const head = yield* push(store, start, blocks(100, "a", [2]))
        yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
        const journal = (yield* store.load(chain))!
        assert.deepStrictEqual(journal.head, emptyHead(100))
        assert.deepStrictEqual(journal.start, { number: 100, hash: "" })
        const nothing = yield* store.pop(chain, filter, { _tag: "Pop", expected: emptyHead(100) })
        assert.deepStrictEqual(nothing, { _tag: "Conflict", head: emptyHead(100) })
        const again = blocks(100, "b", [1, 1])
        yield* push(store, start, again)
        yield* holds(store, again)
        assert.strictEqual((yield* store.load(chain))!.start.hash, hash("b", 100))
      }))

    test("stores and retracts a block of 25 000 logs", (store) =>
      Effect.gen(function* () {
        const big = block(100, "a", 25_000)
        const head = yield* push(store, start, [big])
        assert.deepStrictEqual(head, { number: 100, hash: big.hash, part: 0 })
        yield* holds(store, [big])
        yield* popTo(store, 99)
        const replay = yield* holds(store, [])
        assert.strictEqual(replay.removed, 25_000)
      }))

    test("resumes a large block after a crash between two of its parts", (_, harness) =>
      Effect.gen(function* () {
        const all = [block(100, "a", 5), block(101, "a", 3500)]
        const moves = [...pushes(start, all, false)]
        assert.strictEqual(moves.length, 5)
        const first = yield* harness.open()
        for (const move of moves.slice(0, 3)) yield* first.push(chain, filter, move)
        const second = yield* harness.open()
        const journal = (yield* second.load(chain))!
        const digest = digestOfPart(all[1]!, 2000)
        assert.deepStrictEqual(journal.head, { number: 101, hash: hash("a", 101), part: 2000, digest })
        assert.deepStrictEqual(yield* second.push(chain, filter, moves[2]!), { _tag: "Duplicate" })
        yield* push(second, journal.head, [all[1]!])
        yield* holds(second, all)
      }))

    test("continues a partially written block only with the same logs", (store) =>
      Effect.gen(function* () {
        const whole = block(100, "a", 2500)
        const short = { ...whole, logs: whole.logs.toSpliced(500, 1) }
        const [ours, theirs] = [[...pushes(start, [whole], false)], [...pushes(start, [short], false)]]
        yield* store.push(chain, filter, ours[0]!)
        const { head } = (yield* store.load(chain))!
        assert.strictEqual(head.digest, digestOfPart(whole, 1000))
        const conflict = { _tag: "Conflict", head } as const
        for (const late of theirs.slice(0, 2))
          assert.deepStrictEqual(yield* store.push(chain, filter, late), conflict)
        const { digest: _, ...unknown } = head
        for (const expected of [theirs[1]!.expected, unknown])
          assert.deepStrictEqual(yield* store.pop(chain, filter, { _tag: "Pop", expected }), conflict)
        assert.deepStrictEqual(yield* store.push(chain, filter, ours[0]!), { _tag: "Duplicate" })
        for (const next of ours.slice(1)) yield* store.push(chain, filter, next)
        yield* holds(store, [whole])
      }))

    test("pops as much of a block as was written before it was reorged", (store) =>
      Effect.gen(function* () {
        const kept = block(100, "a", 5)
        const moves = [...pushes(start, [kept, block(101, "a", 3500)], false)]
        for (const move of moves.slice(0, 3)) yield* store.push(chain, filter, move)
        const at = { number: 101, hash: hash("a", 101) }
        const half = (yield* store.load(chain))!.head
        const pop = yield* store.pop(chain, filter, { _tag: "Pop", expected: half })
        assert.deepInclude(pop, { _tag: "Popped", removed: callLimits.logs, missing: 0 })
        const retracting = { ...at, part: -1000 }
        assert.deepStrictEqual((yield* store.load(chain))!.head, retracting)
        const late = yield* store.push(chain, filter, moves[3]!)
        assert.deepStrictEqual(
          late,
          { _tag: "Conflict", head: retracting },
          "a block that is being retracted is not continued",
        )
        const head = yield* popTo(store, 100)
        const other = block(101, "b", 2, kept.hash)
        yield* push(store, head, [other])
        yield* holds(store, [kept, other])
      }))

    test("removes finalized blocks from the window and refuses to pop them", (store) =>
      Effect.gen(function* () {
        const all = blocks(100, "a", [1, 1, 0, 1, 1])
        const head = yield* push(store, start, all)
        const move = { _tag: "Finalize", expected: head, number: 102, hash: hash("a", 102) } as const
        assert.deepStrictEqual(yield* store.finalize(chain, filter, move), { _tag: "Finalized" })
        const journal = (yield* store.load(chain))!
        assert.deepStrictEqual(journal.final, { number: 102, hash: hash("a", 102) })
        assert.deepStrictEqual(
          journal.window.map(({ number }) => number),
          [103, 104],
        )
        assert.deepStrictEqual(yield* popTo(store, 102), { number: 102, hash: hash("a", 102), part: 0 })
        assert.strictEqual(
          (yield* store.pop(chain, filter, {
            _tag: "Pop",
            expected: { number: 102, hash: hash("a", 102), part: 0 },
          }))._tag,
          "Conflict",
        )
        yield* holds(store, all.slice(0, 3))
      }))

    test("never lowers the finalized head when an ingestor with a lower one writes [G-199]", (store) =>
      Effect.gen(function* () {
        const all = blocks(100, "a", [1, 1, 1, 1])
        const head = yield* push(store, start, all)
        const final = (number: number) =>
          store.finalize(chain, filter, {
            _tag: "Finalize",
            expected: head,
            number,
            hash: hash("a", number),
          })
        yield* final(102)
        assert.deepStrictEqual(yield* final(101), { _tag: "Finalized" })
        assert.deepStrictEqual((yield* store.load(chain))!.final, { number: 102, hash: hash("a", 102) })
        assert.deepStrictEqual(yield* popTo(store, 102), { number: 102, hash: hash("a", 102), part: 0 })
        yield* holds(store, all.slice(0, 3))
      }))

    test("refuses to finalize a block above the head or on another fork", (store) =>
      Effect.gen(function* () {
        const head = yield* push(store, start, blocks(100, "a", [1, 1]))
        for (const [number, at] of [
          [102, hash("a", 102)],
          [101, hash("b", 101)],
        ] as ReadonlyArray<[number, Hex]>) {
          const move = { _tag: "Finalize", expected: head, number, hash: at } as const
          assert.deepStrictEqual(yield* store.finalize(chain, filter, move), { _tag: "Conflict", head })
        }
        assert.isUndefined((yield* store.load(chain))!.final)
      }))

    test("records only the head of blocks that are pushed as final", (store) =>
      Effect.gen(function* () {
        const all = [...blocks(100, "a", [1, 0, 2]), block(250, "a", 0)]
        const head = yield* push(store, start, all, true)
        const journal = (yield* store.load(chain))!
        assert.deepStrictEqual(journal.head, head)
        assert.deepStrictEqual(journal.final, { number: 250, hash: hash("a", 250) })
        assert.deepStrictEqual(journal.window, [])
        yield* push(store, head, [block(251, "a", 1)])
        yield* holds(store, [...all, block(251, "a", 1)])
      }))

    test("continues with another filter and reports it to an ingestor that has the old one [G-202]", (_, harness) =>
      Effect.gen(function* () {
        const old = yield* harness.open()
        const head = yield* push(old, start, blocks(100, "a", [1, 1]))
        const next = yield* harness.open()
        yield* next.changeFilter(chain, "other")
        const journal = (yield* next.load(chain))!
        assert.strictEqual(journal.filter, "other")
        assert.strictEqual(journal.filterSince, 102)
        const move = [...pushes(head, [block(102, "a", 1)], false)][0]!
        const changed = { _tag: "FilterChanged", filter: "other" } as const
        assert.deepStrictEqual(yield* old.push(chain, filter, move), changed)
        assert.deepStrictEqual(yield* old.pop(chain, filter, { _tag: "Pop", expected: head }), changed)
        assert.strictEqual((yield* next.push(chain, "other", move))._tag, "Pushed")
      }))

    test("retracts a block that is partially written under the old filter", (store) =>
      Effect.gen(function* () {
        const kept = block(100, "a", 1)
        const moves = [...pushes(start, [kept, block(101, "a", 1500)], false)]
        for (const move of moves.slice(0, 2)) yield* store.push(chain, filter, move)
        yield* store.changeFilter(chain, "other")
        const { head, filterSince } = (yield* store.load(chain))!
        assert.deepStrictEqual(head, { number: 101, hash: hash("a", 101), part: -1000 })
        assert.strictEqual(filterSince, 101)
        yield* store.pop(chain, "other", { _tag: "Pop", expected: head })
        yield* holds(store, [kept])
      }))

    test("accepts entries again that the store has lost", (_, harness) =>
      Effect.gen(function* () {
        const all = blocks(100, "a", [1, 2, 3])
        const before = yield* harness.open()
        yield* push(before, start, all.slice(0, 1))
        const restore = yield* harness.snapshot
        const late = yield* push(before, { number: 100, hash: hash("a", 100), part: 0 }, all.slice(1))
        yield* restore
        const after = yield* harness.open()
        const move = [...pushes(late, [block(103, "a", 1)], false)][0]!
        const head = { number: 100, hash: hash("a", 100), part: 0 }
        assert.deepStrictEqual(yield* after.push(chain, filter, move), { _tag: "Conflict", head })
        yield* push(after, head, all.slice(1))
        yield* holds(after, all)
      }))

    test("accepts a chain from its start after the store was emptied", (_, harness) =>
      Effect.gen(function* () {
        const all = blocks(100, "a", [1, 2])
        yield* push(yield* harness.open(), start, all)
        yield* harness.wipe
        const after = yield* harness.open()
        assert.isUndefined(yield* after.load(chain))
        yield* push(after, start, all)
        yield* holds(after, all)
      }))

    test("trims to about the configured length and never trims what a pop needs", (_, harness) =>
      Effect.gen(function* () {
        const store = yield* harness.open(500)
        let head = yield* push(
          store,
          start,
          blocks(
            100,
            "a",
            Array.from({ length: 10 }, () => 400),
          ),
        )
        const all = yield* readAll(store, chain)
        assert.strictEqual(all.length, 4000, "all entries belong to the window")
        const final = { _tag: "Finalize", expected: head, number: 108, hash: hash("a", 108) } as const
        yield* store.finalize(chain, filter, final)
        for (const next of blocks(110, "a", [100, 100, 100])) head = yield* push(store, head, [next])
        const { entries, trimmed } = yield* store.stats(chain)
        assert.strictEqual(entries + trimmed, 4300)
        assert.isAtLeast(entries, 700)
        assert.isAtMost(entries, 2000)
        yield* popTo(store, 108)
        const replay = new Replay()
        for (const stored of yield* readAll(store, chain)) replay.apply(stored)
        assert.deepStrictEqual(replay.faults, [])
        assert.strictEqual(replay.removed, 700)
      }))

    test("counts the entries of a journal that was reset separately, and trims them", (_, harness) =>
      Effect.gen(function* () {
        const store = yield* harness.open(500)
        yield* push(store, start, blocks(100, "a", [400, 400]))
        yield* store.reset(chain, { from: undefined, filter, delete: false })
        assert.deepInclude(yield* store.stats(chain), { entries: 800, trimmed: 0, previous: 800 })
        let head = yield* push(store, start, blocks(100, "b", [400, 400, 400]))
        for (const exactly of [true, false]) {
          const { entries, trimmed, previous } = yield* store.stats(chain, exactly)
          assert.deepStrictEqual([entries - previous, trimmed], [1200, 0])
          assert.isBelow(previous, 800)
        }
        const final = { _tag: "Finalize", expected: head, number: 102, hash: hash("b", 102) } as const
        yield* store.finalize(chain, filter, final)
        for (const next of blocks(103, "b", [100, 100, 100], hash("b", 102)))
          head = yield* push(store, head, [next])
        const { entries, trimmed, previous } = yield* store.stats(chain)
        assert.strictEqual(previous, 0)
        assert.strictEqual(entries + trimmed, 1500)
      }))

    test("begins an epoch with the journal, and another one only with a reset", (store) =>
      Effect.gen(function* () {
        assert.isUndefined((yield* store.stats(chain)).epoch)
        let head = yield* push(store, start, blocks(100, "a", [2, 0, 3]))
        const { epoch } = yield* store.stats(chain)
        assert.strictEqual(epoch!.reason, "begun")
        assert.match(epoch!.token, /^\S{16,}$/)
        head = yield* popTo(store, 100)
        head = yield* push(store, head, blocks(101, "b", [1500], hash("a", 100)))
        yield* store.finalize(chain, filter, {
          _tag: "Finalize",
          expected: head,
          number: 100,
          hash: hash("a", 100),
        })
        yield* store.changeFilter(chain, "other")
        yield* store.trim(chain)
        assert.deepStrictEqual((yield* store.stats(chain)).epoch, epoch)
        for (const from of [undefined, 7]) {
          const before = (yield* store.stats(chain)).epoch
          yield* store.reset(chain, { from, filter, delete: from === undefined })
          const after = (yield* store.stats(chain)).epoch
          assert.strictEqual(after!.reason, "reset")
          assert.notStrictEqual(after!.token, before!.token)
          assert.strictEqual((yield* store.load(chain))?.head.number, from && from - 1)
          yield* push(store, from === undefined ? start : emptyHead(from), [block(from ?? 100, "c", 1)])
          assert.deepStrictEqual((yield* store.stats(chain)).epoch, after)
        }
      }))

    test("never gives two journals the same epoch [G-103]", (store, harness) =>
      Effect.gen(function* () {
        const tokens = new Set<string>()
        for (let i = 0; i < 5; i++) {
          yield* push(store, start, [block(100, "a", 1)])
          tokens.add((yield* store.stats(chain)).epoch!.token)
          yield* harness.wipe
        }
        assert.strictEqual(tokens.size, 5)
      }))

    test("begins one epoch where an older one came back, even if the last known entry is in it", (store) =>
      Effect.gen(function* () {
        yield* push(store, start, [block(100, "a", 1)])
        const older = (yield* store.checkEpoch(chain, undefined)).known
        const { epoch } = older.last!
        assert.deepStrictEqual(yield* store.checkEpoch(chain, older), { outcome: "kept", known: older })
        // The ingestor knows the same entry, acknowledged in an epoch that came after the stored one.
        const known = { last: { ...older.last!, epoch: "later" }, before: [epoch] }
        const unrelated = yield* store.checkEpoch(chain, { ...known, before: [] })
        assert.deepStrictEqual(unrelated, { outcome: "new epoch", known: older })
        const first = yield* store.checkEpoch(chain, known)
        assert.strictEqual(first.outcome, "lost")
        assert.notInclude([epoch, "later"], first.known.last!.epoch)
        assert.deepStrictEqual(first.known.before, [epoch])
        assert.strictEqual((yield* store.stats(chain)).epoch!.reason, "lost")
        // Another ingestor that knows the same.
        const second = yield* store.checkEpoch(chain, known)
        assert.deepStrictEqual(second, { outcome: "new epoch", known: first.known })
      }))

    test("reports the first block from which on every entry is stored", (_, harness) =>
      Effect.gen(function* () {
        const store = yield* harness.open(500)
        const first = Effect.map(store.stats(chain), ({ firstNumber }) => firstNumber)
        const sizes = Array.from({ length: 40 }, (_, i) => [0, 70, 130, 1][i % 4]!)
        let head = yield* push(store, start, [block(100, "a", 0)])
        assert.strictEqual(yield* first, 100)
        head = yield* push(store, head, blocks(101, "a", sizes, hash("a", 100)))
        assert.strictEqual(yield* first, 102, "the first block with an entry")
        const final = { _tag: "Finalize", expected: head, number: 138, hash: hash("a", 138) } as const
        yield* store.finalize(chain, filter, final)
        while ((yield* store.trim(chain)).dropped > 0);
        const entries = yield* readAll(store, chain)
        const lowest = yield* first
        const kept = (number: number) =>
          entries.filter(({ entry }) => entry.block_number === String(number)).length
        assert.isAbove(lowest!, 102)
        assert.isBelow(lowest!, 138)
        for (let number = lowest!; number <= 140; number++)
          assert.strictEqual(kept(number), sizes[number - 101], `block ${number}`)
        assert.isAtMost(lowest! - Number(entries[0]!.entry.block_number), 1)
      }))

    test("writes a heartbeat with each trim, and with no other operation", (store) =>
      Effect.gen(function* () {
        const alive = Effect.map(store.stats(chain), ({ aliveAgo }) => aliveAgo)
        yield* store.trim(chain)
        assert.isUndefined(yield* alive, "nothing is written for a chain without a journal")
        const head = yield* push(store, start, [block(100, "a", 1)])
        yield* store.load(chain)
        assert.isUndefined(yield* alive)
        yield* store.trim(chain)
        assert.oneOf(yield* alive, [0, 1, 2])
        assert.deepStrictEqual((yield* store.load(chain))!.head, head)
      }))

    test("counts exactly the trimmed entries that a reader had not read [G-107]", (_, harness) =>
      Effect.gen(function* () {
        const store = yield* harness.open(1000)
        let head = yield* push(
          store,
          start,
          blocks(
            100,
            "a",
            Array.from({ length: 8 }, () => 500),
          ),
        )
        const ids = (yield* readAll(store, chain)).map(({ id }) => id)
        // Have read nothing, up to here, up to the same entry, and all of it.
        const positions = {
          none: "0-0",
          some: ids[719]!,
          same: ids[719]!,
          half: ids[2000]!,
          all: ids.at(-1)!,
        }
        for (const [name, id] of Object.entries(positions)) yield* harness.putReader(chain, name, id)
        const final = { _tag: "Finalize", expected: head, number: 107, hash: hash("a", 107) } as const
        yield* store.finalize(chain, filter, final)
        while ((yield* store.trim(chain)).dropped > 0);
        const gone = 4000 - (yield* readAll(store, chain)).length
        assert.isAbove(gone, 2100)
        for (const [name, unseen] of Object.entries({
          none: gone,
          some: gone - 720,
          same: gone - 720,
          half: gone - 2001,
          all: 0,
        }))
          assert.strictEqual(yield* harness.missed(chain, name), unseen, name)
        const reported = (yield* store.stats(chain)).readers.map(({ name, lag, missed }) => [
          name,
          lag,
          missed,
        ])
        assert.deepStrictEqual(Object.fromEntries(reported.map(([name, ...rest]) => [name, rest])), {
          none: [4000 - gone, gone],
          some: [4000 - gone, gone - 720],
          same: [4000 - gone, gone - 720],
          half: [4000 - gone, gone - 2001],
          all: [0, 0],
        })
        // No reader moves, and more is trimmed.
        for (const next of blocks(108, "a", [400, 400, 400], hash("a", 107)))
          head = yield* push(store, head, [next], true)
        while ((yield* store.trim(chain)).dropped > 0);
        const since = 5200 - (yield* readAll(store, chain)).length
        assert.isAbove(since, gone)
        assert.strictEqual(yield* harness.missed(chain, "none"), since)
        assert.strictEqual(yield* harness.missed(chain, "some"), since - 720)
        assert.strictEqual(yield* harness.missed(chain, "all"), Math.max(since - 4000, 0))
      }))

    test("keeps the unread entries of a pinned reader, pauses publishing at the backlog and resumes when it catches up [G-108]", (_, harness) =>
      Effect.gen(function* () {
        const store = yield* harness.open(1000)
        const now = Math.floor(Date.now() / 1000)
        let head = yield* push(store, start, [block(100, "a", 1)], true)
        const [{ id: first } = assert.fail()] = yield* readAll(store, chain)
        yield* harness.putReader(chain, "slow", first, now)
        yield* harness.putReader(chain, "gone", first, now - 8 * 24 * 3600)
        const next = function* () {
          let parent = hash("a", 100)
          for (let number = 101; ; number++) {
            yield block(number, "a", 500, parent)
            parent = hash("a", number)
          }
        }
        const more = next()
        const take = () => more.next().value as Block
        const length = Effect.map(readAll(store, chain), ({ length }) => length)
        for (let i = 0; i < 7; i++) head = yield* push(store, head, [take()], true)
        const held = yield* store.trim(chain)
        assert.deepInclude(held.holder, { reader: "reader:slow", behind: 3500, paused: undefined })
        assert.isAtLeast(yield* length, 3500)
        assert.strictEqual(yield* harness.missed(chain, "slow"), 0)
        // At 4 000 of 4 000 pushes pause, whatever head they expect; finalizing continues.
        head = yield* push(store, head, [take()], true)
        const full = yield* store.trim(chain)
        assert.deepInclude(full.holder, { reader: "reader:slow", behind: 4000, paused: "backlog" })
        assert.match(full.holder!.release, /slow/)
        const seen = yield* store.stats(chain)
        assert.isTrue(seen.paused)
        assert.deepInclude(seen.holder, { reader: "reader:slow", release: full.holder!.release })
        assert.oneOf(seen.holder!.lag, [4000, undefined], "Redis does not count that many")
        const waiting = take()
        const [move] = [...pushes(head, [waiting], false)] as [Push]
        for (const expected of [head, emptyHead(90)])
          assert.deepStrictEqual(yield* store.push(chain, filter, { ...move, expected }), { _tag: "Paused" })
        const { number, hash: headHash } = head
        const final = { _tag: "Finalize", expected: head, number, hash: headHash as Hex } as const
        assert.deepStrictEqual(yield* store.finalize(chain, filter, final), { _tag: "Finalized" })
        assert.strictEqual((yield* store.load(chain))!.head.number, number)
        // It reads a little, and then nearly everything.
        const ids = (yield* readAll(store, chain)).map(({ id }) => id)
        yield* harness.putReader(chain, "slow", ids[100]!, now)
        assert.strictEqual(
          (yield* store.trim(chain)).holder!.paused,
          "backlog",
          "does not resume at the first progress",
        )
        yield* harness.putReader(chain, "slow", ids[3800]!, now)
        while ((yield* store.trim(chain)).dropped > 0);
        assert.isUndefined((yield* store.trim(chain)).holder)
        assert.deepInclude(yield* store.stats(chain), { holder: undefined, paused: false })
        assert.isAtMost(yield* length, 2000)
        assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Pushed")
        assert.strictEqual(yield* harness.missed(chain, "slow"), 0)
        assert.isAbove(yield* harness.missed(chain, "gone"), 2000)
      }))

    test("does not pause when the window alone is longer than the backlog [G-110]", (_, harness) =>
      Effect.gen(function* () {
        const store = yield* harness.open(100)
        let head = yield* push(store, start, [block(100, "a", 1)])
        const [{ id } = assert.fail()] = yield* readAll(store, chain)
        let parent = hash("a", 100)
        for (let number = 101; number < 106; number++) {
          head = yield* push(store, head, [block(number, "a", 500, parent)])
          parent = hash("a", number)
        }
        yield* harness.putReader(
          chain,
          "current",
          (yield* readAll(store, chain)).at(-1)!.id,
          Math.floor(Date.now() / 1000),
        )
        assert.deepStrictEqual(yield* store.trim(chain), { dropped: 0, holder: undefined })
        yield* push(store, head, [block(106, "a", 500, parent)])
        assert.strictEqual((yield* readAll(store, chain))[0]!.id, id)
      }))

    test("remembers the last twenty replaced filters, without one that was restored", (store, harness) =>
      Effect.gen(function* () {
        yield* push(store, start, [block(100, "a", 1)])
        yield* store.changeFilter(chain, filter)
        assert.deepStrictEqual(yield* harness.filters(chain), [])
        for (const next of ["one", "two"]) yield* store.changeFilter(chain, next)
        assert.strictEqual(yield* store.changeFilter(chain, filter, "", 1), "changed")
        assert.deepStrictEqual(yield* harness.filters(chain), ["one", "two"])
        for (let i = 0; i < 30; i++) yield* store.changeFilter(chain, `filter ${i}`)
        const kept = yield* harness.filters(chain)
        assert.deepStrictEqual([kept.length, kept[0], kept.at(-1)], [20, "filter 9", "filter 28"])
      }))

    test("does not return to a replaced filter by itself [G-222]", (store, harness) =>
      Effect.gen(function* () {
        const filterNow = Effect.map(store.load(chain), (journal) => journal?.filter)
        yield* push(store, start, [block(100, "a", 1)])
        assert.strictEqual(yield* store.changeFilter(chain, "new"), "changed")
        assert.strictEqual(yield* store.changeFilter(chain, filter), "outdated")
        assert.strictEqual(yield* filterNow, "new")
        assert.deepStrictEqual(yield* harness.filters(chain), [filter])
        assert.strictEqual(yield* store.changeFilter(chain, "new"), "changed", "it has the filter already")
        assert.strictEqual(yield* store.changeFilter(chain, "newer"), "changed")
        assert.strictEqual(yield* store.changeFilter(chain, "new"), "outdated")
        // After a reset, no filter is older than another.
        yield* store.reset(chain, { from: 100, delete: false, filter: "newer" })
        assert.strictEqual(yield* store.changeFilter(chain, "new"), "changed")
      }))

    test("changes to the filter with the higher CONFIG_VERSION, whichever was replaced", (store) =>
      Effect.gen(function* () {
        yield* push(store, start, [block(100, "a", 1)])
        const outcomes: ReadonlyArray<
          readonly [name: string, version: number | undefined, "changed" | "outdated"]
        > = [
          ["one", 1, "changed"],
          ["two", 2, "changed"],
          ["one", 1, "outdated"],
          ["three", 1, "outdated"],
          ["three", undefined, "changed"],
          ["two", 2, "outdated"],
          ["one", undefined, "outdated"],
          ["one", 3, "changed"],
          ["two", 2, "outdated"],
          ["four", 3, "changed"],
        ]
        for (const [name, version, outcome] of outcomes)
          assert.strictEqual(
            yield* store.changeFilter(chain, name, "", version),
            outcome,
            `${name} ${version}`,
          )
      }))

    test("refuses a journal of a newer version and leaves it unchanged", (store, harness) =>
      Effect.gen(function* () {
        const head = yield* push(store, start, blocks(100, "a", [1, 1]))
        const before = yield* store.stats(chain)
        yield* harness.setVersion(chain, 3)
        const [move] = [...pushes(head, [block(102, "a", 1)], false)] as [Push]
        const place = { expected: head, number: 100, hash: hash("a", 100) }
        const refused: Record<string, Effect.Effect<unknown, unknown>> = {
          load: store.load(chain),
          push: store.push(chain, filter, move),
          pop: store.pop(chain, filter, { _tag: "Pop", expected: head }),
          finalize: store.finalize(chain, filter, { _tag: "Finalize", ...place }),
          "filter change": store.changeFilter(chain, "other"),
          trim: store.trim(chain),
          reset: store.reset(chain, { from: undefined, filter, delete: true }),
        }
        for (const [name, operation] of Object.entries(refused)) {
          const error = yield* Effect.flip(operation)
          assert.instanceOf(error, StoreError, name)
          assert.strictEqual((error as StoreError).reason, "newer", name)
          assert.match((error as StoreError).message, /has version 3 and this release writes version 2/)
        }
        yield* harness.setVersion(chain, 2)
        assert.deepStrictEqual(yield* store.stats(chain), before)
        assert.deepStrictEqual((yield* store.load(chain))!.head, head)
      }))

    test("pops a block with deleted entries and counts the missing ones [G-133]", (store, harness) =>
      Effect.gen(function* () {
        const head = yield* push(store, start, blocks(100, "a", [1, 4]))
        const ids = (yield* readAll(store, chain)).map(({ id }) => id)
        yield* harness.deleteEntries(chain, [ids[2]!, ids[4]!])
        const result = yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
        assert.deepInclude(result, { _tag: "Popped", removed: 2, missing: 2 })
        assert.deepStrictEqual(summary(yield* readAll(store, chain)), [
          "+100/0",
          "+101/0",
          "+101/2",
          "-101/2",
          "-101/0",
        ])
        assert.strictEqual((yield* store.load(chain))!.head.number, 100)
      }))

    test("isolates chains from each other", (store) =>
      Effect.gen(function* () {
        yield* push(store, start, blocks(100, "a", [2, 2]))
        const [move] = [...pushes(emptyHead(7), [block(7, "x", 3)], false)] as [Push]
        yield* store.push(8453, filter, move)
        yield* popTo(store, 100)
        yield* holds(store, blocks(100, "a", [2]))
        assert.deepStrictEqual(summary(yield* readAll(store, 8453)), ["+7/0", "+7/1", "+7/2"])
      }))

    test("reads after an id, and seeks the id before a height", (store) =>
      Effect.gen(function* () {
        let head = yield* push(store, start, blocks(100, "a", [2, 0, 3, 1]))
        const all = yield* readAll(store, chain)
        assert.deepStrictEqual(yield* readAll(store, chain, all[2]!.id), all.slice(3))
        assert.deepStrictEqual(yield* readAll(store, chain, all.at(-1)!.id), [])
        assert.isUndefined(yield* store.seek(chain, 100))
        assert.strictEqual(yield* store.seek(chain, 101), all[1]!.id)
        assert.strictEqual(yield* store.seek(chain, 103), all[4]!.id)
        assert.strictEqual(yield* store.seek(chain, 999), all[5]!.id)
        head = yield* popTo(store, 100)
        yield* push(store, head, blocks(101, "b", [2, 2], hash("a", 100)))
        const replay = new Replay()
        for (const stored of yield* readAll(store, chain, yield* store.seek(chain, 102))) replay.apply(stored)
        const found = replay.blocks.filter(({ number }) => number >= 102)
        assert.deepStrictEqual(
          found.map(({ hash }) => hash),
          [hash("b", 102)],
        )
        const { entries, firstId, lastId } = yield* store.stats(chain)
        assert.deepStrictEqual([entries, firstId], [14, all[0]!.id])
        assert.strictEqual(lastId, (yield* readAll(store, chain)).at(-1)!.id)
      }))

    test("keeps one consistent journal under two writers on different forks", (_, harness) =>
      Effect.gen(function* () {
        const writer = Effect.fnUntraced(function* (fork: string) {
          const store = yield* harness.open()
          for (let tries = 0; tries < 300; tries++) {
            const journal = (yield* store.load(chain)) ?? emptyJournal(100, filter)
            const { head } = journal
            const mine = head.hash === "" || head.hash === hash(fork, head.number)
            if (!mine && head.number > 100) {
              yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
            } else {
              const next = block(head.number + 1, fork, tries % 4, head.hash === "" ? undefined : head.hash)
              yield* store.push(chain, filter, [...pushes(head, [next], false)][0]!)
            }
            yield* Effect.yieldNow
          }
        })
        yield* Effect.all([writer("a"), writer("b")], { concurrency: 2 })
        const replay = new Replay()
        const entries = yield* readAll(yield* harness.open(), chain)
        for (const stored of entries) replay.apply(stored)
        assert.deepStrictEqual(replay.faults, [])
        assert.isAbove(replay.removed, 0)
        const live = replay.blocks.flatMap(({ hash, logs }) => logs.map(({ index }) => `${hash}:${index}`))
        assert.strictEqual(new Set(live).size, live.length)
      }))

    it.effect.prop(
      "matches the pure journal after any sequence of moves",
      [Schema.Array(Step).check(Schema.isMaxLength(25))],
      ([steps]) =>
        Effect.gen(function* () {
          const store = yield* (yield* fresh).open()
          let model: Journal = emptyJournal(100, filter)
          const content: Array<Block> = []
          let serial = 0
          for (const step of steps) {
            if (step._tag === "Push") {
              const next = step.sizes.map((size, i) => {
                const parent = i === 0 && model.head.hash !== "" ? model.head.hash : undefined
                const logs = Math.abs(size) % 13 === 0 ? 2300 : Math.abs(size) % 4
                return block(model.head.number + 1 + i, `fork${serial}`, logs, parent)
              })
              serial++
              for (const move of pushes(model.head, next, false)) {
                assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Pushed")
                model = applied(model, move)
              }
              content.push(...next)
            } else if (step._tag === "Pop") {
              for (let i = Math.abs(step.times) % 3; i >= 0 && model.window.length > 0; i--) {
                do {
                  const pop = { _tag: "Pop", expected: model.head } as const
                  yield* store.pop(chain, filter, pop)
                  model = applied(model, pop)
                } while (model.head.part !== 0)
              }
              while (content.length > 0 && content.at(-1)!.number > model.head.number) content.pop()
            } else if (content.length > 0) {
              const { number, hash } = content[Math.abs(step.depth) % content.length]!
              const finalize = { _tag: "Finalize", expected: model.head, number, hash } as const
              yield* store.finalize(chain, filter, finalize)
              model = applied(model, finalize)
            }
            const loaded = yield* store.load(chain)
            if (serial > 0) assert.deepStrictEqual(loaded, model)
          }
          yield* holds(store, content)
        }).pipe(Effect.scoped),
      { arbitrary: { runs }, timeout: 60_000 },
    )
  })
}
