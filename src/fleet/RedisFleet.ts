/** The fleet of `FLEET`, on the Redis of the streams. */
import { Duration, Effect, Layer, Schedule } from "effect"
import * as RunnerStorage from "effect/cluster/RunnerStorage"
import { createHash, randomBytes } from "node:crypto"
import { hostname } from "node:os"
import * as Background from "../Background.ts"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig, RedisConfig } from "../config/AppConfig.ts"
import type { FleetConfig } from "../config/FleetConfig.ts"
import { fingerprint } from "../logs/Filter.ts"
import * as Monotonic from "../Monotonic.ts"
import { logEvent } from "../observability/LogEvents.ts"
import { JournalStore } from "../store/JournalStore.ts"
import * as RedisConnection from "../store/redis/RedisConnection.ts"
import type { StoreError } from "../store/StoreError.ts"
import { Fleet } from "./Fleet.ts"
import type { View } from "./Fleet.ts"
import * as FleetStorage from "./FleetStorage.ts"
import type { Answer } from "./FleetStorage.ts"
import * as Sharding from "./Sharding.ts"

/** How often it is read who holds what, for `/status`. */
const viewInterval = "2 seconds"

/** All that changes a journal. Replicas that differ in it are two fleets, each of which follows all of its chains. */
const identityOf = ({ name, id, filter, events, startBlock, ...rest }: ChainConfig): string =>
  JSON.stringify([
    name,
    id,
    fingerprint(filter),
    events ?? null,
    startBlock,
    rest.confirmations,
    rest.finality,
    rest.finalityDepth,
    rest.logsBloom,
  ])

/** The beginning of a fleet's keys. Its hash tag keeps them in one slot of a Cluster. */
export const keyPrefix = (prefix: string, fleet: string, chains: ReadonlyArray<ChainConfig>): string => {
  const identities = chains.map(identityOf).toSorted()
  const digest = createHash("sha256").update(identities.join("\n")).digest("hex").slice(0, 8)
  return `{${prefix}:fleet:${fleet}:${digest}}`
}

/** Calls the fleet's script. */
export const makeCall = (config: RedisConfig, keys: string, timeout: Duration.Duration) =>
  Effect.map(
    RedisConnection.make(config, timeout),
    ({ command }): FleetStorage.FleetStorageOptions["call"] =>
      (operation, ...args) =>
        command(
          `fleet ${operation}`,
          (client) => client.fleet(`${keys}:members`, `${keys}:holds`, ...args) as Promise<Answer>,
        ),
  )

const make = Effect.fnUntraced(function* ({ name, heartbeat }: FleetConfig, config: RedisConfig) {
  const { chains, streamPrefix } = yield* AppConfig
  const store = yield* JournalStore
  /** The name of this replica, once it has joined. */
  let replica = ""
  const { ttl } = Sharding.times
  const send = yield* makeCall(config, keyPrefix(streamPrefix, name, chains), ttl)
  const shards = Sharding.shardsOf(chains.map((chain) => chain.name))
  const chainOf = new Map([...shards].map(([chain, shard]) => [`default:${shard}`, chain]))
  let error: StoreError | undefined
  let lastBeat = -Infinity
  let isMember = false
  let members: ReadonlyArray<string> = []
  let holders: ReadonlyMap<string, string> = new Map()

  const call: typeof send = (...args) =>
    Effect.tap(send(...args), ([, present]) =>
      Effect.sync(() => void (members = present.map(Sharding.nameIn).toSorted())),
    )

  const onHeartbeat = (failure: StoreError | undefined) =>
    Effect.gen(function* () {
      const now = yield* Monotonic.millis
      const was = isMember
      if (failure === undefined) lastBeat = now
      isMember = now - lastBeat <= Duration.toMillis(ttl)
      const isNew = failure?.message !== error?.message
      error = failure
      if (failure !== undefined && (isNew || (was && !isMember)))
        yield* logEvent(
          "fleet_unavailable",
          `${isMember || !was ? "the fleet is not reached" : "this replica is no longer a member, and the others take its chains"}: ${failure.message}`,
          { reason: failure.message },
        )
      if (!was && isMember)
        yield* logEvent("fleet_joined", `replica ${replica} is a member of fleet ${name}`, {
          fleet: name,
          replica,
        })
    })

  const look = Effect.gen(function* () {
    const [held] = yield* call("list", "list", "0", "", "")
    holders = new Map(
      held.flatMap((line) => {
        const [shard = "", ...who] = line.split(" ")
        const chain = chainOf.get(shard)
        return chain === undefined ? [] : [[chain, who.join(" ").replace(/:1$/, "")] as const]
      }),
    )
  })
  yield* Effect.ignore(look).pipe(
    Background.logDefects,
    Effect.repeat(Schedule.spaced(viewInterval)),
    Effect.forkScoped,
  )

  // A full store refuses all replicas: one that joins meanwhile is as good as the others.
  const mayWrite = Effect.catchIf(
    store.ping(chains[0]!.id),
    ({ reason }) => reason === "full",
    () => Effect.void,
  )
  const options = { call, ttl, heartbeat, mayWrite, onHeartbeat }
  const storage = Layer.effect(RunnerStorage.RunnerStorage, FleetStorage.make(options))
  const describe = (present: ReadonlyArray<string>) =>
    Sharding.memberNamed(
      Sharding.evenName(
        present.map(Sharding.nameIn),
        chains.length,
        () => `${hostname()}-${process.pid}-${randomBytes(3).toString("hex")}`,
      ),
    )
  const join = Effect.map(FleetStorage.join(options, describe), ({ description }) => {
    replica = Sharding.nameIn(description)
    return replica
  })
  const hasOthers = () => members.some((member) => member !== replica)
  const view = (): View => ({
    name,
    replica,
    isMember,
    error: error?.message,
    members,
    holders,
  })
  return { share: Sharding.shared({ join, storage, times: Sharding.times, hasOthers }), view }
})

/** @see Fleet */
export const layer = (fleet: FleetConfig, config: RedisConfig) => Layer.effect(Fleet, make(fleet, config))
