/** The background work of a store: trims, and the recovery of a chain's breaker. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Housekeeping from "../../../src/store/Housekeeping.ts"
import * as StoreBreaker from "../../../src/store/StoreBreaker.ts"
import { StoreError } from "../../../src/store/StoreError.ts"

describe("housekeeping", () => {
  it.effect("goes on after a defect, and resumes a stream whose trim had one", () =>
    Effect.gen(function* () {
      let trims = 0
      const trim = Effect.sync(() => {
        if (++trims === 2) throw new Error("a bug")
        return { dropped: 0, holder: undefined }
      })
      const { untilResumed } = yield* Housekeeping.make(trim, () => Effect.void)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(trims, 2)
      const resumed = yield* Effect.forkChild(untilResumed, { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      assert.isAtLeast(trims, 3)
      assert.strictEqual(resumed.pollUnsafe()?._tag, "Success")
    }),
  )
})

describe("the breaker between a chain and the store", () => {
  it.effect("accepts moves again after a defect during its recovery", () =>
    Effect.gen(function* () {
      const error = new StoreError({ operation: "push", reason: "unreachable", detail: "ECONNREFUSED" })
      const breaker = yield* StoreBreaker.make(Effect.fail(error), () => Effect.die(new Error("a bug")))
      yield* breaker.trip(error)
      yield* TestClock.adjust("10 seconds")
      yield* breaker.awaitClosed
      assert.isTrue(breaker.acceptsMoves())
    }),
  )
})
