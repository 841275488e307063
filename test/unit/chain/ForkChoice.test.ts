import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Block } from "../../../src/Domain.ts"
import { classifyHead, firstBrokenLink, blockRanges } from "../../../src/chain/ForkChoice.ts"
import { emptyJournal, applied } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import type { Journal } from "../../../src/store/Journal.ts"
import { block, blocks, hash } from "../../support/blocks.ts"

const journalOf = (start: number, ...runs: ReadonlyArray<ReadonlyArray<Block>>): Journal => {
  let journal = emptyJournal(start, "none")
  for (const run of runs) {
    for (const one of run)
      for (const move of pushes(journal.head, [one], false)) journal = applied(journal, move)
  }
  return journal
}

describe("classifyHead", () => {
  const ours = journalOf(100, blocks(100, "a", [1, 0, 2, 0]))
  const at = (number: number, fork: string) => block(number, fork, 0)

  it.each([
    ["our head again", at(103, "a"), "duplicate"],
    ["a recorded block", at(102, "a"), "duplicate"],
    ["a block below the start", at(99, "a"), "duplicate"],
    ["a block on top of our head", at(104, "a"), "extends"],
    ["the next block with another parent", at(104, "b"), "fork"],
    ["a block further above", at(105, "a"), "gap"],
    ["a block far above", at(9000, "b"), "gap"],
    ["another block at our height", at(103, "b"), "competing"],
    ["another block below", at(101, "b"), "competing"],
    ["an unrecorded block of ours below, which only the node can confirm", at(101, "a"), "competing"],
  ] as ReadonlyArray<readonly [string, Block, string]>)("classifies %s", (_, header, expected) =>
    assert.strictEqual(classifyHead(ours, header), expected),
  )

  it("treats any block at or below the finalized head as a duplicate", () => {
    const final = { _tag: "Finalize", expected: ours.head, number: 102, hash: hash("a", 102) } as const
    const journal = applied(ours, final)
    assert.strictEqual(classifyHead(journal, at(102, "b")), "duplicate")
    assert.strictEqual(classifyHead(journal, at(103, "b")), "competing")
  })

  it("accepts any parent for the start block of an empty journal", () => {
    const empty = emptyJournal(100, "none")
    assert.strictEqual(classifyHead(empty, at(100, "x")), "extends")
    assert.strictEqual(classifyHead(empty, at(101, "x")), "gap")
    assert.strictEqual(classifyHead(empty, at(99, "x")), "duplicate")
  })
})

describe("range maths", () => {
  it("finds the first block that is not linked to the previous one", () => {
    const run = blocks(5, "a", [0, 0, 0])
    assert.strictEqual(firstBrokenLink(hash("a", 4), run), -1)
    assert.strictEqual(firstBrokenLink("", run), -1)
    assert.strictEqual(firstBrokenLink(hash("b", 4), run), 0)
    assert.strictEqual(firstBrokenLink(hash("a", 4), [run[0]!, run[2]!]), 1)
    assert.strictEqual(firstBrokenLink(hash("a", 4), []), -1)
  })

  const Height = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2000 }))
  it.prop(
    "splits a range without gap or overlap, no part wider than allowed",
    [Height, Height, Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 }))],
    ([from, length, width]) => {
      const to = from + length - 1
      let next = from
      for (const [start, end] of blockRanges(from, to, () => width)) {
        assert.strictEqual(start, next)
        assert.isAtLeast(end, start)
        assert.isAtMost(end - start + 1, width)
        next = end + 1
      }
      assert.strictEqual(next, Math.max(from, to + 1))
    },
  )
})
