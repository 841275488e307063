/**
 * The chains of a fleet on Effect's cluster: each chain is a singleton on a shard of its own. The replicas meet in Redis
 * (FleetStorage.ts); none listens, and they do not talk to each other. Sharding sees each replica alone, and asks for all shards; the
 * storage grants those that are dealt to the replica (Deal.ts). Sharding's own deal, a hash ring, may give the whole rest to one.
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
import * as Background from "../Background.ts"
import { deal } from "./Deal.ts"
import type { Share } from "./Fleet.ts"
import type { Member } from "./FleetStorage.ts"

/** The times of a fleet. */
export interface Times {
  /** A replica that is silent for this long is gone, and its chains are given to others. */
  readonly ttl: Duration.Duration
  /** How long a chain that was given away is followed at most, until another replica writes it. */
  readonly overlap: Duration.Duration
  /** Replicas that join get chains once no other one has joined for this long: all that a rollout starts are dealt to once. */
  readonly debounce: Duration.Duration
}

export const times: Times = {
  ttl: Duration.seconds(4),
  overlap: Duration.seconds(5),
  debounce: Duration.seconds(2),
}

const overtakenInterval = "50 millis"

/** A name that hashes to this shard. */
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
    entityMessagePollInterval: Duration.seconds(1),
  })

/** The shards of these chains that are dealt to a member. */
export const shareOf =
  (chains: number) =>
  (members: ReadonlyArray<string>, member: string): ReadonlyArray<string> =>
    deal(members, chains).flatMap((dealt, i) => (dealt === member ? [`default:${i + 1}`] : []))

/** What Sharding stores about a replica. */
export const memberNamed = (replica: string): Member => {
  const address = addressOf(replica)
  const runner = Runner.make({ address, groups: ["default"], weight: 1 })
  return { address: `${address.host}:${address.port}`, description: Runner.encodeSync(runner) }
}

/** The name of the replica that a member describes. */
export const nameIn = (description: string): string => Runner.decodeSync(description).address.host

export interface FleetOptions {
  /** The name of this replica, unique for each start of a process. */
  readonly replica: string
  readonly storage: Layer.Layer<RunnerStorage.RunnerStorage>
  readonly times: Times
  /** Whether other replicas are present. A replica that is alone hands nothing over when it stops. */
  readonly hasOthers: () => boolean
}

/** Follows the chains that are this replica's among the members of a storage. */
export const shared = ({ replica, storage, times, hasOthers }: FleetOptions): Share =>
  Effect.fnUntraced(function* (chains) {
    const fibers = yield* FiberMap.make<string>()
    const handovers = yield* FiberMap.make<string>()
    // Finalizers run in reverse: the cluster gives everything away first, and the chains end last.
    yield* Effect.addFinalizer(() => Effect.ignore(FiberMap.awaitEmpty(handovers)))
    const scope = yield* Effect.scope
    const clusterLayer = Sharding.layer.pipe(
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
      const cluster = yield* Layer.buildWithScope(clusterLayer, scope)
      const sharding = Context.get(cluster, Sharding.Sharding)
      yield* Effect.forEach(chains, (chain) => register(sharding, chain), { discard: true })
    })
    // The service starts while Redis is down.
    yield* Background.forkScoped(Scope.provide(begin, scope))
  })
