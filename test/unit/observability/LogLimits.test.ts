import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Monotonic from "../../../src/Monotonic.ts"
import { LogLimits } from "../../../src/observability/LogLimits.ts"

describe("a repeated log line", () => {
  it.effect("is written once per interval, with the number of suppressed lines", () =>
    Effect.gen(function* () {
      const limits = new LogLimits()
      const admit = (key: string) =>
        Effect.map(Monotonic.millis, (now) => limits.admit(key, 60, now)?.leftOut)
      assert.strictEqual(yield* admit("gone"), 0)
      for (let i = 0; i < 4; i++) assert.isUndefined(yield* admit("gone"))
      assert.strictEqual(yield* admit("refused"), 0)
      yield* TestClock.adjust("59 seconds")
      assert.isUndefined(yield* admit("gone"))
      yield* TestClock.adjust("1 second")
      yield* limits.flush
      assert.strictEqual(yield* admit("gone"), 5)
      assert.isUndefined(yield* admit("gone"))
    }),
  )

  it.effect("is written when the interval ends if it is the latest, in the order of suppression", () =>
    Effect.gen(function* () {
      const limits = new LogLimits()
      const written: Array<string> = []
      const put = (text: string) =>
        Effect.flatMap(Monotonic.millis, (now) => {
          const write = (leftOut: number) => Effect.sync(() => void written.push(`${text} ${leftOut}`))
          const admitted = limits.admit(text, 10, now, write)
          return admitted === undefined ? Effect.void : write(admitted.leftOut)
        })
      for (let i = 0; i < 3; i++) yield* Effect.andThen(put("off"), put("on"))
      assert.deepStrictEqual(written, ["off 0", "on 0"])
      yield* Effect.andThen(TestClock.adjust("9 seconds"), limits.flush)
      assert.lengthOf(written, 2)
      yield* Effect.andThen(TestClock.adjust("1 second"), limits.flush)
      assert.deepStrictEqual(written.slice(2), ["off 1", "on 1"])
      yield* Effect.andThen(TestClock.adjust("20 seconds"), limits.flush)
      assert.lengthOf(written, 4)
    }),
  )
})
