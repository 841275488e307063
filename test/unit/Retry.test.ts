import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Random, Ref, Schedule, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { backoff, circuitBreaking, failuresToOpen, makeBreaker } from "../../src/Retry.ts"
import type { BreakerState } from "../../src/Retry.ts"

/** The first delays of a schedule. */
const delays = (count: number, schedule = backoff) =>
  Effect.gen(function* () {
    const step = yield* Schedule.toStep(schedule)
    const all: Array<number> = []
    for (let i = 0; i < count; i++) {
      const [, delay] = yield* Effect.orDie(step(0, undefined))
      all.push(Duration.toMillis(delay))
    }
    return all
  })

/** `min(1 s · 2^failures, 60 s)` before jitter. */
const expected = (failures: number) => Math.min(1000 * 2 ** Math.min(failures, 10), 60_000)

/** An attempt that fails until `works` is set, retried under a breaker without jitter. */
const setUp = Effect.gen(function* () {
  const breaker = yield* makeBreaker
  const tries: Array<number> = []
  const works = yield* Ref.make(false)
  const plain = Schedule.min([Schedule.exponential("2 seconds"), Schedule.spaced("60 seconds")])
  const attempt = Effect.gen(function* () {
    tries.push(yield* Effect.clockWith((clock) => clock.currentTimeMillis))
    if (!(yield* Ref.get(works))) return yield* Effect.fail("down" as const)
    return yield* breaker.succeed
  })
  const fiber = yield* Effect.retry(attempt, circuitBreaking(breaker)(plain)).pipe(
    Effect.forkChild({ startImmediately: true }),
  )
  return { breaker, tries, works, fiber, state: SubscriptionRef.get(breaker.state) }
})

describe("backoff", () => {
  it.effect("waits 2, 4, 8 … 60 s, each within 20 %", () =>
    Effect.gen(function* () {
      for (const [i, delay] of (yield* delays(12)).entries()) {
        assert.isAtLeast(delay, expected(i + 1) * 0.8)
        assert.isAtMost(delay, expected(i + 1) * 1.2)
      }
    }),
  )

  it.effect("applies ±20 % jitter", () =>
    Effect.gen(function* () {
      const runs = yield* Effect.forEach([1, 2, 3, 4, 5], (seed) => Random.withSeed(delays(6), seed))
      assert.strictEqual(new Set(runs.map((run) => run[5])).size, 5)
      const ratios = (yield* delays(400)).slice(6).map((delay) => delay / 60_000)
      assert.isBelow(Math.min(...ratios), 0.85)
      assert.isAbove(Math.max(...ratios), 1.15)
    }),
  )

  it.effect("never exceeds 72 s and does not overflow after 10 000 failures", () =>
    Effect.gen(function* () {
      const all = yield* delays(10_000)
      assert.isTrue(all.every((delay) => Number.isFinite(delay) && delay >= 1600 && delay <= 72_000))
      assert.isAtLeast(all[20]!, 48_000)
    }),
  )
})

describe("the circuit breaker", () => {
  it.effect("opens at the third consecutive failure, for exactly the backoff delay", () =>
    Effect.gen(function* () {
      const { state, tries } = yield* setUp
      assert.deepStrictEqual(yield* state, { _tag: "Closed", failures: 1 })
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* state, { _tag: "Closed", failures: 2 })
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(tries, [0, 2000, 6000])
      assert.strictEqual(tries.length, failuresToOpen)
      assert.deepStrictEqual(yield* state, { _tag: "Open", failures: 3, until: 14_000 })
      yield* TestClock.adjust("7999 millis")
      assert.strictEqual((yield* state)._tag, "Open")
      assert.strictEqual(tries.length, 3)
    }),
  )

  it.effect("is half-open while the probe runs, and closes after a success", () =>
    Effect.gen(function* () {
      const { state, works, fiber, breaker } = yield* setUp
      const seen: Array<BreakerState["_tag"]> = []
      yield* SubscriptionRef.changes(breaker.state).pipe(
        Stream.runForEach(({ _tag }) => Effect.sync(() => seen.push(_tag))),
        Effect.forkChild({ startImmediately: true }),
      )
      yield* TestClock.adjust("6 seconds")
      yield* Ref.set(works, true)
      yield* TestClock.adjust("8 seconds")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(yield* state, { _tag: "Closed", failures: 0 })
      assert.deepStrictEqual(seen.slice(-3), ["Open", "HalfOpen", "Closed"])
    }),
  )

  it.effect("doubles the open time when the probe fails, up to the cap", () =>
    Effect.gen(function* () {
      const { state, tries } = yield* setUp
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(
        tries.slice(0, 8),
        [0, 2, 6, 14, 30, 62, 122, 182].map((s) => s * 1000),
      )
      assert.strictEqual((yield* state)._tag, "Open")
    }),
  )

  it.effect("restarts the backoff after a success", () =>
    Effect.gen(function* () {
      const { state, works, fiber, breaker } = yield* setUp
      yield* TestClock.adjust("30 seconds")
      yield* Ref.set(works, true)
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      const schedule = circuitBreaking(breaker)(Schedule.exponential("2 seconds"))
      assert.deepStrictEqual(yield* delays(2, schedule), [2000, 4000])
      assert.deepStrictEqual(yield* state, { _tag: "Closed", failures: 2 })
    }),
  )

  it.effect("backs off from a provider that connects, sends one message and drops", () =>
    Effect.gen(function* () {
      const breaker = yield* makeBreaker
      const attempts: Array<number> = []
      const provider = Stream.unwrap(
        Effect.gen(function* () {
          attempts.push(yield* Effect.clockWith((clock) => clock.currentTimeMillis))
          return Stream.concat(Stream.make("hello"), Stream.fail("dropped" as const))
        }),
      )
      const plain = Schedule.min([Schedule.exponential("2 seconds"), Schedule.spaced("60 seconds")])
      yield* provider.pipe(
        Stream.retry(circuitBreaking(breaker)(plain)),
        Stream.runDrain,
        Effect.forkChild({ startImmediately: true }),
      )
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(
        attempts,
        [0, 2, 6, 14, 30, 62].map((s) => s * 1000),
      )
      assert.strictEqual((yield* SubscriptionRef.get(breaker.state))._tag, "Open")
    }),
  )
})
