import { assert, describe, it } from "@effect/vitest"
import type { Hex } from "../../../src/Domain.ts"
import { ForkStandoff } from "../../../src/chain/ForkStandoff.ts"
import type { BlockRecord } from "../../../src/store/Journal.ts"

const minute = 60_000
const hashOf = (name: string): Hex => `0x${Buffer.from(name).toString("hex")}`

/** A journal from block 100 on: named blocks with one log each; a name in brackets has no log. */
const journal = (...names: ReadonlyArray<string>) => ({
  window: names.map((name, i): BlockRecord => {
    const hash = hashOf(name)
    return { number: 100 + i, hash, parentHash: hash, count: name.startsWith("(") ? 0 : 1 }
  }),
})

/** The node and the store agreed on `c a1 a2`; then another ingestor replaced blocks from 101 on. */
const replaced = () => {
  const standoff = new ForkStandoff()
  standoff.recordPush(journal("c", "a1", "a2"))
  return { standoff, theirs: journal("c", "b1", "b2", "b3") }
}

/** Changes the side back as soon as the wait is over. */
const change = (standoff: ForkStandoff, at: number): number => {
  const wait = standoff.waitFor(at)
  assert.strictEqual(standoff.waitFor(at + wait), 0)
  standoff.recordPop(at + wait)
  standoff.recordPush(journal("c", "a1", "a2"))
  return wait
}

describe("replacedBy", () => {
  it("returns the lowest agreed block with logs above the common ancestor", () => {
    const { standoff, theirs } = replaced()
    assert.strictEqual(standoff.replacedBy(theirs, 100)?.hash, hashOf("a1"))
  })

  it("returns nothing if no block above the common ancestor was agreed on", () => {
    const { standoff } = replaced()
    assert.isUndefined(standoff.replacedBy(journal("c", "a1", "a2", "b3"), 102))
    assert.isUndefined(new ForkStandoff().replacedBy(journal("c", "b1"), 100))
  })

  it("returns nothing if only blocks without logs were replaced", () => {
    const standoff = new ForkStandoff()
    standoff.recordPush(journal("c", "(a1)"))
    assert.isUndefined(standoff.replacedBy(journal("c", "b1"), 100))
  })

  it("returns nothing if the store was restored to blocks that were agreed on before", () => {
    const standoff = new ForkStandoff()
    standoff.recordPush(journal("c", "b1", "b2"))
    standoff.recordPush(journal("c", "a1", "a2", "a3"))
    assert.isUndefined(standoff.replacedBy(journal("c", "b1", "b2"), 100))
    assert.isDefined(standoff.replacedBy(journal("c", "b1", "b2", "b3"), 100))
  })

  it("agrees on another ingestor's blocks up to the one that the node serves", () => {
    const { standoff, theirs } = replaced()
    assert.isTrue(standoff.confirm(theirs, hashOf("b2")))
    assert.strictEqual(standoff.replacedBy(journal("c", "a1", "a2", "x"), 100)?.hash, hashOf("b1"))
    assert.isUndefined(standoff.replacedBy(journal("c", "b1", "b2", "x"), 102))
  })

  it("proves no agreement by a block that both sides have, or that is not recorded", () => {
    const { standoff, theirs } = replaced()
    standoff.waitFor(0)
    assert.isFalse(standoff.confirm(theirs, hashOf("c")))
    assert.isFalse(standoff.confirm(theirs, hashOf("a2")))
    assert.isTrue(standoff.isWaiting)
    assert.strictEqual(standoff.replacedBy(theirs, 100)?.hash, hashOf("a1"))
  })
})

describe("the wait of a standoff", () => {
  it("counts from the first detection", () => {
    const { standoff } = replaced()
    assert.strictEqual(standoff.waitFor(minute), 2.5 * minute)
    assert.strictEqual(standoff.waitFor(2 * minute), 1.5 * minute)
    assert.strictEqual(standoff.waitFor(4 * minute), 0)
  })

  it("doubles with each change of side, up to ten minutes, and resets after an hour without one", () => {
    const { standoff } = replaced()
    const waits: Array<number> = []
    let now = 0
    for (let i = 0; i < 5; i++) {
      const wait = change(standoff, now)
      now += wait
      waits.push(wait / minute)
    }
    assert.deepStrictEqual(waits, [2.5, 5, 10, 10, 10])
    assert.strictEqual(standoff.waitFor(now + 61 * minute), 2.5 * minute)
  })

  it("ends as soon as the node and the store agree, which is no change of side", () => {
    const { standoff, theirs } = replaced()
    standoff.waitFor(0)
    standoff.confirm(theirs, hashOf("b3"))
    assert.isFalse(standoff.isWaiting)
    standoff.recordPop(minute)
    assert.strictEqual(standoff.waitFor(10 * minute), 2.5 * minute)
  })

  it("stays over until a block is popped, and doubles then", () => {
    const { standoff } = replaced()
    standoff.waitFor(0)
    assert.strictEqual(standoff.waitFor(3 * minute), 0)
    assert.strictEqual(standoff.waitFor(3 * minute + 1), 0)
    standoff.recordPop(3 * minute + 2)
    // The rewrite has begun, and another ingestor has pushed its blocks again.
    assert.strictEqual(standoff.waitFor(3 * minute + 3), 5 * minute)
  })

  it("is not changed by blocks that are popped for another reason", () => {
    const { standoff } = replaced()
    standoff.recordPop(0)
    standoff.waitFor(0)
    standoff.recordPop(minute)
    assert.strictEqual(standoff.waitFor(minute), 1.5 * minute)
  })
})
