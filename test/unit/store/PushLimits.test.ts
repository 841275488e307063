import { assert, describe, it } from "@effect/vitest"
import { callLimits, emptyHead } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import type { Push } from "../../../src/store/Journal.ts"
import { PushLimits } from "../../../src/store/PushLimits.ts"
import { StoreError } from "../../../src/store/StoreError.ts"
import { block, blocks } from "../../support/blocks.ts"

const failure = (reason: StoreError["reason"], detail: string) =>
  new StoreError({ operation: "push", reason, detail })
const of = (...sizes: ReadonlyArray<number>) =>
  [...pushes(emptyHead(1), blocks(1, "a", sizes), false)][0] as Push
const late = failure("timeout", "no answer within 5000 ms")

describe("the push limits", () => {
  it("halve after a refused push, down to one log", () => {
    const limits = new PushLimits()
    let logs = 800
    for (let i = 0; logs > 1; i++) {
      assert.isTrue(limits.refused(of(logs), late))
      assert.isAtMost(limits.current.logs, Math.max(Math.floor(logs / 2), 1))
      logs = limits.current.logs
      assert.isBelow(i, 12)
    }
    assert.isFalse(limits.refused(of(1), late), "a single log cannot be divided")
    assert.isAtLeast(limits.current.bytes, 1)
  })

  it("stay unchanged after an error that is not about the size [G-149]", () => {
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

  it("halve when the same push closes the connection twice, and from then on at once", () => {
    const limits = new PushLimits()
    const closed = failure("unreachable", "Connection is closed.")
    assert.isFalse(limits.refused(of(800), closed))
    assert.isTrue(limits.refused(of(800), closed, true))
    assert.strictEqual(limits.current.logs, 400)
    assert.isTrue(limits.refused(of(400), closed))
    assert.strictEqual(limits.current.logs, 200)
    assert.isFalse(limits.refused(of(1), closed, true), "a single log cannot be divided")
  })

  it("grow back after accepted pushes", () => {
    const limits = new PushLimits()
    for (let i = 0; i < 4; i++) limits.refused(of(...Array.from({ length: 300 }, () => 3)), late)
    assert.isBelow(limits.current.blocks, 30)
    for (let i = 0; i < 20; i++) limits.accepted()
    const grown = limits.current
    assert.isBelow(grown.blocks, callLimits.blocks)
    for (let i = 0; i < 400; i++) limits.accepted()
    assert.deepStrictEqual(limits.current, callLimits)
  })

  it("shrink until a block that is too large fits", () => {
    const limits = new PushLimits()
    limits.refused(of(1000), late)
    const parts = [...pushes(emptyHead(1), [block(1, "a", 1000)], false, limits.current)]
    assert.isAtLeast(parts.length, 2)
    assert.strictEqual(parts.flatMap((push) => push.blocks.flatMap(({ logs }) => logs)).length, 1000)
  })
})
