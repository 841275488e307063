import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as RateLimiter from "../../../src/endpoint/RateLimiter.ts"

/** Requests all calls at once, and records when each starts (virtual milliseconds). */
const pace = Effect.fnUntraced(function* (
  rateLimiter: RateLimiter.RateLimiter,
  calls: number,
  priority: RateLimiter.Priority = "live",
) {
  const times: Array<number> = []
  const note = Effect.map(Clock.currentTimeMillis, (now) => void times.push(now))
  const fiber = yield* Effect.forkChild(
    Effect.forEach(
      Array.from({ length: calls }),
      () => Effect.provideService(rateLimiter.withTokens(1)(note), RateLimiter.Priority, priority),
      { concurrency: "unbounded" },
    ),
    { startImmediately: true },
  )
  return { times, fiber }
})

describe("the rate limiter", () => {
  it.effect("allows one second's worth of calls at once, then its rate", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(10)
      const { times } = yield* pace(rateLimiter, 40)
      yield* TestClock.adjust(0)
      assert.strictEqual(times.length, 10)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(times.length, 20)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(times.length, 40)
    }),
  )

  it.effect("delays no call without a limit", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(Infinity)
      const { times } = yield* pace(rateLimiter, 5000)
      yield* TestClock.adjust(0)
      assert.strictEqual(times.length, 5000)
    }),
  )

  it.effect("lets a batch overdraw; later calls wait for the refill", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(10)
      yield* rateLimiter.withTokens(20)(Effect.void)
      const { times } = yield* pace(rateLimiter, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(times.length, 0)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(times.length, 1)
    }),
  )

  it.effect("starts live requests before earlier backfill requests", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(2)
      const history = yield* pace(rateLimiter, 20, "backfill")
      yield* TestClock.adjust("1 second")
      const before = history.times.length
      const heads = yield* pace(rateLimiter, 4)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(heads.times.length, 4)
      assert.strictEqual(history.times.length, before)
      yield* TestClock.adjust("1 second")
      assert.isAbove(history.times.length, before)
    }),
  )

  it.effect("reserves in-flight slots for live requests", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(Infinity)
      const answer = yield* Deferred.make<void>()
      let running = 0
      const ask = Effect.andThen(
        Effect.sync(() => void running++),
        Deferred.await(answer),
      )
      const many = (priority: RateLimiter.Priority) =>
        Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 100 }),
            () => Effect.provideService(rateLimiter.withTokens(1)(ask), RateLimiter.Priority, priority),
            { concurrency: "unbounded" },
          ),
          { startImmediately: true },
        )
      const history = yield* many("backfill")
      assert.strictEqual(running, 8)
      const heads = yield* many("live")
      assert.strictEqual(running, 32)
      yield* Deferred.succeed(answer, undefined)
      yield* Fiber.join(heads)
      yield* Fiber.join(history)
      assert.strictEqual(running, 200)
    }),
  )

  it.effect(
    "halves once per burst of throttled requests, and grows by one call per second each minute [G-070]",
    () =>
      Effect.gen(function* () {
        const rateLimiter = yield* RateLimiter.make(10)
        for (let i = 0; i < 5; i++) rateLimiter.throttled(undefined)
        assert.strictEqual(rateLimiter.rate(), 5)
        yield* TestClock.adjust("1 second")
        rateLimiter.throttled(undefined)
        assert.strictEqual(rateLimiter.rate(), 2.5)
        yield* TestClock.adjust("1 second")
        rateLimiter.throttled(undefined)
        yield* TestClock.adjust("1 second")
        rateLimiter.throttled(undefined)
        assert.strictEqual(rateLimiter.rate(), 1, "the rate never falls below one call per second")
        for (let minute = 1; minute <= 20; minute++) {
          yield* TestClock.adjust("1 minute")
          yield* rateLimiter.withTokens(1)(Effect.void)
          assert.strictEqual(rateLimiter.rate(), Math.min(1 + minute, 10))
        }
      }),
  )

  it.effect("halves the observed rate where there was no limit", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(Infinity)
      yield* pace(rateLimiter, 80)
      yield* TestClock.adjust(0)
      rateLimiter.throttled(undefined)
      assert.strictEqual(rateLimiter.rate(), 40)
    }),
  )

  it.effect("halves the observed rate at a second boundary", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(Infinity)
      yield* pace(rateLimiter, 80)
      yield* TestClock.adjust("1010 millis")
      yield* pace(rateLimiter, 1)
      yield* TestClock.adjust(0)
      rateLimiter.throttled(undefined)
      assert.strictEqual(rateLimiter.rate(), 40)
    }),
  )

  it.effect("never exceeds a limit below one, and halves once even without a requested delay", () =>
    Effect.gen(function* () {
      const low = yield* RateLimiter.make(0.5)
      low.throttled(undefined)
      assert.strictEqual(low.rate(), 0.5)
      const rateLimiter = yield* RateLimiter.make(32)
      for (let i = 0; i < 5; i++) rateLimiter.throttled(0)
      assert.strictEqual(rateLimiter.rate(), 16)
    }),
  )

  it.effect("pauses for the requested delay", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(10)
      rateLimiter.throttled(7000)
      const { times } = yield* pace(rateLimiter, 1)
      yield* TestClock.adjust(6999)
      assert.strictEqual(times.length, 0)
      yield* TestClock.adjust(1)
      assert.strictEqual(times.length, 1)
    }),
  )

  it.effect("releases the slot of an interrupted request", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(1)
      for (let i = 0; i < 100; i++) {
        const running = yield* Effect.forkChild(rateLimiter.withTokens(1)(Effect.never), {
          startImmediately: true,
        })
        const waiting = yield* Effect.forkChild(rateLimiter.withTokens(1)(Effect.never), {
          startImmediately: true,
        })
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(waiting)
        yield* Fiber.interrupt(running)
        yield* TestClock.adjust("1 second")
      }
      const { times } = yield* pace(rateLimiter, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(times.length, 1)
    }),
  )
})
