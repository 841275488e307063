import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Monotonic from "../../../src/Monotonic.ts"
import { LogLimits } from "../../../src/observability/LogLimits.ts"

describe("a line that repeats", () => {
  it.effect("is let through once in its time, with the count of what was left out", () =>
    Effect.gen(function* () {
      const limits = new LogLimits()
      const take = (key: string) => Effect.map(Monotonic.millis, (now) => limits.take(key, 60, now)?.leftOut)
      assert.strictEqual(yield* take("gone"), 0)
      for (let i = 0; i < 4; i++) assert.isUndefined(yield* take("gone"))
      assert.strictEqual(yield* take("refused"), 0)
      yield* TestClock.adjust("59 seconds")
      assert.isUndefined(yield* take("gone"))
      yield* TestClock.adjust("1 second")
      yield* limits.flush
      assert.strictEqual(yield* take("gone"), 5)
      assert.isUndefined(yield* take("gone"))
    }),
  )

  it.effect("is said late where it is the last word, in the order in which they were left out", () =>
    Effect.gen(function* () {
      const limits = new LogLimits()
      const said: Array<string> = []
      const put = (text: string) =>
        Effect.flatMap(Monotonic.millis, (now) => {
          const say = (leftOut: number) => Effect.sync(() => void said.push(`${text} ${leftOut}`))
          const taken = limits.take(text, 10, now, say)
          return taken === undefined ? Effect.void : say(taken.leftOut)
        })
      for (let i = 0; i < 3; i++) yield* Effect.andThen(put("off"), put("on"))
      assert.deepStrictEqual(said, ["off 0", "on 0"])
      yield* Effect.andThen(TestClock.adjust("9 seconds"), limits.flush)
      assert.lengthOf(said, 2)
      yield* Effect.andThen(TestClock.adjust("1 second"), limits.flush)
      assert.deepStrictEqual(said.slice(2), ["off 1", "on 1"])
      yield* Effect.andThen(TestClock.adjust("20 seconds"), limits.flush)
      assert.lengthOf(said, 4)
    }),
  )
})
