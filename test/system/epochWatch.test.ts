/** The model of epochs, by which the simulation judges, detects an epoch that is missing and one that is not due. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Epoch, Remembered } from "../support/copies.ts"
import { make } from "../support/epochWatch.ts"

/** An ingestor, and a store in which it has seen the entries of one epoch and then the loss of the last one. */
const afterLoss = Effect.gen(function* () {
  const stored: { epoch: Epoch; lost: ReadonlyArray<Remembered> } = {
    epoch: { token: "one", reason: "begun" },
    lost: [],
  }
  const watch = make({
    epoch: Effect.sync(() => stored.epoch),
    lacks: (entries) => Effect.sync(() => entries.filter((entry) => stored.lost.includes(entry))),
  })
  const process = { dead: false, stopping: false }
  const begin = (token: string) =>
    Effect.suspend(() => {
      stored.epoch = { token, reason: "lost" }
      return watch.look
    })
  const entry = (id: number): Remembered => ({ id: String(id), log: `log ${id}` })
  yield* watch.look
  yield* watch.asked(process, entry(1))
  const second = entry(2)
  watch.acknowledged(process, second)
  stored.lost = [second]
  yield* watch.replaced
  yield* begin("two")
  yield* watch.asked(process, entry(1))
  return { stored, watch, process, begin, entry }
})

describe("the model of epochs", () => {
  it.effect("expects one epoch after a loss", () =>
    Effect.gen(function* () {
      const { begin, watch } = yield* afterLoss
      assert.deepStrictEqual(yield* watch.verdict, [])
      yield* begin("three")
      assert.deepStrictEqual(yield* watch.verdict, [
        "an epoch began without a loss, or after the loss was reported",
      ])
    }),
  )

  /** The store returns to the first epoch, and answers a push from there before the ingestor checks the epoch. */
  const afterReturn = Effect.gen(function* () {
    const after = yield* afterLoss
    after.stored.epoch = { token: "one", reason: "begun" }
    yield* after.watch.replaced
    after.watch.acknowledged(after.process, after.entry(3))
    return after
  })

  it.effect("expects an epoch where the store returned to one before that of an ingestor", () =>
    Effect.gen(function* () {
      const { begin, entry, process, watch } = yield* afterReturn
      yield* begin("three")
      yield* watch.asked(process, entry(3))
      assert.deepStrictEqual(yield* watch.verdict, [])
    }),
  )

  it.effect("finds that none begins there", () =>
    Effect.gen(function* () {
      const { entry, process, watch } = yield* afterReturn
      assert.deepStrictEqual(yield* watch.verdict, ["epoch two was lost, and no epoch began"])
      yield* watch.asked(process, entry(3))
      assert.deepStrictEqual(yield* watch.verdict, ["epoch two was lost, and no epoch began"])
    }),
  )
})
