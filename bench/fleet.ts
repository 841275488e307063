/**
 * The cost of a fleet: one to three replicas that share the same load, how long a chain is silent when its replica is killed or stops,
 * and what 500 chains on ten replicas cost Redis.
 */
import { Duration, Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { fileURLToPath } from "node:url"
import { keyPrefix, makeCall } from "../src/fleet/FleetScript.ts"
import { memberNamed, times } from "../src/fleet/Sharding.ts"
import { followedBy, longestSilence, shared, sharedEvenly, statusOf } from "../test/support/fleet.ts"
import { fetchFrom } from "../test/support/http.ts"
import * as RedisServer from "../test/support/RedisServer.ts"
import { standalone } from "../test/support/redisStore.ts"
import * as Service from "../test/support/Service.ts"
import { cpuSeconds, loadAverage, now, startProvider } from "./child.ts"
import type { Load } from "./provider.ts"
import { median } from "./statistics.ts"
import { redisCpuSeconds } from "./store.ts"
import { variables } from "./subjects/ours.ts"

const entry = fileURLToPath(new URL("../dist/start.cjs", import.meta.url))

/** Two blocks a second on each of eight chains. */
const blockTime = 500
const chainIds = Array.from({ length: 8 }, (_, i) => 900_001 + i)
/** Blocks a second of all chains. */
const blocksPerSecond = (chainIds.length * 1000) / blockTime
const load: Load = {
  chains: chainIds,
  shape: { logs: 20, bloom: true },
  history: 0,
  blocks: 2000,
  pace: blocksPerSecond,
}
const chains = chainIds.map((id) => ({ id, name: `bench-${id}` }))

export interface FleetCost {
  /** CPU of each replica, in percent of a core. */
  readonly cpu: ReadonlyArray<number>
  /** CPU of Redis, in percent of a core. */
  readonly redisCpu: number
  /** Requests to the provider per block. */
  readonly calls: number
  readonly loadAverage: number
}

/** Milliseconds, over several replicas that ended one after another. */
export interface Ending {
  readonly signal: "SIGKILL" | "SIGTERM"
  readonly rounds: number
  /** Until others follow the chains. */
  readonly taken: { readonly p50: number; readonly worst: number }
  /** The longest time between two stored blocks of a chain that moved. */
  readonly silent: { readonly p50: number; readonly worst: number }
  readonly loadAverage: number
}

export interface Fleet {
  readonly blockTime: number
  /** The same load on one replica, on two and on three. */
  readonly costs: ReadonlyArray<FleetCost>
  readonly endings: ReadonlyArray<Ending>
  /** CPU of Redis for 500 chains on ten replicas, in percent of a core. */
  readonly simulated: { readonly heartbeats: number; readonly withPolls: number }
}

interface Running {
  readonly server: RedisServer.RedisServer
  readonly start: Effect.Effect<Service.Process, never, Scope.Scope>
  readonly replicas: Array<Service.Process>
}

/** A fleet that follows all chains in even shares, under load. */
const running = Effect.fnUntraced(function* (count: number) {
  const server = yield* RedisServer.start()
  const provider = yield* startProvider(load)
  const env = { FLEET: "bench", LOG_LEVEL: "info" }
  const start = Service.start({
    entry,
    env: variables({ redisPort: server.port, providerPort: provider.port, chains: chainIds, env }),
  })
  const replicas = yield* Effect.replicateEffect(start, count)
  yield* sharedEvenly(replicas, chains)
  provider.order("go")
  // The compiler of Node is warm.
  yield* Effect.sleep("5 seconds")
  return { server, start, replicas } satisfies Running as Running
})

/** Requests to providers that a replica has made. */
const requests = (replica: Service.Process) =>
  Effect.gen(function* () {
    const { text } = yield* fetchFrom(yield* replica.port, "/metrics")
    const series = text.matchAll(/^event_ingestor_rpc_requests_total\{[^}]*\} (\d+)/gm)
    return [...series].reduce((sum, [, value]) => sum + Number(value), 0)
  })

const totals = ({ server, replicas }: Running) =>
  Effect.gen(function* () {
    const counts = yield* Effect.forEach(replicas, requests)
    return {
      at: now() / 1000,
      cpu: replicas.map(({ pid }) => cpuSeconds(pid)),
      redis: yield* Effect.promise(() => redisCpuSeconds(server.client)),
      requests: counts.reduce((sum, count) => sum + count, 0),
    }
  })

/** What the replicas, Redis and the provider have to do for the same load. */
const cost = (count: number, seconds: number) =>
  Effect.gen(function* () {
    const fleet = yield* running(count)
    const loadBefore = loadAverage()
    const before = yield* totals(fleet)
    yield* Effect.sleep(Duration.seconds(seconds))
    const after = yield* totals(fleet)
    const elapsed = after.at - before.at
    const percent = (from: number, to: number) => ((to - from) / elapsed) * 100
    return {
      cpu: after.cpu.map((cpu, i) => percent(before.cpu[i]!, cpu)),
      redisCpu: percent(before.redis, after.redis),
      calls: (after.requests - before.requests) / (elapsed * blocksPerSecond),
      loadAverage: loadBefore,
    } satisfies FleetCost
  }).pipe(Effect.scoped)

/** Milliseconds until the chains of a replica that ends are followed by others, and for which they were silent. */
const ending = (fleet: Running, signal: "SIGKILL" | "SIGTERM") =>
  Effect.gen(function* () {
    const loadBefore = loadAverage()
    const [replica, ...others] = fleet.replicas.splice(0)
    const moved = followedBy(yield* statusOf(replica!))
    const [since, begun] = [Date.now(), now()]
    replica!.kill(signal)
    yield* shared(others, chains)
    const taken = now() - begun
    // Until each chain has been written by the other.
    yield* Effect.sleep(Duration.millis(3 * blockTime))
    const silences = yield* Effect.forEach(
      chains.filter(({ name }) => moved.includes(name)),
      (chain) => longestSilence(fleet.server.client, chain, since),
    )
    fleet.replicas.push(...others, yield* fleet.start)
    yield* sharedEvenly(fleet.replicas, chains)
    return { taken, silences, loadBefore }
  })

/** Replicas of three that end one after another, each replaced by a new one. */
const endings = (signal: "SIGKILL" | "SIGTERM", rounds: number) =>
  Effect.gen(function* () {
    const fleet = yield* running(3)
    const all = yield* Effect.replicateEffect(ending(fleet, signal), rounds)
    const summary = (values: ReadonlyArray<number>) => ({ p50: median(values), worst: Math.max(...values) })
    return {
      signal,
      rounds,
      taken: summary(all.map(({ taken }) => taken)),
      silent: summary(all.flatMap(({ silences }) => silences)),
      loadAverage: median(all.map(({ loadBefore }) => loadBefore)),
    } satisfies Ending
  }).pipe(Effect.scoped)

/** How many replicas, and how many chains each of them holds. */
const simulated = { replicas: 10, held: 50 } as const

/** What Redis spends on replicas without real chains: on heartbeats, and also on who holds what, which they read for `/status`. */
const simulatedCost = (seconds: number) =>
  Effect.gen(function* () {
    const server = yield* RedisServer.start()
    const keys = keyPrefix("events", "bench", [])
    const ttl = String(Duration.toMillis(times.ttl))
    const calls = yield* Effect.replicateEffect(
      makeCall(standalone(server.port), keys, times.ttl),
      simulated.replicas,
    )
    const used = Effect.promise(() => redisCpuSeconds(server.client))
    const percent = Effect.gen(function* () {
      yield* Effect.sleep("2 seconds")
      const [at, before] = [now(), yield* used]
      yield* Effect.sleep(Duration.seconds(seconds))
      return (((yield* used) - before) / ((now() - at) / 1000)) * 100
    })
    for (const [i, call] of calls.entries()) {
      const { address, description } = memberNamed(`replica-${i}`)
      const shards = Array.from({ length: simulated.held }, (_, k) => `default:${i * simulated.held + k + 1}`)
      const hold = call("hold", "hold", ttl, address, description, ...shards)
      yield* Effect.forkScoped(Effect.repeat(hold, Schedule.fixed("500 millis")))
    }
    const heartbeats = yield* percent
    for (const call of calls) {
      const list = call("list", "list", "0", "", "")
      yield* Effect.forkScoped(Effect.repeat(list, Schedule.fixed("2 seconds")))
    }
    return { heartbeats, withPolls: yield* percent }
  }).pipe(Effect.scoped)

export const fleet = (seconds: number, rounds: number): Effect.Effect<Fleet> =>
  Effect.gen(function* () {
    return {
      blockTime,
      costs: yield* Effect.forEach([1, 2, 3], (count) => cost(count, seconds)),
      endings: yield* Effect.forEach(["SIGKILL", "SIGTERM"] as const, (signal) => endings(signal, rounds)),
      simulated: yield* simulatedCost(seconds),
    }
  }).pipe(Effect.orDie)
