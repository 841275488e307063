/**
 * Chaos on real processes, the short form: every fault once, as short as it may be and still bite. The long form is
 * `npm run chaos`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { run } from "../../chaos/Campaign.ts"
import type { Fault, Outcome } from "../../chaos/Campaign.ts"
import { awayShortly } from "../../chaos/away.ts"
import * as Isolation from "../../chaos/isolation.ts"
import { hostFaults } from "../../chaos/host.ts"
import { anotherType, keysGone } from "../../chaos/keys.ts"
import { atRandom, kills } from "../../chaos/kills.ts"
import { tooLarge } from "../../chaos/limits.ts"
import { nodeLeg, redisLeg } from "../../chaos/network.ts"
import { live, redisFaults } from "../../chaos/redis.ts"
import { rightsTaken } from "../../chaos/rights.ts"
import { kinds } from "../../chaos/Rig.ts"
import type { Kind, Rig } from "../../chaos/Rig.ts"
import { isClean, tableOf } from "../../chaos/table.ts"
import { three } from "../../chaos/three.ts"
import { chainId } from "../support/devnet.ts"
import { main as entry } from "../support/Service.ts"
import { olderFile } from "../../chaos/epochs.ts"

const seed = "short"

const quiet = Effect.provide(Logger.layer([]))

const campaign = (kind: Kind, faults: ReadonlyArray<Fault>) =>
  Effect.suspend(() =>
    run({ kind, faults, entry, brief: true, seed, times: (fault) => (fault === atRandom ? 3 : 1) }),
  ).pipe(quiet)

const assertClean = (outcomes: ReadonlyArray<Outcome>) =>
  assert.isTrue(outcomes.every(isClean), `\n${tableOf(outcomes)}`)

const test = (title: string, kind: Kind, faults: ReadonlyArray<Fault>) =>
  it.live(
    `${title}, with ${kind}`,
    () =>
      Effect.gen(function* () {
        const outcomes = yield* campaign(kind, faults)
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
  "nothing is lost or doubled, no process ends by itself, and memory is flat",
  { concurrent: true },
  () => {
    // The longest first.
    test("the network to Redis", "redis", redisLeg)
    for (const kind of kinds) test("the network to the node", kind, nodeLeg)
    test("Redis in production, some of it", "redis", redisFaults.slice(0, half))
    test("Redis in production, the rest", "redis", redisFaults.slice(half))
    for (const kind of kinds) {
      test(
        "kill -9 of the service",
        kind,
        kills.filter(({ stores }) => stores.includes(kind)),
      )
      test("three services at once", kind, [three])
      test("the machine and the platform", kind, hostFaults)
      test(
        "the store away, or taking some commands only",
        kind,
        [...awayShortly, ...rightsTaken, tooLarge].filter(({ stores }) => stores.includes(kind)),
      )
      test(
        "what is stored of one chain taken away",
        kind,
        [...keysGone, anotherType, olderFile].filter(({ stores }) => stores.includes(kind)),
      )
    }
  },
)

describe("the chaos itself", () => {
  const fault = (name: string, inflict: Fault["inflict"]): Fault => ({
    name,
    stores: ["redis"],
    times: 1,
    inflict,
  })
  /** An entry so far below the head that no reorg here undoes it. */
  const beyondUndoing = (rig: Rig) =>
    Effect.gen(function* () {
      const { number } = yield* rig.node.head
      return (yield* live(rig)).find(({ entry }) => Number(entry.block_number) < number - 10)
    })
  const stream = `events:${chainId}`

  it.live(
    "sees an entry that is lost, one that is doubled, and a process that ends by itself",
    () =>
      Effect.gen(function* () {
        const [lost, doubled, ended] = yield* campaign("redis", [
          fault("lost", (rig) =>
            Effect.gen(function* () {
              const first = yield* Effect.repeat(beyondUndoing(rig), {
                until: (found) => found !== undefined,
              })
              yield* Effect.promise(() => rig.redis!.server.client.xdel(stream, first!.id))
            }),
          ),
          fault("doubled", (rig) =>
            Effect.gen(function* () {
              const first = yield* Effect.repeat(beyondUndoing(rig), {
                until: (found) => found !== undefined,
              })
              const fields = Object.entries(first!.entry).flat()
              yield* Effect.promise(() => rig.redis!.server.client.xadd(stream, "*", ...fields))
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
        assert.match(ended!.problems.join(), /the service ended by itself with 0/)
      }),
    60_000,
  )
})

describe("one chain in trouble is nothing to the others", () => {
  for (const kind of kinds) {
    it.live(
      `with ${kind}`,
      () =>
        Effect.map(Isolation.run({ kind, entry, brief: true, seed }).pipe(quiet), (outcomes) => {
          assertClean(outcomes)
          assert.strictEqual(outcomes.length, Isolation.troubles.length)
        }),
      120_000,
    )
  }
})
