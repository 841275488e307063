import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import * as Repeats from "../src/Repeats.ts"

/** What is logged while an effect runs. */
const said = (effect: Effect.Effect<unknown>) =>
  Effect.gen(function* () {
    const lines: Array<unknown> = []
    const logger = Logger.make(({ message }) => void lines.push([message].flat()[0]))
    yield* Effect.provide(effect, Logger.layer([logger]))
    return lines
  })

describe("warnings", () => {
  it.effect("are said once, counted, and told when something else or nothing is wrong", () =>
    Effect.gen(function* () {
      const { over, warn } = Repeats.make()
      const lines = yield* said(
        Effect.gen(function* () {
          for (let i = 0; i < 5; i++) yield* warn("gone")
          yield* warn("refused")
          yield* over
          yield* warn("refused")
          yield* warn("refused")
          yield* over
          yield* over
        }),
      )
      assert.deepStrictEqual(lines, [
        "gone",
        "4 times more: gone",
        "refused",
        "refused",
        "1 times more: refused",
      ])
    }),
  )
})
