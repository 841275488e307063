import { assert, describe, it } from "@effect/vitest"
import { EventLoopLag } from "../../../src/observability/EventLoopLag.ts"

describe("the event loop delay", () => {
  it("is how late the work of a second begins, and is zero before the first measurement", () => {
    const lag = new EventLoopLag()
    assert.deepStrictEqual([lag.quantile(0.5), lag.quantile(0.99)], [0, 0])
    lag.begin(0)
    assert.strictEqual(lag.quantile(0.99), 0)
    lag.end(5)
    lag.begin(1005)
    assert.strictEqual(lag.quantile(0.99), 0)
    lag.end(1025)
    lag.begin(2525)
    assert.deepStrictEqual([lag.quantile(0.5), lag.quantile(0.99)], [0, 0.5])
  })

  it("is that of the last minute: a stall shows at once, and no longer after sixty samples", () => {
    const lag = new EventLoopLag()
    let now = 0
    const second = (delay: number) => {
      lag.end(now)
      now += 1000 + delay
      lag.begin(now)
    }
    for (let i = 0; i < 1000; i++) second(2)
    second(3000)
    assert.deepStrictEqual([lag.quantile(0.5), lag.quantile(0.99)], [0.002, 3])
    for (let i = 0; i < 59; i++) second(2)
    assert.strictEqual(lag.quantile(0.99), 3)
    second(2)
    assert.strictEqual(lag.quantile(0.99), 0.002)
  })

  it("is never negative: a timer may fire early", () => {
    const lag = new EventLoopLag()
    lag.end(0)
    lag.begin(999.5)
    assert.strictEqual(lag.quantile(0.5), 0)
  })
})
