/**
 * No loss, no duplicates, and a replay that equals the canonical chain, under any faults in any order.
 *
 * A failing seed is printed with its shortest failing list of steps and the command that replays it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../src/Domain.ts"
import { provenBloom } from "../../src/logs/Bloom.ts"
import { allChecks, CurrentIntegrityChecks } from "../../src/logs/Integrity.ts"
import type { IntegrityChecks } from "../../src/logs/Integrity.ts"
import type { Position, Push } from "../../src/store/Journal.ts"
import { accelerated } from "../support/acceleratedClock.ts"
import { memory, redis } from "../support/copies.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import { limitsOf, Scenario } from "../support/actions.ts"
import type { Setting } from "../support/actions.ts"
import { complaint, simulate, withJitter } from "../support/simulation.ts"
import type { Outcome, Sabotage } from "../support/simulation.ts"
import { StoreError } from "../../src/store/StoreError.ts"

const seeds = Number(process.env["SIMULATION_SEEDS"] ?? 150)
const first = Number(process.env["SIMULATION_FIRST"] ?? 1)

const Scenarios = Arbitrary.schema(Scenario)

/** A long run ends after this many failures. */
const mostFailures = 5

const quiet = Logger.layer([])

/** The speed of the accelerated clock beside a real Redis, and the timeout of a call in that clock: five real seconds. */
const hurry = 20
const callTimeout = `${5 * hurry} seconds` as const

/** One run on a fresh store, with a clock of its own. */
const run = (scenario: Scenario, sabotage?: Sabotage): Effect.Effect<Outcome, unknown> =>
  Effect.gen(function* () {
    return yield* simulate(
      scenario,
      yield* memory(scenario.setting.keeps, limitsOf(scenario.setting)),
      sabotage,
    )
  }).pipe(Effect.scoped, withJitter, Effect.provide(Layer.fresh(Layer.merge(TestClock.layer(), quiet))))

/** The scenario of a seed. */
const scenarioOf = (seed: number) =>
  Effect.map(Arbitrary.sampleEffect(Scenarios, { count: 1, seed, size: 100 }), ([scenario]) => scenario!)

/** Why a run of this scenario fails, if it does. */
const fault = (scenario: Scenario, sabotage?: Sabotage) =>
  run(scenario, sabotage).pipe(
    Effect.map(complaint),
    // The store itself reports corruption when it is read.
    Effect.catchIf(
      (error) => error instanceof StoreError && error.reason === "corrupt",
      (error) => Effect.succeed(`1 faults: ${String(error)}`),
    ),
  )

/** Shrinks a failing scenario by removing ever shorter runs of steps. */
const shrink = Effect.fnUntraced(function* ({ setting, steps: failing }: Scenario, sabotage?: Sabotage) {
  let steps = failing
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < steps.length;) {
      const fewer = steps.toSpliced(at, size)
      if ((yield* fault({ setting, steps: fewer }, sabotage)) === undefined) at += size
      else steps = fewer
    }
  }
  return { setting, steps }
})

/** The failure of a seed, with the command that reproduces it. */
const check = Effect.fnUntraced(function* (seed: number, sabotage?: Sabotage) {
  const scenario = yield* scenarioOf(seed)
  if ((yield* fault(scenario, sabotage)) === undefined) return undefined
  const few = yield* shrink(scenario, sabotage)
  const wrong = yield* fault(few, sabotage)
  const lines = [
    `seed ${seed}: ${wrong}`,
    `replay: npm run simulate -- --first ${seed} --seeds 1`,
    JSON.stringify(few.setting),
    ...few.steps.map(({ action, pause }) => `  ${JSON.stringify(action)} then ${pause} ms`),
  ]
  return lines.join("\n")
})

// -- plausible bugs

/** Moves the head before the logs are appended: a failure in between loses them. */
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

/** Applies every move to the current head, whatever head it expects. */
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

/** Accepts every response as complete. */
const unchecked: IntegrityChecks = {
  ...allChecks,
  whole: () => undefined,
  block: () => () => undefined,
  range: () => () => undefined,
}

const zeroBloom: Hex = `0x${"0".repeat(512)}`

/** Accepts a zero bloom from any source as proof that there are no logs. */
const zerosProve: IntegrityChecks = {
  ...allChecks,
  bloom: (header, origins) => (header.logsBloom === zeroBloom ? zeroBloom : provenBloom(header, origins)),
}

/** Accepts an empty response under a filter. */
const emptyIsTrue: IntegrityChecks = { ...allChecks, empty: () => () => undefined }

/** Accepts the final block of the endpoint in use, without the others. */
const finalAlone: IntegrityChecks = { ...allChecks, final: () => ({ _tag: "Agreed", others: [] }) }

/** Ignores the digest of a partial block: any logs are accepted as its continuation. */
const withoutDigest: Sabotage = (store) => {
  const bare = <A extends { readonly digest?: string }>(of: A): A =>
    of.digest === undefined ? of : { ...of, digest: "any" }
  const move = <M extends { readonly expected: Position }>(to: M): M => ({
    ...to,
    expected: bare(to.expected),
  })
  return {
    ...store,
    push: (chain, filter, push) => {
      const [first, ...rest] = push.blocks
      return store.push(chain, filter, { ...move(push), blocks: [bare(first), ...rest.map(bare)] })
    },
    pop: (chain, filter, pop) => store.pop(chain, filter, move(pop)),
    finalize: (chain, filter, to) => store.finalize(chain, filter, move(to)),
  }
}

/** Never detects a loss: no epoch begins after the first. */
const epochless: Sabotage = (store) => ({
  ...store,
  checkEpoch: (chain) => store.checkEpoch(chain, undefined),
})

/** Begins an epoch whenever the journal is loaded, as after each conflict. */
const epochal: Sabotage = (store) => ({
  ...store,
  checkEpoch: (chain, known) =>
    store.checkEpoch(
      chain,
      known && { ...known, last: known.last && { ...known.last, identity: "another" } },
    ),
})

describe("the simulation", () => {
  it.live(
    `finds no fault with ${seeds} seeds in virtual time [G-203]`,
    () =>
      Effect.gen(function* () {
        const failed: Array<string> = []
        for (let seed = first; seed < first + seeds && failed.length < mostFailures; seed++) {
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
        const scenario = yield* scenarioOf(seed)
        assert.isAtLeast(scenario.steps.length, 60)
        const runs = [yield* run(scenario), yield* run(scenario)]
        assert.isAbove(runs[0]!.journal.length, 1000)
        assert.strictEqual(runs[0]!.journal, runs[1]!.journal)
      }
    }),
  )

  it.live(
    "finds no fault with 10 seeds on Redis, in real time",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        const seeds = Array.from({ length: 10 }, (_, i) => i + 1)
        const onRedis = Effect.fnUntraced(function* (seed: number) {
          const scenario = yield* scenarioOf(seed)
          const limits = limitsOf(scenario.setting)
          const store = yield* openRedis(standalone(server.port), `seed-${seed}`, 0, callTimeout, limits)
          const copied = redis(store, server.client, `seed-${seed}:1`)
          const wrong = complaint(yield* simulate(scenario, copied, undefined, Effect.sleep))
          if (wrong === undefined) return
          const again = `npm test -- test/system/simulation.test.ts -t "on Redis"`
          assert.fail(`seed ${seed}: ${wrong}\nagain, in real time: ${again}`)
        })
        yield* Effect.forEach(seeds, (seed) => Effect.scoped(onRedis(seed)), { concurrency: 10 })
      }).pipe(Effect.scoped, accelerated(hurry), Effect.provide(quiet)),
    120_000,
  )

  // Proves that the simulation can fail.
  const bugs: ReadonlyArray<readonly [string, Sabotage | undefined, IntegrityChecks, Partial<Setting>?]> = [
    ["a head that is moved before the logs", headFirst, allChecks],
    ["no comparison with the expected head", unconditional, allChecks, { logsPerCall: 1000, slowness: 0 }],
    ["no check that a response is complete", undefined, unchecked],
    ["a zero bloom that is accepted", undefined, zerosProve],
    ["an empty response under a filter that is accepted", undefined, emptyIsTrue, { filter: "all" }],
    [
      "a partial block that is completed without its digest",
      withoutDigest,
      allChecks,
      { filter: "all", logsPerCall: 2, slowness: 3, leavesOut: true },
    ],
    ["a loss after which no epoch begins", epochless, allChecks],
    ["an epoch that begins at each conflict", epochal, allChecks],
    ["a block that is finalized while endpoints disagree", undefined, finalAlone],
  ]
  /** The first seed that shows a loss, a duplicate or a fault: any test would find a service that only stalls. */
  const firstToShow = Effect.fnUntraced(function* (
    sabotage: Sabotage | undefined,
    checks: IntegrityChecks,
    setting: Partial<Setting> = {},
  ) {
    const tries = 60
    for (let seed = 1; seed <= tries; seed++) {
      const { steps, ...scenario } = yield* scenarioOf(seed)
      const run = fault({ setting: { ...scenario.setting, ...setting }, steps }, sabotage)
      const wrong = yield* Effect.provideService(run, CurrentIntegrityChecks, checks)
      if (wrong !== undefined && /[1-9]\d* (lost|doubled|faults)/.test(wrong)) return seed
    }
    return assert.fail(`not found by ${tries} seeds`)
  })

  for (const [bug, sabotage, checks, setting] of bugs) {
    it.live(
      `finds ${bug}`,
      ({ annotate }) =>
        Effect.gen(function* () {
          const seed = yield* firstToShow(sabotage, checks, setting)
          yield* Effect.promise(() => annotate(`found by seed ${seed}`))
        }),
      120_000,
    )
  }

  it.live("reports a failure with few steps and the command that replays it", () =>
    Effect.gen(function* () {
      const seed = yield* firstToShow(headFirst, allChecks)
      const [what, again, , ...steps] = (yield* check(seed, headFirst))!.split("\n")
      assert.match(what!, new RegExp(`^seed ${seed}: `))
      assert.strictEqual(again, `replay: npm run simulate -- --first ${seed} --seeds 1`)
      assert.isAtMost(steps.length, 10)
      assert.isTrue(steps.some((step) => step.includes("FailStore")))
    }),
  )
})
