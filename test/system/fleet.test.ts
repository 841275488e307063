/**
 * A fleet of real replicas on real chains and a real Redis. Bounds are three times those that `npm run bench` shows on a quiet machine:
 * here, other tests share the two cores.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { observed } from "../../chaos/memory.ts"
import { directory } from "../support/directory.ts"
import { fetchFrom } from "../support/http.ts"
import type { Client } from "../support/ingestor.ts"
import {
  assertComplete,
  environment,
  followedBy,
  longestSilence,
  seriesOf,
  shared,
  sharedEvenly,
  startChains,
  statusOf,
  untilMined,
  untilStored,
  whileMining,
} from "../support/fleet.ts"
import type { FleetChain, ReplicaStatus } from "../support/fleet.ts"
import * as RedisCluster from "../support/RedisCluster.ts"
import * as RedisSentinel from "../support/RedisSentinel.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as RpcProxy from "../support/RpcProxy.ts"
import * as Service from "../support/Service.ts"
import * as TcpProxy from "../support/TcpProxy.ts"

interface Setting {
  readonly chains: ReadonlyArray<FleetChain>
  readonly server: RedisServer.RedisServer
  readonly store: Client
  readonly start: Effect.Effect<Service.Process, never, Scope.Scope>
  readonly startWith: (
    variables: Readonly<Record<string, string>>,
  ) => Effect.Effect<Service.Process, never, Scope.Scope>
}

/** A replica that is killed or cut off is replaced within this time (milliseconds). */
const longestTakeOver = 18_000
/** A chain that moves from a replica that is present is silent for no longer than this, whatever the block time. */
const longestHandover = 3000
/** A replica without others does not wait when it stops. */
const longestLoneStop = 3000

const test = (
  title: string,
  chains: number,
  body: (setting: Setting) => Effect.Effect<unknown, unknown, Scope.Scope>,
) =>
  it.live(
    title,
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start(["--appendonly", "yes"])
        const all = yield* startChains(chains)
        const store = yield* openRedis(standalone(server.port))
        const startWith = (variables: Readonly<Record<string, string>>) =>
          Service.start({
            env: environment(all, { REDIS_URL: server.url, STALL_TIMEOUT: "60s", ...variables }),
          })
        yield* body({ chains: all, server, store, start: startWith({}), startWith })
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

/** How often each replica has connected to the endpoints of each chain that it follows. */
const connects = (replicas: ReadonlyArray<Service.Process>) =>
  Effect.forEach(replicas, (replica) =>
    Effect.map(statusOf(replica), (status) => {
      const own = followedBy(status)
      const chains = status.chains.filter(({ name }) => own.includes(name))
      return chains.map(({ name, endpoints }) => [name, ...endpoints.map(({ connects }) => connects)])
    }),
  )

/** Asserts that these chains, or all, have been written all the time, by whichever replica. */
const noSilence = ({ server, chains }: Setting, since: number, names?: ReadonlyArray<string>) =>
  Effect.forEach(
    chains.filter(({ name }) => names?.includes(name) ?? true),
    (chain) =>
      Effect.map(longestSilence(server.client, chain, since), (silence) =>
        assert.isBelow(silence, longestHandover, chain.name),
      ),
    { discard: true },
  )

/** Waits until the replicas share the chains evenly. Meanwhile blocks end the overlaps of chains that move. */
const dealt = (replicas: ReadonlyArray<Service.Process>, chains: ReadonlyArray<FleetChain>) =>
  whileMining(chains, sharedEvenly(replicas, chains))

const isMember = (replica: Service.Process) =>
  Effect.repeat(statusOf(replica), {
    until: ({ fleet }) => fleet.is_member,
    schedule: Schedule.spaced("50 millis"),
  })

/** Waits until a replica says that it is no member: it has not been present for Redis for longer than that counts. */
const noMember = (replica: Service.Process) =>
  Effect.gen(function* () {
    const { text } = yield* Effect.repeat(fetchFrom(yield* replica.port, "/ready?scope=process"), {
      until: ({ status }) => status === 503,
      schedule: Schedule.spaced("100 millis"),
    })
    assert.match(text, /no member of the fleet test/)
  })

describe("a fleet", { concurrent: false }, () => {
  test(
    "shares eight chains evenly, and takes over those of a replica that is killed, stops, or joins",
    8,
    (setting) =>
      Effect.gen(function* () {
        const { chains, store, start } = setting
        const [one, two, three] = yield* Effect.all([start, start, start], { concurrency: 3 })
        yield* dealt([one, two, three], chains)
        const replicas = yield* Effect.forEach([one, two, three], (replica) => isMember(replica))
        assert.strictEqual(new Set(replicas.map(({ fleet }) => fleet.replica)).size, 3)

        yield* whileMining(
          chains,
          Effect.gen(function* () {
            one.kill("SIGKILL")
            const taken = yield* milliseconds(shared([two, three], chains))
            assert.isBelow(taken, longestTakeOver)
            yield* sharedEvenly([two, three], chains)

            const four = yield* start
            yield* sharedEvenly([two, three, four], chains)

            const since = Date.now()
            const moved = followedBy(yield* statusOf(two))
            two.kill("SIGTERM")
            const stopped = yield* milliseconds(two.exit)
            assert.strictEqual(yield* two.exit, 0)
            assert.isBelow(stopped, longestTakeOver)
            yield* shared([three, four], chains)
            yield* untilMined(chains, 3)
            yield* noSilence(setting, since, moved)
          }),
        )
        yield* assertComplete(store, chains)
      }),
  )

  test(
    "moves, stops and reconnects no chain while Redis is frozen or restarted, and replaces a replica that is frozen",
    4,
    (setting) =>
      Effect.gen(function* () {
        const { chains, server, store, start } = setting
        const [one, two] = yield* Effect.all([start, start], { concurrency: 2 })
        yield* dealt([one, two], chains)
        const begun = () => [starts(one), starts(two)]
        const before = begun()
        const connected = yield* connects([one, two])

        const outages = [
          [() => server.kill("SIGSTOP"), Effect.sync(() => server.kill("SIGCONT"))],
          [() => server.kill("SIGKILL"), server.restart],
        ] as const
        for (const [begin, end] of outages) {
          yield* whileMining(
            chains,
            Effect.gen(function* () {
              begin()
              yield* noMember(one)
              yield* noMember(two)
              yield* end
              yield* isMember(one)
              yield* isMember(two)
            }),
          )
          yield* assertComplete(store, chains)
          assert.deepStrictEqual([begun(), yield* connects([one, two])], [before, connected])
        }

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

  test(
    "replaces a replica that is cut off from Redis, whatever time the replicas believe it is",
    4,
    (setting) =>
      Effect.gen(function* () {
        const { chains, server, store, startWith } = setting
        const proxy = yield* TcpProxy.start(server.port)
        const place = yield* directory
        const startAt = (name: string, hours: number, variables: Readonly<Record<string, string>>) => {
          const file = join(place, name)
          writeFileSync(file, `0 ${hours * 3_600_000}`)
          return startWith({ ...observed, CLOCK_FILE: file, ...variables })
        }
        const [one, two, three] = yield* Effect.all(
          [
            startAt("one", 1, {}),
            startAt("two", -1, {}),
            startAt("three", 0, { REDIS_URL: `redis://127.0.0.1:${proxy.port}` }),
          ],
          { concurrency: 3 },
        )
        yield* dealt([one, two, three], chains)
        yield* whileMining(
          chains,
          Effect.gen(function* () {
            proxy.refuse(true)
            proxy.reset()
            const taken = yield* milliseconds(shared([one, two], chains))
            assert.isBelow(taken, longestTakeOver)
            yield* noMember(three)
            yield* untilMined(chains, 1)
            const since = Date.now()
            proxy.refuse(false)
            yield* sharedEvenly([one, two, three], chains)
            yield* untilMined(chains, 3)
            yield* noSilence(setting, since)

            one.kill("SIGKILL")
            const again = yield* milliseconds(shared([two, three], chains))
            assert.isBelow(again, longestTakeOver)
          }),
        )
        yield* assertComplete(store, chains)
      }),
  )

  test(
    "leaves no gap where another fleet follows the same chains, and one of the two is killed",
    2,
    (setting) =>
      Effect.gen(function* () {
        const { chains, store, startWith } = setting
        const [a, b] = yield* Effect.all([startWith({ FLEET: "a" }), startWith({ FLEET: "b" })], {
          concurrency: 2,
        })
        yield* shared([a], chains)
        yield* shared([b], chains)
        yield* whileMining(
          chains,
          Effect.gen(function* () {
            yield* untilMined(chains, 3)
            const since = Date.now()
            a.kill("SIGKILL")
            yield* untilMined(chains, 5)
            yield* noSilence(setting, since)
          }),
        )
        yield* assertComplete(store, chains)

        b.kill("SIGTERM")
        const stopped = yield* milliseconds(b.exit)
        assert.strictEqual(yield* b.exit, 0)
        assert.isBelow(stopped, longestLoneStop)
      }),
  )

  test("moves no chain when Sentinel promotes a replica of Redis, and goes on there", 2, (setting) =>
    Effect.gen(function* () {
      const { chains, server, startWith } = setting
      const { port, replica, knowsReplica } = yield* RedisSentinel.start(server)
      const start = startWith({
        REDIS_URL: `redis://127.0.0.1:${port}`,
        REDIS_SENTINEL_MASTER: RedisSentinel.name,
      })
      const [one, two] = yield* Effect.all([start, start], { concurrency: 2 })
      yield* dealt([one, two], chains)
      yield* knowsReplica
      const begun = [starts(one), starts(two)]
      const store = yield* openRedis(standalone(replica.port))
      yield* whileMining(
        chains,
        Effect.gen(function* () {
          server.kill("SIGKILL")
          yield* Effect.repeat(
            Effect.promise(() => replica.client.role()),
            { until: ([role]) => role === "master", schedule: Schedule.spaced("100 millis") },
          )
          yield* untilMined(chains, 3)
        }),
      )
      yield* assertComplete(store, chains)
      yield* Effect.forEach([one, two], isMember)
      assert.deepStrictEqual([starts(one), starts(two)], begun)
    }),
  )

  test(
    "moves, stops and reconnects no chain when a Redis Cluster promotes replicas, asked to or because a master fails",
    4,
    ({ chains, startWith }) =>
      Effect.gen(function* () {
        const cluster = yield* RedisCluster.start
        const start = startWith({ REDIS_URL: cluster.url, REDIS_CLUSTER: "true" })
        const replicas = yield* Effect.all([start, start, start], { concurrency: 3 })
        yield* dealt(replicas, chains)
        const before = [replicas.map(starts), yield* connects(replicas)]
        const { master, keys } = yield* cluster.holderOf(/:fleet:/)
        assert.isTrue(
          chains.some(({ id }) => keys.includes(`events:${id}`)),
          "it holds a journal too",
        )
        const replica = yield* cluster.replicaOf(master)
        const failovers = [
          Effect.gen(function* () {
            yield* Effect.promise(() => replica.client.call("CLUSTER", "FAILOVER"))
            yield* RedisCluster.promoted(replica)
            yield* RedisCluster.replicates(master)
          }),
          Effect.gen(function* () {
            replica.kill("SIGKILL")
            yield* RedisCluster.promoted(master)
          }),
        ]
        const store = yield* openRedis(cluster.config)
        for (const failover of failovers) {
          yield* whileMining(chains, Effect.andThen(failover, untilMined(chains, 3)))
          yield* assertComplete(store, chains)
          yield* Effect.forEach(replicas, isMember)
          assert.deepStrictEqual([replicas.map(starts), yield* connects(replicas)], before)
        }
      }),
  )

  test("keeps its members, lets others join and stop, at the memory limit of Redis", 4, (setting) =>
    Effect.gen(function* () {
      const { chains, server, store, start } = setting
      const limit = (bytes: number) => Effect.promise(() => server.client.config("SET", "maxmemory", bytes))
      const [one, two] = yield* Effect.all([start, start], { concurrency: 2 })
      yield* dealt([one, two], chains)
      yield* limit(1)
      yield* whileMining(
        chains,
        Effect.gen(function* () {
          const three = yield* start
          yield* sharedEvenly([one, two, three], chains)
          one.kill("SIGTERM")
          assert.strictEqual(yield* one.exit, 0)
          yield* sharedEvenly([two, three], chains)
          assert.isTrue((yield* statusOf(two)).fleet.is_member)
          yield* limit(0)
        }),
      )
      yield* assertComplete(store, chains)
    }),
  )

  test("makes the calls to providers that one process makes for the same blocks", 3, (setting) =>
    Effect.gen(function* () {
      const { chains, server, store, startWith } = setting
      const proxied = Effect.forEach(chains, ({ anvil }) => RpcProxy.start(anvil.url, {}))
      const [ofFleet, ofOne] = [yield* proxied, yield* proxied]
      const through = (proxies: ReadonlyArray<RpcProxy.RpcProxy>) =>
        Object.fromEntries(proxies.map(({ url }, i) => [`CHAIN_${i}_WS_URL`, url]))
      const replica = startWith(through(ofFleet))
      const one = startWith({ ...through(ofOne), FLEET: "", STREAM_PREFIX: "alone" })
      const [, ...replicas] = yield* Effect.all([one, replica, replica, replica], { concurrency: 4 })
      yield* dealt(replicas, chains)
      const ownStore = yield* openRedis(standalone(server.port), "alone")
      const stored = Effect.forEach([store, ownStore], (store) => untilStored(store, chains))
      yield* stored
      const total = (counts: ReadonlyArray<number>) => counts.reduce((sum, count) => sum + count, 0)
      const calls = () =>
        [ofFleet, ofOne].map((proxies) => total(proxies.flatMap(({ requests }) => [...requests.values()])))
      const before = calls()
      yield* whileMining(chains, untilMined(chains, 20))
      yield* stored
      const [fleet, single] = calls().map((count, i) => count - before[i]!)
      // `npm run bench -- --only fleet` shows 10 %: here, a busy machine merges heads.
      assert.approximately(fleet! / single!, 1, 0.25, `${fleet} and ${single} calls`)
    }),
  )

  test("has series and readiness of a chain only where it is followed", 2, (setting) =>
    Effect.gen(function* () {
      const { chains, start } = setting
      const [one, two] = yield* Effect.all([start, start], { concurrency: 2 })
      yield* dealt([one, two], chains)
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
      // Who follows what is read every two seconds.
      const other = (yield* statusOf(two)).fleet.replica
      yield* Effect.repeat(statusOf(one), {
        until: ({ fleet: { chains, replica } }) =>
          chains[share[0]!] === replica && chains[elsewhere] === other,
        schedule: Schedule.spaced("100 millis"),
      })
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
