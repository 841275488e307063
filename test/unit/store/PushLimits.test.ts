import { assert, describe, it } from "@effect/vitest"
import { callLimits, emptyHead, pushes } from "../../../src/store/Journal.ts"
import type { Push } from "../../../src/store/Journal.ts"
import { PushLimits } from "../../../src/store/PushLimits.ts"
import { StoreError } from "../../../src/store/Store.ts"
import { block, blocks } from "../../support/blocks.ts"

const failure = (reason: StoreError["reason"], detail: string) =>
  new StoreError({ operation: "push", reason, detail })
const of = (...sizes: ReadonlyArray<number>) =>
  [...pushes(emptyHead(1), blocks(1, "a", sizes), false)][0] as Push
const late = failure("timeout", "no answer within 5000 ms")

describe("how much a push carries", () => {
  it("is half of what was refused, down to one log", () => {
    const limits = new PushLimits()
    let logs = 800
    for (let i = 0; logs > 1; i++) {
      assert.isTrue(limits.refused(of(logs), late))
      assert.isAtMost(limits.current.logs, Math.max(Math.floor(logs / 2), 1))
      logs = limits.current.logs
      assert.isBelow(i, 12)
    }
    assert.isFalse(limits.refused(of(1), late), "one log of one block cannot be cut")
    assert.isAtLeast(limits.current.bytes, 1)
  })

  it("stays as it is where the size is not what was refused [G-149]", () => {
    const limits = new PushLimits()
    for (const error of [
      failure("full", "OOM command not allowed when used memory > 'maxmemory'"),
      failure("refused", "NOPERM this user has no permissions to run the 'evalsha' command"),
      failure("unreachable", "connect ECONNREFUSED"),
      failure("refused", "ERR max requests limit exceeded."),
      failure("refused", "ERR max daily request limit exceeded"),
      failure("unreachable", "ERR max concurrent connections exceeded"),
      failure("loading", "LOADING Redis is loading the dataset in memory"),
    ])
      assert.isFalse(limits.refused(of(800), error), error.detail)
    assert.strictEqual(limits.current, callLimits)
  })

  it("is half of what ended the connection twice, and then of what ends it once", () => {
    const limits = new PushLimits()
    const closed = failure("unreachable", "Connection is closed.")
    assert.isFalse(limits.refused(of(800), closed))
    assert.isTrue(limits.refused(of(800), closed, true))
    assert.strictEqual(limits.current.logs, 400)
    assert.isTrue(limits.refused(of(400), closed))
    assert.strictEqual(limits.current.logs, 200)
    assert.isFalse(limits.refused(of(1), closed, true), "one log of one block cannot be cut")
  })

  it("grows back to what is expected after pushes that are taken", () => {
    const limits = new PushLimits()
    for (let i = 0; i < 4; i++) limits.refused(of(...Array.from({ length: 300 }, () => 3)), late)
    assert.isBelow(limits.current.blocks, 30)
    for (let i = 0; i < 20; i++) limits.taken()
    const grown = limits.current
    assert.isBelow(grown.blocks, callLimits.blocks)
    for (let i = 0; i < 400; i++) limits.taken()
    assert.deepStrictEqual(limits.current, callLimits)
  })

  it("is found for a block that is too large as a whole", () => {
    const limits = new PushLimits()
    limits.refused(of(1000), late)
    const parts = [...pushes(emptyHead(1), [block(1, "a", 1000)], false, limits.current)]
    assert.isAtLeast(parts.length, 2)
    assert.strictEqual(parts.flatMap((push) => push.blocks.flatMap(({ logs }) => logs)).length, 1000)
  })
})
