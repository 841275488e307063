/**
 * Short chaos on real processes: every fault once, as briefly as it still has an effect. The long form is `npm run chaos`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { run } from "../../chaos/FaultPlan.ts"
import type { Outcome } from "../../chaos/FaultPlan.ts"
import type { Fault } from "../../chaos/Fault.ts"
import { awayShortly } from "../../chaos/away.ts"
import * as Fleet from "../../chaos/fleet.ts"
import * as Isolation from "../../chaos/isolation.ts"
import { consumerFaults } from "../../chaos/consumers.ts"
import { hostFaults } from "../../chaos/host.ts"
import { anotherType, keysGone } from "../../chaos/keys.ts"
import { atRandom, kills } from "../../chaos/kills.ts"
import { tooLarge } from "../../chaos/limits.ts"
import { nodeLeg, redisLeg } from "../../chaos/network.ts"
import { live, redisFaults } from "../../chaos/redis.ts"
import { rightsTaken } from "../../chaos/rights.ts"
import { kinds } from "../../chaos/Cluster.ts"
import type { Kind, Cluster } from "../../chaos/Cluster.ts"
import { isClean, tableOf } from "../../chaos/table.ts"
import { three } from "../../chaos/three.ts"
import { chainId } from "../support/devnet.ts"
import { main as entry } from "../support/Service.ts"
import { olderFile } from "../../chaos/epochs.ts"

const seed = "short"

const withoutLogs = Effect.provide(Logger.layer([]))

const inflict = (kind: Kind, faults: ReadonlyArray<Fault>) =>
  Effect.suspend(() =>
    run({ kind, faults, entry, brief: true, seed, times: (fault) => (fault === atRandom ? 3 : 1) }),
  ).pipe(withoutLogs)

const assertClean = (outcomes: ReadonlyArray<Outcome>) =>
  assert.isTrue(outcomes.every(isClean), `\n${tableOf(outcomes)}`)

const test = (title: string, kind: Kind, faults: ReadonlyArray<Fault>) =>
  it.live(
    `${title}, with ${kind}`,
    () =>
      Effect.gen(function* () {
        const outcomes = yield* inflict(kind, faults)
        assertClean(outcomes)
        assert.deepStrictEqual(
          outcomes.map(({ fault, recoveries }) => [fault, recoveries.length > 0]),
          faults.map(({ name }) => [name, true]),
        )
      }),
    120_000,
  )

const half = Math.ceil(redisFaults.length / 2)

describe(
  "neither loses nor duplicates a log, never crashes, and does not leak memory",
  { concurrent: true },
  () => {
    // The longest tests first.
    test("under network faults to Redis", "redis", redisLeg)
    for (const kind of kinds) test("under network faults to the node", kind, nodeLeg)
    test("under faults of Redis (first half)", "redis", redisFaults.slice(0, half))
    test("under faults of Redis (second half)", "redis", redisFaults.slice(half))
    for (const kind of kinds) {
      test(
        "under kill -9 of the service",
        kind,
        kills.filter(({ stores }) => stores.includes(kind)),
      )
      test("with three instances", kind, [three])
      test(
        "with consumers",
        kind,
        consumerFaults.filter(({ stores }) => stores.includes(kind)),
      )
      test("under faults of the machine and the platform", kind, hostFaults)
      test(
        "under a store that is down or denies commands",
        kind,
        [...awayShortly, ...rightsTaken, tooLarge].filter(({ stores }) => stores.includes(kind)),
      )
      test(
        "under deletion of one chain's stored data",
        kind,
        [...keysGone, anotherType, olderFile].filter(({ stores }) => stores.includes(kind)),
      )
    }
  },
)

describe("the chaos test", () => {
  const fault = (name: string, inflict: Fault["inflict"]): Fault => ({
    name,
    stores: ["redis"],
    times: 1,
    inflict,
  })
  /** An entry so far below the head that no reorg of this test reaches it. */
  const beyondReorgs = (cluster: Cluster) =>
    Effect.gen(function* () {
      const { number } = yield* cluster.node.head
      return (yield* live(cluster)).find(({ entry }) => Number(entry.block_number) < number - 10)
    })
  const stream = `events:${chainId}`

  it.live(
    "detects a lost entry, a duplicate entry and a crashed process",
    () =>
      Effect.gen(function* () {
        const [lost, doubled, ended] = yield* inflict("redis", [
          fault("lost", (cluster) =>
            Effect.gen(function* () {
              const first = yield* Effect.repeat(beyondReorgs(cluster), {
                until: (found) => found !== undefined,
              })
              yield* Effect.promise(() => cluster.redis!.server.client.xdel(stream, first!.id))
            }),
          ),
          fault("doubled", (cluster) =>
            Effect.gen(function* () {
              const first = yield* Effect.repeat(beyondReorgs(cluster), {
                until: (found) => found !== undefined,
              })
              const fields = Object.entries(first!.entry).flat()
              yield* Effect.promise(() => cluster.redis!.server.client.xadd(stream, "*", ...fields))
            }),
          ),
          fault("ended", ({ ingestors: [ingestor] }) =>
            Effect.gen(function* () {
              ingestor!.process().kill("SIGTERM")
              yield* ingestor!.process().exit
              yield* ingestor!.start
            }),
          ),
        ])
        assert.deepInclude(lost, { lost: 1, doubled: 0, problems: [] })
        assert.strictEqual(doubled!.doubled, 1)
        assert.match(doubled!.problems.join(), /comes on top of block/)
        assert.match(ended!.problems.join(), /the service exited unexpectedly with 0/)
      }),
    60_000,
  )
})

describe("a fleet", () => {
  it.live(
    "follows each chain once after replicas and Redis failed in any order, and loses nothing",
    () =>
      Effect.map(
        Fleet.run({ entry, faults: 8, until: 0, seed, isAlone: false }).pipe(withoutLogs),
        (outcome) => {
          assertClean([outcome])
          assert.strictEqual(outcome.times, 8)
        },
      ),
    120_000,
  )
})

describe("a failing chain does not affect the others", () => {
  for (const kind of kinds) {
    it.live(
      `with ${kind}`,
      () =>
        Effect.map(Isolation.run({ kind, entry, brief: true, seed }).pipe(withoutLogs), (outcomes) => {
          assertClean(outcomes)
          assert.strictEqual(outcomes.length, Isolation.troubles.length)
        }),
      120_000,
    )
  }
})
