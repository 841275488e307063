/** Background fibers and their owner. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Logger, References } from "effect"
import * as Background from "../../src/Background.ts"

const broken = Effect.die(new Error("a bug"))

describe("a background fiber", () => {
  it.effect("fails its owner with its defect", () =>
    Effect.gen(function* () {
      const isReleased = yield* Deferred.make<void>()
      const owner = Effect.gen(function* () {
        yield* Effect.addFinalizer(() => Deferred.succeed(isReleased, undefined))
        yield* Background.forkScoped(Effect.andThen(Effect.yieldNow, broken))
        return yield* Effect.never
      })
      const defect = yield* Effect.catchDefect(Background.scoped(owner), Effect.succeed)
      assert.strictEqual(String(defect), "Error: a bug")
      yield* Deferred.await(isReleased)
    }),
  )

  it.effect("fails the innermost owner only", () =>
    Effect.gen(function* () {
      const inner = Background.scoped(Effect.andThen(Background.forkScoped(broken), Effect.never))
      const outer = Effect.catchDefect(inner, () => Effect.succeed("the inner owner failed"))
      assert.strictEqual(yield* Background.scoped(outer), "the inner owner failed")
    }),
  )

  it.effect("ends with its scope, which is no defect of the owner", () =>
    Effect.gen(function* () {
      const isInterrupted = yield* Deferred.make<void>()
      const waiting = Effect.onInterrupt(Effect.never, () => Deferred.succeed(isInterrupted, undefined))
      const owner = Effect.gen(function* () {
        yield* Effect.scoped(Effect.andThen(Background.forkScoped(waiting), Effect.yieldNow))
        yield* Deferred.await(isInterrupted)
        return "still running"
      })
      assert.strictEqual(yield* Background.scoped(owner), "still running")
    }),
  )

  it.effect("logs its defect if it has no owner", () => {
    const events: Array<unknown> = []
    const logger = Logger.make(({ fiber }) => {
      events.push(fiber.getRef(References.CurrentLogAnnotations)["event"])
    })
    return Effect.gen(function* () {
      yield* Effect.scoped(Effect.andThen(Background.forkScoped(broken), Effect.yieldNow))
      assert.deepStrictEqual(events, ["defect"])
    }).pipe(Effect.provide(Logger.layer([logger])))
  })
})
