import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as RateLimiter from "../../../src/endpoint/RateLimiter.ts"

/** Spends one call after another at once, and notes when each goes (virtual milliseconds). */
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

describe("a budget", () => {
  it.effect("lets a second's worth of calls through at once, and then no more than its rate", () =>
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

  it.effect("has no limit where there is none, and stands still for nobody", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(Infinity)
      const { times } = yield* pace(rateLimiter, 5000)
      yield* TestClock.adjust(0)
      assert.strictEqual(times.length, 5000)
    }),
  )

  it.effect("may be overdrawn by a batch, for which everybody then waits", () =>
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

  it.effect("lets heads go before history, whoever came first", () =>
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

  it.effect("keeps places for heads when history waits for its answers", () =>
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
    "is halved by a refusal, once for all that was sent together, and grows by one each quiet minute [G-070]",
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
        assert.strictEqual(rateLimiter.rate(), 1, "one call a second is always asked")
        for (let minute = 1; minute <= 20; minute++) {
          yield* TestClock.adjust("1 minute")
          yield* rateLimiter.withTokens(1)(Effect.void)
          assert.strictEqual(rateLimiter.rate(), Math.min(1 + minute, 10))
        }
      }),
  )

  it.effect("where there was no limit, half of what was asked in the last second", () =>
    Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(Infinity)
      yield* pace(rateLimiter, 80)
      yield* TestClock.adjust(0)
      rateLimiter.throttled(undefined)
      assert.strictEqual(rateLimiter.rate(), 40)
    }),
  )

  it.effect("also where that second has just begun", () =>
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

  it.effect("never asks more than its limit, however low, and halves once however little it is to wait", () =>
    Effect.gen(function* () {
      const low = yield* RateLimiter.make(0.5)
      low.throttled(undefined)
      assert.strictEqual(low.rate(), 0.5)
      const rateLimiter = yield* RateLimiter.make(32)
      for (let i = 0; i < 5; i++) rateLimiter.throttled(0)
      assert.strictEqual(rateLimiter.rate(), 16)
    }),
  )

  it.effect("pauses for as long as it is told to", () =>
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

  it.effect("forgets whoever gives up, waiting or on the way", () =>
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
