/**
 * Loss = 0, duplicates = 0, replay = canonical chain, whatever happens and in whatever order.
 *
 * A failing seed is printed with its shortest failing list of steps and the command that replays it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Logger, Schema } from "effect"
import { TestClock } from "effect/testing"
import { strict, Verification } from "../src/feed/Verify.ts"
import type { Checks } from "../src/feed/Verify.ts"
import type { Push } from "../src/store/Journal.ts"
import { StoreError } from "../src/store/Store.ts"
import { hurried } from "./support/hurried.ts"
import { memoryStore } from "./support/ingestor.ts"
import * as RedisServer from "./support/RedisServer.ts"
import { openRedis, standalone } from "./support/redisStore.ts"
import { complaint, simulate, Step, withJitter } from "./support/simulation.ts"
import type { Outcome, Sabotage } from "./support/simulation.ts"

const seeds = Number(process.env["SIMULATION_SEEDS"] ?? 300)
const first = Number(process.env["SIMULATION_FIRST"] ?? 1)

const Steps = Arbitrary.schema(Schema.Array(Step).check(Schema.isMinLength(60), Schema.isMaxLength(80)))

/** A night does not end at its first failure, but after so many. */
const enough = 5

const quiet = Logger.layer([])

/** How fast time goes beside a real Redis, and what a call to it may take in that time: five real seconds. */
const hurry = 20
const patience = `${5 * hurry} seconds` as const

/** One run on a fresh store, with a clock of its own. */
const run = (steps: ReadonlyArray<Step>, sabotage?: Sabotage): Effect.Effect<Outcome, unknown> =>
  Effect.gen(function* () {
    return yield* simulate(steps, yield* memoryStore(), sabotage)
  }).pipe(Effect.scoped, withJitter, Effect.provide(Layer.fresh(Layer.merge(TestClock.layer(), quiet))))

/** The steps that a seed means. */
const stepsOf = (seed: number) =>
  Effect.map(Arbitrary.sampleEffect(Steps, { count: 1, seed, size: 100 }), ([steps]) => steps!)

/** What is wrong with these steps, if anything. */
const fault = (steps: ReadonlyArray<Step>, sabotage?: Sabotage) => Effect.map(run(steps, sabotage), complaint)

/** The same failure with as few steps as can be found by leaving out ever smaller runs of them. */
const shrink = Effect.fnUntraced(function* (failing: ReadonlyArray<Step>, sabotage?: Sabotage) {
  let steps = failing
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < steps.length;) {
      const fewer = steps.toSpliced(at, size)
      if ((yield* fault(fewer, sabotage)) === undefined) at += size
      else steps = fewer
    }
  }
  return steps
})

/** What is wrong with a seed, told so that it can be seen again. */
const check = Effect.fnUntraced(function* (seed: number, sabotage?: Sabotage) {
  const steps = yield* stepsOf(seed)
  if ((yield* fault(steps, sabotage)) === undefined) return undefined
  const few = yield* shrink(steps, sabotage)
  const wrong = yield* fault(few, sabotage)
  const lines = few.map(({ action, pause }) => `  ${JSON.stringify(action)} then ${pause} ms`)
  return `seed ${seed}: ${wrong}\nreplay: npm run simulate -- --first ${seed} --seeds 1\n${lines.join("\n")}`
})

// -- three plausible bugs

/** The head is moved first and the logs are appended after it: a failure in between leaves them out. */
const headFirst: Sabotage = (store, faults) => ({
  ...store,
  push: (chain, filter, push) =>
    Effect.suspend(() => {
      if (faults.failures === 0) return store.push(chain, filter, push)
      faults.failures = 0
      const bare = { ...push, blocks: push.blocks.map((block) => ({ ...block, logs: [] })) }
      return Effect.andThen(
        store.push(chain, filter, bare as unknown as Push),
        new StoreError({ operation: "push", reason: "unreachable", detail: "between head and logs" }),
      )
    }),
})

/** Every move is done to the head as it is, whatever head it was meant for. */
const unconditional: Sabotage = (store) => {
  const atHead =
    <M extends { readonly expected: object }, A>(
      move: (chain: number, filter: string, move: M) => Effect.Effect<A, StoreError>,
    ) =>
    (chain: number, filter: string, to: M) =>
      Effect.flatMap(store.load(chain), (journal) =>
        move(chain, filter, journal ? { ...to, expected: journal.head } : to),
      )
  return { ...store, push: atHead(store.push), pop: atHead(store.pop), finalize: atHead(store.finalize) }
}

/** Every answer is all of a block's logs. */
const believing: Checks = {
  whole: () => undefined,
  block: () => () => undefined,
  range: () => () => undefined,
}

describe("the simulation", () => {
  it.live(
    `holds for ${seeds} seeds in virtual time`,
    () =>
      Effect.gen(function* () {
        const failed: Array<string> = []
        for (let seed = first; seed < first + seeds && failed.length < enough; seed++) {
          const wrong = yield* check(seed)
          if (wrong !== undefined) failed.push(wrong)
        }
        if (failed.length > 0) assert.fail(failed.join("\n\n"))
      }),
    60_000 + seeds * 3_000,
  )

  it.live("gives the same journal for the same seed, byte for byte", () =>
    Effect.gen(function* () {
      for (const seed of [1, 2, 3, 4, 5]) {
        const steps = yield* stepsOf(seed)
        assert.isAtLeast(steps.length, 60)
        const runs = [yield* run(steps), yield* run(steps)]
        assert.isAbove(runs[0]!.journal.length, 1000)
        assert.strictEqual(runs[0]!.journal, runs[1]!.journal)
      }
    }),
  )

  it.live(
    "holds for 20 seeds on Redis, in real time",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        const seeds = Array.from({ length: 20 }, (_, i) => i + 1)
        const onRedis = Effect.fnUntraced(function* (seed: number) {
          const store = yield* openRedis(standalone(server.port), `seed-${seed}`, 0, patience)
          const wrong = complaint(yield* simulate(yield* stepsOf(seed), store, undefined, Effect.sleep))
          if (wrong === undefined) return
          const again = `npm test -- test/simulation.test.ts -t "on Redis"`
          assert.fail(`seed ${seed}: ${wrong}\nagain, in real time: ${again}`)
        })
        yield* Effect.forEach(seeds, (seed) => Effect.scoped(onRedis(seed)), { concurrency: 10 })
      }).pipe(Effect.scoped, hurried(hurry), Effect.provide(quiet)),
    120_000,
  )

  // Without this, nobody knows that it can fail.
  const bugs: ReadonlyArray<readonly [string, Sabotage | undefined, Checks]> = [
    ["a head that is moved before the logs", headFirst, strict],
    ["no comparison with the expected head", unconditional, strict],
    ["no check that an answer is complete", undefined, believing],
  ]
  /** The first seed that shows a loss, a double or a fault: a service that only stands still, any test would find. */
  const firstToShow = Effect.fnUntraced(function* (sabotage: Sabotage | undefined, checks: Checks) {
    const tries = 60
    for (let seed = 1; seed <= tries; seed++) {
      const wrong = yield* Effect.provideService(fault(yield* stepsOf(seed), sabotage), Verification, checks)
      if (wrong !== undefined && /[1-9]\d* (lost|doubled|faults)/.test(wrong)) return seed
    }
    return assert.fail(`not found by ${tries} seeds`)
  })

  for (const [bug, sabotage, checks] of bugs) {
    it.live(`finds ${bug}`, ({ annotate }) =>
      Effect.gen(function* () {
        const seed = yield* firstToShow(sabotage, checks)
        yield* Effect.promise(() => annotate(`found by seed ${seed}`))
      }),
    )
  }

  it.live("tells a failure in few steps, and the command that shows it again", () =>
    Effect.gen(function* () {
      const seed = yield* firstToShow(headFirst, strict)
      const [what, again, ...steps] = (yield* check(seed, headFirst))!.split("\n")
      assert.match(what!, new RegExp(`^seed ${seed}: `))
      assert.strictEqual(again, `replay: npm run simulate -- --first ${seed} --seeds 1`)
      assert.isAtMost(steps.length, 10)
      assert.isTrue(steps.some((step) => step.includes("FailStore")))
    }),
  )
})
