import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Block, Header } from "../../../src/Domain.ts"
import {
  classifyHead,
  firstBrokenLink,
  blockRanges,
  ancestorCandidates,
} from "../../../src/chain/ForkChoice.ts"
import {
  afterPush,
  emptyJournal,
  finalized,
  finalizedHead,
  popped,
  pushed,
  pushes,
} from "../../../src/store/Journal.ts"
import type { Journal } from "../../../src/store/Journal.ts"
import { block, blocks, hash } from "../../support/blocks.ts"
import { FakeChain } from "../../support/FakeChain.ts"

const journalOf = (start: number, ...runs: ReadonlyArray<ReadonlyArray<Block>>): Journal => {
  let journal = emptyJournal(start, "none")
  for (const run of runs) {
    for (const one of run)
      for (const move of pushes(journal.head, [one], false)) journal = pushed(journal, move)
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
    const journal = finalized(ours, 102, hash("a", 102))
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

/** What happens to the chain, and which heads are announced. */
const Event = Schema.Union([
  Schema.TaggedStruct("Extend", { logs: Schema.Int }),
  Schema.TaggedStruct("Jump", { blocks: Schema.Int }),
  Schema.TaggedStruct("Fork", { depth: Schema.Int, longer: Schema.Int }),
  Schema.TaggedStruct("Rollback", { depth: Schema.Int }),
  Schema.TaggedStruct("Repeat", { back: Schema.Int }),
  Schema.TaggedStruct("Finalize", {}),
])

const size = (n: number, most: number) => Math.abs(n) % (most + 1)

/** The moves for one announced header, with the chain itself in place of a provider. */
const follow = (journal: Journal, chain: FakeChain, announced: Header, tries = 0): Journal => {
  assert.isBelow(tries, 10)
  const forked = () => {
    const shared = ancestorCandidates(journal).find(
      ({ number, hash }) => chain.at(number)?.header.hash === hash,
    )
    const ancestor = shared?.number ?? finalizedHead(journal).number
    let next = journal
    while (next.head.number > ancestor) next = popped(next)
    return follow(next, chain, announced, tries + 1)
  }
  switch (classifyHead(journal, announced)) {
    case "duplicate":
      return journal
    case "fork":
      return forked()
    case "competing":
      // A chain that is not longer is followed only if it has another block at our height.
      return chain.at(journal.head.number)?.header.hash === journal.head.hash ||
        chain.head.number < journal.head.number
        ? journal
        : forked()
    case "extends":
    case "gap": {
      const between = chain.blocks(journal.head.number + 1, announced.number)
      if (firstBrokenLink(journal.head.hash, between) !== -1) return forked()
      let next = journal
      for (const move of pushes(journal.head, between, false)) {
        assert.deepStrictEqual(move.expected, next.head)
        next = pushed(next, move)
        assert.deepStrictEqual(next.head, afterPush(move))
      }
      return next
    }
  }
}

describe("the fork choice", () => {
  it.prop(
    "produces moves whose replay is the canonical chain, through any reorgs",
    [Schema.Array(Event).check(Schema.isMaxLength(60))],
    ([events]) => {
      const chain = new FakeChain({ finality: 16 })
      let journal = emptyJournal(0, "none")
      const announced: Array<Header> = [chain.head]
      for (const event of events) {
        switch (event._tag) {
          case "Extend":
            chain.extend(size(event.logs, 3))
            break
          case "Jump":
            chain.jump(...Array.from({ length: size(event.blocks, 5) + 1 }, (_, i) => i % 3))
            break
          case "Fork": {
            const depth = size(event.depth, 9) + 1
            chain.fork(
              depth,
              ...Array.from({ length: depth + size(event.longer, 2) }, (_, i) => (i + depth) % 3),
            )
            break
          }
          case "Rollback":
            chain.rollback(size(event.depth, 6))
            break
          case "Repeat":
            journal = follow(
              journal,
              chain,
              announced[Math.max(announced.length - 1 - size(event.back, 5), 0)]!,
            )
            continue
          case "Finalize": {
            const { number, hash } = chain.final
            const ours = journal.window.find((record) => record.number >= number)
            const canonical = ours !== undefined && chain.at(ours.number)?.header.hash === ours.hash
            if (canonical && number > finalizedHead(journal).number && number <= journal.head.number) {
              journal = finalized(journal, number, hash)
            }
            continue
          }
        }
        announced.push(chain.head)
        // A stale announcement may name an orphaned block.
        if (chain.byHash(chain.head.hash)) journal = follow(journal, chain, chain.head)
      }
      // At the end the chain is longer than it ever was.
      while (chain.head.number <= journal.head.number) chain.extend(1)
      chain.extend(1)
      journal = follow(journal, chain, chain.head)
      assert.deepStrictEqual(journal.head, { number: chain.head.number, hash: chain.head.hash, part: 0 })
      const expected = chain
        .blocks(finalizedHead(journal).number + 1)
        .filter(({ number, logs }) => logs.length > 0 || number === 0 || number === chain.head.number)
      assert.deepStrictEqual(
        journal.window.map(({ number, hash, count }) => [number, hash, count]),
        expected.map(({ number, hash, logs }) => [number, hash, logs.length]),
      )
    },
    { arbitrary: { runs: 300 } },
  )
})
