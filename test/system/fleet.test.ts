/**
 * A fleet of real replicas on real chains and a real Redis. Bounds are three times those that `npm run bench` shows on a quiet machine:
 * here, other tests share the two cores.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { fetchFrom } from "../support/http.ts"
import type { Client } from "../support/ingestor.ts"
import {
  assertComplete,
  environment,
  followedBy,
  seriesOf,
  shared,
  sharedEvenly,
  startChains,
  statusOf,
  whileMining,
} from "../support/fleet.ts"
import type { FleetChain, ReplicaStatus } from "../support/fleet.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"

interface Setting {
  readonly chains: ReadonlyArray<FleetChain>
  readonly server: RedisServer.RedisServer
  readonly store: Client
  readonly start: Effect.Effect<Service.Process, never, Scope.Scope>
}

const test = (
  title: string,
  chains: number,
  body: (setting: Setting) => Effect.Effect<unknown, unknown, Scope.Scope>,
) =>
  it.live(
    title,
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        const all = yield* startChains(chains)
        const store = yield* openRedis(standalone(server.port))
        const start = Service.start({
          env: environment(all, { REDIS_URL: server.url, STALL_TIMEOUT: "60s" }),
        })
        yield* body({ chains: all, server, store, start })
      }).pipe(Effect.scoped),
    120_000,
  )

const milliseconds = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const since = performance.now()
    return Effect.map(effect, () => performance.now() - since)
  })

/** How often a replica began to follow a chain. */
const starts = (replica: Service.Process) => replica.output().split('"event":"followed_here"').length - 1

const isMember = (replica: Service.Process) =>
  Effect.repeat(statusOf(replica), {
    until: ({ fleet }) => fleet.is_member,
    schedule: Schedule.spaced("50 millis"),
  })

describe("a fleet", { concurrent: false }, () => {
  test(
    "shares eight chains evenly, and takes over those of a replica that is killed, stops, or joins",
    8,
    (setting) =>
      Effect.gen(function* () {
        const { chains, store, start } = setting
        const [one, two, three] = yield* Effect.all([start, start, start], { concurrency: 3 })
        yield* sharedEvenly([one, two, three], chains)
        const replicas = yield* Effect.forEach([one, two, three], (replica) => isMember(replica))
        assert.strictEqual(new Set(replicas.map(({ fleet }) => fleet.replica)).size, 3)

        yield* whileMining(
          chains,
          Effect.gen(function* () {
            one.kill("SIGKILL")
            const taken = yield* milliseconds(shared([two, three], chains))
            assert.isBelow(taken, 18_000)
            yield* sharedEvenly([two, three], chains)

            const four = yield* start
            yield* sharedEvenly([two, three, four], chains)

            two.kill("SIGTERM")
            const stopped = yield* milliseconds(two.exit)
            assert.strictEqual(yield* two.exit, 0)
            assert.isBelow(stopped, 18_000)
            yield* shared([three, four], chains)
          }),
        )
        yield* assertComplete(store, chains)
      }),
  )

  test(
    "moves, stops and reconnects no chain while Redis is frozen, and replaces a replica that is frozen",
    4,
    (setting) =>
      Effect.gen(function* () {
        const { chains, server, store, start } = setting
        const [one, two] = yield* Effect.all([start, start], { concurrency: 2 })
        yield* shared([one, two], chains)
        const begun = () => [starts(one), starts(two)]
        const before = begun()
        const connects = Effect.forEach([one, two], (replica) =>
          Effect.map(statusOf(replica), ({ chains, fleet }) => {
            const own = chains.filter(({ replica }) => replica === fleet.replica)
            return own.map(({ endpoints }) => endpoints.map(({ connects }) => connects))
          }),
        )
        const connected = yield* connects

        yield* whileMining(
          chains,
          Effect.gen(function* () {
            server.kill("SIGSTOP")
            const notReady = Effect.flatMap(one.port, (port) => fetchFrom(port, "/ready?scope=process"))
            const { text } = yield* Effect.repeat(notReady, {
              until: ({ status }) => status === 503,
              schedule: Schedule.spaced("100 millis"),
            })
            assert.match(text, /no member of the fleet test/)
            // Longer than a silent replica is taken for present.
            yield* Effect.sleep("8 seconds")
            server.kill("SIGCONT")
            yield* isMember(one)
            yield* isMember(two)
          }),
        )
        yield* assertComplete(store, chains)
        assert.deepStrictEqual([begun(), yield* connects], [before, connected])

        yield* whileMining(
          chains,
          Effect.gen(function* () {
            one.kill("SIGSTOP")
            yield* shared([two], chains)
            one.kill("SIGCONT")
            yield* sharedEvenly([one, two], chains)
          }),
        )
        yield* assertComplete(store, chains)
      }),
  )

  test("has series and readiness of a chain only where it is followed", 2, (setting) =>
    Effect.gen(function* () {
      const { chains, start } = setting
      const [one, two] = yield* Effect.all([start, start], { concurrency: 2 })
      yield* sharedEvenly([one, two], chains)
      const share = followedBy(yield* statusOf(one))
      assert.lengthOf(share, 1)
      const elsewhere = chains.find(({ name }) => !share.includes(name))!.name
      for (const metric of ["chain_head_block", "circuit_breaker_state", "endpoint_circuit_breaker_state"])
        assert.deepStrictEqual([...(yield* seriesOf(one, metric)).keys()], share)
      const followed = yield* seriesOf(one, "chain_followed")
      for (const { name } of chains) assert.strictEqual(followed.get(name), share.includes(name) ? 1 : 0)
      const { text } = yield* Effect.flatMap(one.port, (port) => fetchFrom(port, "/metrics"))
      assert.match(text, /^event_ingestor_fleet_members\{fleet="test"[^}]*\} 2$/m)

      const isReady = (path: string) =>
        Effect.flatMap(one.port, (port) => fetchFrom(port, path)).pipe(
          Effect.repeat({ until: ({ status }) => status === 200, schedule: Schedule.spaced("100 millis") }),
        )
      yield* isReady("/ready?scope=process")
      assert.deepStrictEqual(Object.keys(JSON.parse((yield* isReady("/ready")).text).chains), share)
      yield* isReady(`/ready?chain=${elsewhere}`)
      const { fleet } = yield* Effect.repeat(statusOf(one), {
        until: ({ fleet }) => Object.keys(fleet.chains).length === chains.length,
        schedule: Schedule.spaced("100 millis"),
      })
      assert.strictEqual(fleet.chains[share[0]!], fleet.replica)
      assert.strictEqual(fleet.chains[elsewhere], (yield* statusOf(two)).fleet.replica)
    }),
  )

  test(
    "shows the whole fleet in the status of each replica, and none of it that is older than ten seconds",
    2,
    (setting) =>
      Effect.gen(function* () {
        const { chains, server, start } = setting
        const [one, two] = yield* Effect.all([start, start], { concurrency: 2 })
        yield* sharedEvenly([one, two], chains)
        const own = followedBy(yield* statusOf(one))
        const other = chains.find(({ name }) => !own.includes(name))!
        const { fleet } = yield* statusOf(two)
        const showsOther = (isShown: (chain: ReplicaStatus["chains"][number]) => boolean) =>
          Effect.repeat(statusOf(one), {
            until: ({ chains }) => chains.some((chain) => chain.name === other.name && isShown(chain)),
            schedule: Schedule.spaced("100 millis"),
          })
        yield* other.block(2, 1)
        const { number } = yield* other.head
        const shown = yield* showsOther(({ stored }) => stored === number)
        const chain = shown.chains.find(({ name }) => name === other.name)!
        assert.deepInclude(chain, { replica: fleet.replica, phase: "live", ready: true, reasons: [] })
        assert.strictEqual(chain.endpoints[0]!.connects, 1)
        assert.deepStrictEqual(shown.fleet.members, fleet.members)

        server.kill("SIGSTOP")
        const answered = yield* milliseconds(statusOf(one))
        assert.isBelow(answered, 2_500, "a silent Redis does not delay it")
        const silent = yield* showsOther(({ phase }) => phase === "elsewhere")
        assert.isFalse(silent.fleet.is_member)
        server.kill("SIGCONT")
        yield* showsOther(({ phase }) => phase === "live")

        two.kill("SIGKILL")
        yield* shared([one], chains)
      }),
  )
})
