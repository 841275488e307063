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

describe("an announced header", () => {
  const ours = journalOf(100, blocks(100, "a", [1, 0, 2, 0]))
  const at = (number: number, fork: string) => block(number, fork, 0)

  it.each([
    ["our head again", at(103, "a"), "duplicate"],
    ["a recorded block", at(102, "a"), "duplicate"],
    ["below the start", at(99, "a"), "duplicate"],
    ["on top of our head", at(104, "a"), "extends"],
    ["on top of another block", at(104, "b"), "fork"],
    ["further above", at(105, "a"), "gap"],
    ["far above", at(9000, "b"), "gap"],
    ["another block at our height", at(103, "b"), "competing"],
    ["another block below", at(101, "b"), "competing"],
    ["an unrecorded block of ours below: it has to be asked for", at(101, "a"), "competing"],
  ] as ReadonlyArray<readonly [string, Block, string]>)("%s", (_, header, expected) =>
    assert.strictEqual(classifyHead(ours, header), expected),
  )

  it("below the final block is known", () => {
    const journal = finalized(ours, 102, hash("a", 102))
    assert.strictEqual(classifyHead(journal, at(102, "b")), "duplicate")
    assert.strictEqual(classifyHead(journal, at(103, "b")), "competing")
  })

  it("at the start of an empty journal is next, whatever its parent", () => {
    const empty = emptyJournal(100, "none")
    assert.strictEqual(classifyHead(empty, at(100, "x")), "extends")
    assert.strictEqual(classifyHead(empty, at(101, "x")), "gap")
    assert.strictEqual(classifyHead(empty, at(99, "x")), "duplicate")
  })
})

describe("range maths", () => {
  it("finds the first block that is not on top of the one before", () => {
    const run = blocks(5, "a", [0, 0, 0])
    assert.strictEqual(firstBrokenLink(hash("a", 4), run), -1)
    assert.strictEqual(firstBrokenLink("", run), -1)
    assert.strictEqual(firstBrokenLink(hash("b", 4), run), 0)
    assert.strictEqual(firstBrokenLink(hash("a", 4), [run[0]!, run[2]!]), 1)
    assert.strictEqual(firstBrokenLink(hash("a", 4), []), -1)
  })

  const Height = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2000 }))
  it.prop(
    "pieces cover a range without hole or overlap, none wider than allowed",
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

/** What happens to the chain, and whether we hear of it. */
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
      // A chain that is not longer is followed only where our height shows another block.
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

describe("the state machine", () => {
  it.prop(
    "replaying its moves gives the canonical chain, whatever happens to it",
    [Schema.Array(Event).check(Schema.isMaxLength(60))],
    ([events]) => {
      const chain = new FakeChain({ finality: 16 })
      let journal = emptyJournal(0, "none")
      const heard: Array<Header> = [chain.head]
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
            journal = follow(journal, chain, heard[Math.max(heard.length - 1 - size(event.back, 5), 0)]!)
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
        heard.push(chain.head)
        // A stale announcement may come from a block that is gone.
        if (chain.byHash(chain.head.hash)) journal = follow(journal, chain, chain.head)
      }
      // In the end the chain is longer than it ever was.
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
