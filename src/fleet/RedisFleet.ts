/** The fleet of `FLEET`, on the Redis of the streams. */
import { Duration, Effect, Layer, Schedule } from "effect"
import * as RunnerStorage from "effect/cluster/RunnerStorage"
import { randomBytes } from "node:crypto"
import { hostname } from "node:os"
import * as Background from "../Background.ts"
import { AppConfig } from "../config/AppConfig.ts"
import type { RedisConfig } from "../config/AppConfig.ts"
import type { FleetConfig } from "../config/FleetConfig.ts"
import * as Monotonic from "../Monotonic.ts"
import { logEvent } from "../observability/LogEvents.ts"
import { JournalStore } from "../store/JournalStore.ts"
import type { StoreError } from "../store/StoreError.ts"
import { Fleet } from "./Fleet.ts"
import type { View } from "./Fleet.ts"
import * as FleetScript from "./FleetScript.ts"
import * as FleetStorage from "./FleetStorage.ts"
import * as Reports from "./Reports.ts"
import * as Sharding from "./Sharding.ts"

/** How often it is read who holds what, for `/status`. */
const viewInterval = "2 seconds"

const make = Effect.fnUntraced(function* ({ name, heartbeat }: FleetConfig, config: RedisConfig) {
  const { chains, streamPrefix } = yield* AppConfig
  const store = yield* JournalStore
  const replica = `${hostname()}-${process.pid}-${randomBytes(3).toString("hex")}`
  const { ttl, debounce } = Sharding.times
  const keys = FleetScript.keyPrefix(streamPrefix, name, chains)
  const send = yield* FleetScript.makeCall(config, keys, ttl)
  let error: StoreError | undefined
  let lastBeat = -Infinity
  let isMember = false
  let members: ReadonlyArray<string> = []
  let holders: ReadonlyMap<string, string> = new Map()

  /** A call of the storage, whose answer tells who is present. */
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

  const names = chains.map((chain) => chain.name)
  const look = Effect.map(FleetScript.list(send, names), (found) => void ({ members, holders } = found))
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
  const options = {
    call,
    share: Sharding.shareOf(chains.length),
    ttl,
    heartbeat,
    debounce,
    mayWrite,
    onHeartbeat,
  }
  const storage = Layer.effect(RunnerStorage.RunnerStorage, FleetStorage.make(options))
  const hasOthers = () => members.some((member) => member !== replica)
  const view = (): View => ({ name, replica, isMember, error: error?.message, members, holders })
  const reports = Reports.make(send, () => isMember && error === undefined)
  return {
    share: Sharding.shared({ replica, storage, times: Sharding.times, hasOthers }),
    view,
    reports: reports.read,
    publish: reports.publish,
  }
})

/** @see Fleet */
export const layer = (fleet: FleetConfig, config: RedisConfig) => Layer.effect(Fleet, make(fleet, config))
