import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Block } from "../../../src/Domain.ts"
import {
  afterPush,
  applied,
  changesOf,
  emptyHead,
  emptyJournal,
  finalizedHead,
  isWritten,
  rejectionOf,
} from "../../../src/store/Journal.ts"
import type { Journal, Move, Push } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import { sizeOf } from "../../../src/store/redis/MessagePack.ts"
import { block, blocks, hash } from "../../support/blocks.ts"

const Small = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 8 }))
const Sizes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 30 }))).check(
  Schema.isMinLength(1),
  Schema.isMaxLength(12),
)

const bytesOf = ({ logs }: Pick<Block, "logs">) => logs.reduce((sum, log) => sum + sizeOf(log), 0)

describe("dividing blocks into calls", () => {
  it.prop(
    "sends every log once and in order, within any limits",
    {
      sizes: Sizes,
      logs: Small,
      most: Small,
      bytes: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4000 })),
    },
    ({ sizes, logs, most, bytes }) => {
      const run = blocks(100, "a", sizes)
      const calls = [...pushes(emptyHead(100), run, false, { logs, blocks: most, bytes })]
      assert.deepStrictEqual(
        calls.flatMap(({ blocks }) => blocks.flatMap((slice) => slice.logs)),
        run.flatMap((whole) => whole.logs),
      )
      let expected = emptyHead(100)
      for (const call of calls) {
        assert.deepStrictEqual(call.expected, expected)
        expected = afterPush(call)
        const count = call.blocks.reduce((sum, slice) => sum + slice.logs.length, 0)
        assert.isAtMost(count, logs)
        assert.isAtMost(call.blocks.length, most)
        if (count > 1)
          assert.isAtMost(
            call.blocks.reduce((sum, slice) => sum + bytesOf(slice), 0),
            bytes,
          )
      }
      assert.deepStrictEqual(expected, { number: run.at(-1)!.number, hash: run.at(-1)!.hash, part: 0 })
    },
  )

  it("sends at most 500 blocks and 1 MiB in one call", () => {
    const sparse = [
      ...pushes(
        emptyHead(1),
        blocks(
          1,
          "a",
          Array.from({ length: 1200 }, () => 0),
        ),
        true,
      ),
    ]
    assert.deepStrictEqual(
      sparse.map((call) => call.blocks.length),
      [500, 500, 200],
    )
    const large = block(1, "a", 5)
    const logs = large.logs.map((log) => ({ ...log, data: `0x${"ab".repeat(300_000)}` as const }))
    const parts = [...pushes(emptyHead(1), [{ ...large, logs }], false)]
    assert.deepStrictEqual(
      parts.map((call) => [call.blocks[0].logs.length, call.blocks[0].whole]),
      [
        [1, false],
        [1, false],
        [1, false],
        [1, false],
        [1, true],
      ],
    )
  })
})

const limits = { logs: 5, blocks: 3, bytes: 1_000_000 }

const Step = Schema.Union([
  Schema.TaggedStruct("Extend", { sizes: Sizes, final: Schema.Boolean }),
  Schema.TaggedStruct("Rewind", { depth: Small }),
  Schema.TaggedStruct("Finalize", { depth: Small }),
])
const Steps = Schema.Array(Step).check(Schema.isMaxLength(12))

/** The moves of some steps on an empty journal; each is applied before the next one is made. */
const walk = (steps: typeof Steps.Type, onMove: (before: Journal, move: Move) => void): Journal => {
  let journal = emptyJournal(100, "none")
  const move = (move: Move) => {
    onMove(journal, move)
    journal = applied(journal, move, limits.logs)
  }
  for (const [i, step] of steps.entries()) {
    const { head, window } = journal
    if (step._tag === "Extend") {
      const next = blocks(head.number + 1, `fork ${i}`, step.sizes, head.hash || undefined)
      for (const push of pushes(head, next, step.final, limits)) move(push)
    } else if (step._tag === "Rewind") {
      const down = Math.max(head.number - step.depth, finalizedHead(journal).number)
      while (journal.head.number > down) move({ _tag: "Pop", expected: journal.head })
    } else {
      const record = window.at(-step.depth)
      if (record !== undefined) move({ _tag: "Finalize", expected: head, ...record })
    }
  }
  return journal
}

const loggedIn = ({ blocks }: Push) => blocks.reduce((sum, { logs }) => sum + logs.length, 0)

describe("the changes of a move", () => {
  it.prop(
    "keep the head on top of the records, and no record without need",
    { steps: Steps },
    ({ steps }) => {
      const check = (journal: Journal) => {
        const { head, start, window } = journal
        const { number, hash } = window.at(-1) ?? finalizedHead(journal)
        assert.deepInclude(head, { number, hash })
        const heights = [finalizedHead(journal).number, ...window.map(({ number }) => number)]
        assert.deepStrictEqual(
          heights,
          [...new Set(heights)].sort((a, b) => a - b),
        )
        const empty = window.filter(({ number, count }) => count === 0 && number !== start.number)
        assert.isTrue(empty.every(({ number }) => number === head.number))
      }
      check(walk(steps, check))
    },
  )

  it.prop("retract exactly the logs that were appended", { steps: Steps }, ({ steps }) => {
    let [appended, retracted, final] = [0, 0, 0]
    const journal = walk(steps, (before, move) => {
      const changes = changesOf(before, move, limits.logs)
      assert.isAtMost(changes.retracted, limits.logs)
      if (move._tag === "Push") appended += loggedIn(move)
      if (move._tag !== "Push") assert.isAtMost(changes.records.length, 1)
      retracted += changes.retracted
      const leaves = before.window.filter(({ number }) => number <= (changes.final?.number ?? -1))
      for (const { count } of leaves) final += count
      if (move._tag === "Push" && changes.final !== undefined) final += loggedIn(move)
    })
    const inWindow = journal.window.reduce((sum, { count }) => sum + count, 0)
    assert.strictEqual(appended - retracted, final + inWindow)
  })

  it.prop("apply each move once, and recognize a push that was written", { steps: Steps }, ({ steps }) => {
    walk(steps, (before, move) => {
      assert.isUndefined(rejectionOf(before, "none", move))
      assert.deepStrictEqual(rejectionOf(before, "other", move), { _tag: "FilterChanged", filter: "none" })
      if (move._tag === "Finalize") return
      const after = applied(before, move, limits.logs)
      assert.deepStrictEqual(rejectionOf(after, "none", move), { _tag: "Conflict", head: after.head })
      if (move._tag !== "Push") return
      assert.isFalse(isWritten(before, move))
      if (after.window.length > 0) assert.isTrue(isWritten(after, move))
    })
  })

  it("reject a pop without a record, and a finalized block that is not ours", () => {
    const [push] = [...pushes(emptyHead(100), blocks(100, "a", [1, 1]), false)] as [Push]
    const journal = applied(emptyJournal(100, "none"), push)
    const conflict = { _tag: "Conflict", head: journal.head } as const
    const pop = { _tag: "Pop", expected: journal.head } as const
    const finalize = (number: number, fork = "a") =>
      ({ _tag: "Finalize", expected: journal.head, number, hash: hash(fork, number) }) as const
    const reject = (move: Move, changed = {}) => rejectionOf({ ...journal, ...changed }, "none", move)
    assert.deepStrictEqual(reject(pop, { window: [] }), conflict)
    assert.deepStrictEqual(reject(finalize(102)), conflict)
    assert.deepStrictEqual(reject(finalize(101, "b")), conflict)
    assert.isUndefined(reject(finalize(101)))
    const final = applied(journal, finalize(101))
    assert.deepStrictEqual(applied(final, finalize(100)), final)
  })
})
