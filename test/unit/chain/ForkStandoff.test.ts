import { assert, describe, it } from "@effect/vitest"
import type { Hex } from "../../../src/Domain.ts"
import { ForkStandoff } from "../../../src/chain/ForkStandoff.ts"
import type { BlockRecord } from "../../../src/store/Journal.ts"

const minute = 60_000
const hashOf = (name: string): Hex => `0x${Buffer.from(name).toString("hex")}`

/** A journal from block 100 on, of blocks by name with one log each; a name in brackets has none. */
const journal = (...names: ReadonlyArray<string>) => ({
  window: names.map((name, i): BlockRecord => {
    const hash = hashOf(name)
    return { number: 100 + i, hash, parentHash: hash, count: name.startsWith("(") ? 0 : 1 }
  }),
})

/** Agreed on `c a1 a2`, and then replaced from block 101 on. */
const replaced = () => {
  const sides = new ForkStandoff()
  sides.recordPush(journal("c", "a1", "a2"))
  return { sides, theirs: journal("c", "b1", "b2", "b3") }
}

/** Changes the side back as soon as it may be. */
const change = (sides: ForkStandoff, at: number): number => {
  const wait = sides.waitFor(at)
  assert.strictEqual(sides.waitFor(at + wait), 0)
  sides.recordPop(at + wait)
  sides.recordPush(journal("c", "a1", "a2"))
  return wait
}

describe("who has replaced whose blocks", () => {
  it("names the lowest block with logs that was agreed on above the common one", () => {
    const { sides, theirs } = replaced()
    assert.strictEqual(sides.replacedBy(theirs, 100)?.hash, hashOf("a1"))
  })

  it("names none where nothing above the common block was agreed on", () => {
    const { sides } = replaced()
    assert.isUndefined(sides.replacedBy(journal("c", "a1", "a2", "b3"), 102))
    assert.isUndefined(new ForkStandoff().replacedBy(journal("c", "b1"), 100))
  })

  it("names none where only blocks without logs were replaced", () => {
    const sides = new ForkStandoff()
    sides.recordPush(journal("c", "(a1)"))
    assert.isUndefined(sides.replacedBy(journal("c", "b1"), 100))
  })

  it("names none where all that is to be undone was agreed on: the store was set back", () => {
    const sides = new ForkStandoff()
    sides.recordPush(journal("c", "b1", "b2"))
    sides.recordPush(journal("c", "a1", "a2", "a3"))
    assert.isUndefined(sides.replacedBy(journal("c", "b1", "b2"), 100))
    assert.isDefined(sides.replacedBy(journal("c", "b1", "b2", "b3"), 100))
  })

  it("agrees on what the node shows of another ingestor's blocks, up to there", () => {
    const { sides, theirs } = replaced()
    assert.isTrue(sides.confirm(theirs, hashOf("b2")))
    assert.strictEqual(sides.replacedBy(journal("c", "a1", "a2", "x"), 100)?.hash, hashOf("b1"))
    assert.isUndefined(sides.replacedBy(journal("c", "b1", "b2", "x"), 102))
  })

  it("learns nothing from a block that both sides have, or that is not recorded", () => {
    const { sides, theirs } = replaced()
    sides.waitFor(0)
    assert.isFalse(sides.confirm(theirs, hashOf("c")))
    assert.isFalse(sides.confirm(theirs, hashOf("a2")))
    assert.isTrue(sides.isWaiting)
    assert.strictEqual(sides.replacedBy(theirs, 100)?.hash, hashOf("a1"))
  })
})

describe("how long it waits", () => {
  it("counts from when it was first seen", () => {
    const { sides } = replaced()
    assert.strictEqual(sides.waitFor(minute), 2.5 * minute)
    assert.strictEqual(sides.waitFor(2 * minute), 1.5 * minute)
    assert.strictEqual(sides.waitFor(4 * minute), 0)
  })

  it("doubles with each change, up to ten minutes, and begins anew after an hour without one", () => {
    const { sides } = replaced()
    const waits: Array<number> = []
    let now = 0
    for (let i = 0; i < 5; i++) {
      const wait = change(sides, now)
      now += wait
      waits.push(wait / minute)
    }
    assert.deepStrictEqual(waits, [2.5, 5, 10, 10, 10])
    assert.strictEqual(sides.waitFor(now + 61 * minute), 2.5 * minute)
  })

  it("is over as soon as they agree, and that is no change of side", () => {
    const { sides, theirs } = replaced()
    sides.waitFor(0)
    sides.confirm(theirs, hashOf("b3"))
    assert.isFalse(sides.isWaiting)
    sides.recordPop(minute)
    assert.strictEqual(sides.waitFor(10 * minute), 2.5 * minute)
  })

  it("stays over until a block is undone: the store may have moved on in between", () => {
    const { sides } = replaced()
    sides.waitFor(0)
    assert.strictEqual(sides.waitFor(3 * minute), 0)
    assert.strictEqual(sides.waitFor(3 * minute + 1), 0)
    sides.recordPop(3 * minute + 2)
    // It was begun, and another ingestor has put its blocks on top again.
    assert.strictEqual(sides.waitFor(3 * minute + 3), 5 * minute)
  })

  it("is not changed by blocks that are undone for another reason", () => {
    const { sides } = replaced()
    sides.recordPop(0)
    sides.waitFor(0)
    sides.recordPop(minute)
    assert.strictEqual(sides.waitFor(minute), 1.5 * minute)
  })
})
