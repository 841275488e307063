/**
 * The chains of a fleet, dealt out by Effect's cluster: each chain is a singleton on a shard of its own. The replicas meet in Redis
 * (FleetStorage.ts); none listens, and they do not talk to each other.
 *
 * Make before break: a replica that gives a chain away follows it until another one writes it. The store allows two writers.
 */
import { Context, Duration, Effect, FiberMap, Layer, Option, Schedule, Scope } from "effect"
import * as EntityId from "effect/cluster/EntityId"
import * as MessageStorage from "effect/cluster/MessageStorage"
import { Runner } from "effect/cluster/Runner"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as RunnerHealth from "effect/cluster/RunnerHealth"
import type * as RunnerStorage from "effect/cluster/RunnerStorage"
import * as Runners from "effect/cluster/Runners"
import * as Sharding from "effect/cluster/Sharding"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as HashRing from "effect/HashRing"
import * as Background from "../Background.ts"
import type { Share } from "./Fleet.ts"
import type { Member } from "./FleetStorage.ts"

/** The times of a fleet. */
export interface Times {
  /** A replica that is silent for this long is gone, and its chains are given to others. */
  readonly ttl: Duration.Duration
  /** How long a chain that was given away is followed at most, until another replica writes it. */
  readonly overlap: Duration.Duration
}

export const times: Times = { ttl: Duration.seconds(4), overlap: Duration.seconds(5) }

/** How often Sharding looks at the members that the last heartbeat has brought; no request is made for it. */
const lookInterval = Duration.millis(250)
/** Replicas get chains once no other one has joined for this long: all replicas that a rollout starts at once are dealt to once. */
const joinDebounce = Duration.seconds(2)
const overtakenInterval = "50 millis"

/** A name that hashes to this shard: with one shard per chain, every replica gets the same number of chains, or one more. */
const nameOnShard = (sharding: Sharding.Sharding["Service"], chain: string, shard: number): string => {
  for (let salt = 0; ; salt++) {
    const name = `chain/${chain}/${salt}`
    if (sharding.getShardId(EntityId.make(name), "default").id === shard) return name
  }
}

/** The shard of each chain, by the order of their names: the same on every replica. */
export const shardsOf = (names: ReadonlyArray<string>): ReadonlyMap<string, number> =>
  new Map(names.toSorted().map((name, i) => [name, i + 1]))

/** Only a name: nothing listens there. */
const addressOf = (replica: string) => RunnerAddress.make(replica, 1)

const shardingConfig = (replica: string, chains: number, { ttl }: Times) =>
  ShardingConfig.layer({
    runnerAddress: Option.some(addressOf(replica)),
    shardsPerGroup: chains,
    shardLockExpiration: ttl,
    // The lesser of this and a third of the expiration is how long Redis may take to grant a chain.
    shardLockRefreshInterval: Duration.seconds(1),
    refreshAssignmentsInterval: lookInterval,
    entityMessagePollInterval: Duration.seconds(1),
    runnerJoinDebounce: joinDebounce,
  })

/** How many names are tried for an even deal. */
const mostNames = 300

/**
 * A name for a replica with which Sharding deals the chains out evenly. Where their number is no multiple of that of the replicas, it
 * gives the rest to the replicas whose hashed names are nearest, perhaps all to one.
 *
 * @param present the names of the other replicas
 * @param candidate another name each time
 */
export const evenName = (
  present: ReadonlyArray<string>,
  chains: number,
  candidate: (attempt: number) => string,
): string => {
  const ring = HashRing.make<RunnerAddress.RunnerAddress>()
  HashRing.addMany(ring, present.map(addressOf))
  let best = { name: candidate(0), difference: Infinity }
  for (let attempt = 0; attempt < mostNames && best.difference > 1; attempt++) {
    const name = candidate(attempt)
    HashRing.add(ring, addressOf(name))
    const counts = new Map([...present, name].map((replica) => [replica, 0]))
    for (const { host } of HashRing.getShards(ring, chains) ?? []) counts.set(host, counts.get(host)! + 1)
    const difference = Math.max(...counts.values()) - Math.min(...counts.values())
    if (difference < best.difference) best = { name, difference }
    HashRing.remove(ring, addressOf(name))
  }
  return best.name
}

/** What Sharding stores about a replica. */
export const memberNamed = (replica: string): Member => {
  const address = addressOf(replica)
  const runner = Runner.make({ address, groups: ["default"], weight: 1 })
  return { address: `${address.host}:${address.port}`, description: Runner.encodeSync(runner) }
}

/** The name of the replica that a member describes. */
export const nameIn = (description: string): string => Runner.decodeSync(description).address.host

export interface FleetOptions {
  /** Makes this replica a member. Returns its name, unique for each start of a process. */
  readonly join: Effect.Effect<string>
  readonly storage: Layer.Layer<RunnerStorage.RunnerStorage>
  readonly times: Times
  /** Whether other replicas are present. A replica that is alone hands nothing over when it stops. */
  readonly hasOthers: () => boolean
}

/** Follows the chains that are this replica's among the members of a storage. */
export const shared = ({ join, storage, times, hasOthers }: FleetOptions): Share =>
  Effect.fnUntraced(function* (chains) {
    const fibers = yield* FiberMap.make<string>()
    const handovers = yield* FiberMap.make<string>()
    // Finalizers run in reverse: the cluster gives everything away first, and the chains end last.
    yield* Effect.addFinalizer(() => Effect.ignore(FiberMap.awaitEmpty(handovers)))
    const scope = yield* Effect.scope
    const clusterOf = (replica: string) =>
      Sharding.layer.pipe(
        Layer.provide([Runners.layerNoop, RunnerHealth.layerNoop]),
        Layer.provide([MessageStorage.layerNoop, storage]),
        Layer.provide(shardingConfig(replica, chains.length, times)),
      )
    const shards = shardsOf(chains.map(({ name }) => name))
    const register = (sharding: Sharding.Sharding["Service"], chain: (typeof chains)[number]) => {
      const { name, follow, overtaken, onStart, onStop } = chain
      const take = Effect.gen(function* () {
        yield* FiberMap.remove(handovers, name)
        if (yield* FiberMap.has(fibers, name)) return
        yield* onStart
        yield* FiberMap.run(fibers, name, follow)
      })
      // Uninterruptible: half-stopped by the next `take`, the chain would be taken for running.
      const stop = Effect.uninterruptible(Effect.andThen(FiberMap.remove(fibers, name), onStop))
      const handOver = Effect.suspend(() => {
        const before = overtaken()
        const untilOvertaken = Effect.sync(() => overtaken() > before || !hasOthers()).pipe(
          Effect.repeat({ until: (done) => done, schedule: Schedule.spaced(overtakenInterval) }),
        )
        return Effect.andThen(Effect.timeoutOption(untilOvertaken, times.overlap), stop)
      })
      // The singleton never ends: it only holds the chain, which goes on for a while after it.
      return sharding.registerSingleton(
        nameOnShard(sharding, name, shards.get(name)!),
        Effect.acquireRelease(take, () => FiberMap.run(handovers, name, handOver)),
      )
    }
    const begin = Effect.gen(function* () {
      const cluster = yield* Layer.buildWithScope(clusterOf(yield* join), scope)
      const sharding = Context.get(cluster, Sharding.Sharding)
      yield* Effect.forEach(chains, (chain) => register(sharding, chain), { discard: true })
    })
    // The service starts while Redis is down.
    yield* Background.forkScoped(Scope.provide(begin, scope))
  })
