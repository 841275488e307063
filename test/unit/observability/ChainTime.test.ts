import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { ChainStatus } from "../../../src/observability/ChainStatus.ts"
import { timeAt } from "../../../src/observability/ChainTime.ts"

describe("the time of a block", () => {
  const known = [
    { number: 100, timestamp: 1000 },
    { number: 200, timestamp: 1200 },
    { number: 210, timestamp: 1320 },
  ]

  it("is exact if known, and interpolated between two known blocks", () => {
    assert.strictEqual(timeAt(200, known), 1200)
    assert.strictEqual(timeAt(150, known), 1100)
    assert.strictEqual(timeAt(205, known.toReversed()), 1260)
  })

  it("is extrapolated at the average rate above and below the known blocks", () => {
    assert.strictEqual(timeAt(45, [known[0], undefined, known[1]]), 890)
    assert.strictEqual(timeAt(250, [known[0], known[1]]), 1300)
    assert.strictEqual(timeAt(7, [known[0], known[0]]), 1000)
    assert.isUndefined(timeAt(7, [undefined]))
  })

  it("is in seconds even if a node sends milliseconds", () =>
    assert.strictEqual(timeAt(1, [{ number: 1, timestamp: 1_700_000_000_000 }]), 1_700_000_000))
})

/** A chain with a block every quarter of a second, and its status. */
const fast = (confirmations: ChainStatus["confirmations"]) =>
  Effect.gen(function* () {
    const status = new ChainStatus(
      { name: "fast", id: 1, confirmations, endpoints: [], rpc: [] },
      yield* Clock.Clock,
    )
    const block = (number: number) => ({ number, timestamp: number / 4 })
    const store = (number: number) => {
      status.stored = number
      status.time.stored(block(number))
    }
    return { status, store, hear: (number: number) => status.headAnnounced(block(number), 0, 250), block }
  }).pipe(Effect.provide(TestClock.layer()))

describe("the lag of a chain in seconds", () => {
  it.effect("is the age of the missing blocks, not their number", () =>
    Effect.gen(function* () {
      const { status, store, hear } = yield* fast(0)
      assert.strictEqual(status.lagSeconds, 0)
      hear(4000)
      store(4000)
      assert.strictEqual(status.lagSeconds, 0)
      hear(4400)
      assert.strictEqual(status.lagSeconds, 100)
    }),
  )

  it.effect("is 0 for a chain that stays behind because of CONFIRMATIONS", () =>
    Effect.gen(function* () {
      const late = yield* fast(400)
      late.hear(4000)
      late.store(3600)
      assert.strictEqual(late.status.lagSeconds, 0)
      late.store(3560)
      assert.strictEqual(late.status.lagSeconds, 10)
      const final = yield* fast("finalized")
      final.hear(8000)
      assert.strictEqual(final.status.lagSeconds, 0)
      final.status.finalAnnounced(final.block(4000))
      final.store(4000)
      assert.strictEqual(final.status.lagSeconds, 0)
      final.status.finalAnnounced(final.block(4800))
      assert.strictEqual(final.status.lagSeconds, 200)
    }),
  )

  it.effect("is known after a restart before a block is stored", () =>
    Effect.gen(function* () {
      const { status, hear, block } = yield* fast(0)
      hear(8000)
      status.finalAnnounced(block(4000))
      assert.strictEqual(status.lagSeconds, 0)
      status.stored = 2000
      assert.strictEqual(status.lagSeconds, 1500)
    }),
  )

  it.effect("grows with the chain's time if nothing was ever stored", () =>
    Effect.gen(function* () {
      const { status, hear } = yield* fast(0)
      hear(8000)
      hear(8400)
      assert.strictEqual(status.lagSeconds, 100)
    }),
  )
})

describe("the age of the final block", () => {
  it.effect(
    "is its distance in time to the newest head, also after a restart and while finality stalls",
    () =>
      Effect.gen(function* () {
        const { status, hear, block } = yield* fast(0)
        assert.strictEqual(status.finalAge, 0)
        hear(8000)
        status.finalAnnounced(block(4000))
        status.final = 4000
        assert.strictEqual(status.finalAge, 1000)
        status.final = 3600
        assert.strictEqual(status.finalAge, 1100)
        hear(16_000)
        assert.strictEqual(status.finalAge, 3100)
      }),
  )

  it.effect("counts from the first head if nothing was ever final", () =>
    Effect.gen(function* () {
      const { status, hear } = yield* fast(0)
      hear(8000)
      hear(8040)
      assert.strictEqual(status.finalAge, 10)
    }),
  )
})
