import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Hex } from "../../../src/Domain.ts"
import { forkPoint, RecentHeaders } from "../../../src/chain/RecentHeaders.ts"
import type { Linked } from "../../../src/chain/RecentHeaders.ts"
import { hash } from "../../support/blocks.ts"

/** Blocks on top of a root, each `step` heights above its parent. */
const branch = (name: string, root: Linked, steps: ReadonlyArray<number>): ReadonlyArray<Linked> => {
  const blocks: Array<Linked> = []
  let below = root
  for (const [i, step] of steps.entries()) {
    below = { number: below.number + step, hash: hash(name, i), parentHash: below.hash }
    blocks.push(below)
  }
  return blocks
}

const root: Linked = { number: 100, hash: hash("root", 0), parentHash: hash("root", 1) }

/** Mostly one height, sometimes two: a height without a block. */
const Steps = Schema.Array(Schema.Literals([1, 1, 1, 2])).check(Schema.isMinLength(1), Schema.isMaxLength(40))

describe("the fork point of two chains", () => {
  it.prop(
    "is the block above their common ancestor, also with heights without a block",
    [Steps, Steps],
    ([a, b]) => {
      const ours = branch("a", root, a)
      const head = ours.at(-1)!
      const theirs = branch("b", root, b)
      const seen = new RecentHeaders()
      for (const block of [...ours, ...theirs, root]) seen.add(block)
      const found = forkPoint(head, theirs.at(-1)!, ({ parentHash }) => seen.get(parentHash))
      assert.deepStrictEqual(found, { lowest: ours[0]!.number, depth: ours.length })
    },
  )

  it.prop(
    "requests the first missing block of the other chain, and is unknown if one of ours is missing",
    [Steps],
    ([a]) => {
      const ours = branch("a", root, a)
      const theirs = branch("b", root, a)
      if (ours.length < 3) return
      const seen = new RecentHeaders()
      for (const block of [...ours, root, theirs.at(-1)!]) seen.add(block)
      const parentOf = ({ parentHash }: Linked) => seen.get(parentHash)
      assert.deepStrictEqual(forkPoint(ours.at(-1)!, theirs.at(-1)!, parentOf), { missing: theirs.at(-1)! })
      for (const block of theirs) seen.add(block)
      assert.deepStrictEqual(forkPoint(ours.at(-1)!, theirs.at(-1)!, parentOf), {
        lowest: ours[0]!.number,
        depth: ours.length,
      })
      const forgetful = new RecentHeaders()
      for (const block of [...theirs, ours.at(-1)!]) forgetful.add(block)
      assert.isUndefined(
        forkPoint(ours.at(-1)!, theirs.at(-1)!, ({ parentHash }) => forgetful.get(parentHash)),
      )
    },
  )

  it.prop(
    "counts the longer of two branches above it, in any order of arrival, and no unrelated block",
    [Steps, Steps, Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 80 }))],
    ([a, b, turn]) => {
      const blocks = [...branch("a", root, a), ...branch("b", root, b), root]
      const elsewhere = branch("c", branch("d", root, [1])[0]!, a)
      const seen = new RecentHeaders()
      const from = turn % blocks.length
      for (const block of [...elsewhere, ...blocks.slice(from), ...blocks.slice(0, from)]) seen.add(block)
      assert.strictEqual(seen.above(root.hash), Math.max(a.length, b.length))
      assert.strictEqual(seen.above(blocks[a.length - 1]!.hash), 0)
    },
  )

  it("uses the last 1 024 headers", () => {
    const seen = new RecentHeaders()
    const blocks = branch(
      "a",
      root,
      Array.from({ length: 2000 }, () => 1),
    )
    for (const block of blocks) seen.add(block)
    assert.isUndefined(seen.get(blocks[975]!.hash as Hex))
    assert.deepStrictEqual(seen.get(blocks[976]!.hash as Hex), blocks[976])
  })
})
