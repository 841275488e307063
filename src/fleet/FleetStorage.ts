/**
 * Where the replicas of a fleet meet: Effect's `RunnerStorage`, on the Redis that holds the streams.
 *
 * A hold decides which replica follows a chain, not which one may write: the store decides that with each move. Two replicas that
 * follow a chain for a while are harmless, and none is not. While Redis does not answer, every replica therefore keeps what it
 * holds, and takes the others for present. One script per heartbeat says that this replica is present, keeps its holds, and reads who
 * else is present. Effect's Sharding is answered from that.
 */
import { Duration, Effect, Schedule } from "effect"
import * as ClusterError from "effect/cluster/ClusterError"
import * as RunnerStorage from "effect/cluster/RunnerStorage"
import * as Background from "../Background.ts"
import * as Monotonic from "../Monotonic.ts"
import type { StoreError } from "../store/StoreError.ts"

/** What a call to the fleet's script answers: the shards that are held, and the descriptions of the present members. */
export type Answer = readonly [held: ReadonlyArray<string>, present: ReadonlyArray<string>]

/** A replica: its name, and what Sharding stores about it. */
export interface Member {
  readonly address: string
  readonly description: string
}

const joinInterval = "500 millis"

export interface FleetStorageOptions {
  /** Calls `fleet.lua`. */
  readonly call: (operation: string, ...args: ReadonlyArray<string>) => Effect.Effect<Answer, StoreError>
  /** A replica that is silent for this long is gone. */
  readonly ttl: Duration.Duration
  readonly heartbeat: Duration.Duration
  /** Succeeds if this replica may write the streams: otherwise it must not take chains. */
  readonly mayWrite: Effect.Effect<void, StoreError>
  /** Called with each heartbeat: why it failed, or `undefined`. */
  readonly onHeartbeat: (error: StoreError | undefined) => Effect.Effect<void>
}

/**
 * Makes this replica a member before anything is dealt to it.
 *
 * @param describe the description of this replica beside those that are present; it is called again where another replica has
 *   joined meanwhile, so that each of several that start at once knows those before it
 */
export const join = (
  { call, mayWrite, onHeartbeat, ttl }: Omit<FleetStorageOptions, "heartbeat">,
  describe: (present: ReadonlyArray<string>) => Member,
): Effect.Effect<Member> => {
  const attempt = (seen: ReadonlyArray<string>): Effect.Effect<Member, StoreError> => {
    const member = describe(seen)
    const args = ["join", String(Duration.toMillis(ttl)), member.address, member.description, ...seen]
    return Effect.flatMap(call("join", ...args), ([joined, present]) =>
      joined.length > 0 ? Effect.succeed(member) : attempt(present),
    )
  }
  return mayWrite.pipe(
    Effect.andThen(Effect.suspend(() => attempt([]))),
    Effect.tapError(onHeartbeat),
    Effect.retry(Schedule.spaced(joinInterval)),
    Effect.orDie,
  )
}

/** The storage of this replica. Its heartbeats end with the scope. */
export const make = Effect.fnUntraced(function* (options: FleetStorageOptions) {
  const { call, heartbeat, mayWrite, onHeartbeat } = options
  const ttl = Duration.toMillis(options.ttl)
  /** Heartbeats that are further apart are an outage. Without one, answers are a heartbeat and a moment apart. */
  const longestInterval = Duration.toMillis(heartbeat) + (ttl * 3) / 8
  /** The address and the description of this replica, once it has registered. */
  let self: Member | undefined
  let isAdmitted = false
  let isLeaving = false
  /** What was acquired and not released: only that is kept, and taken again after it has expired. */
  const acquired = new Set<string>()
  let members: ReadonlySet<string> = new Set()
  let answeredAt = -Infinity
  let patientUntil = -Infinity

  const ask = Effect.fnUntraced(function* (
    verb: "hold" | "release" | "leave",
    shards: ReadonlyArray<string> = [],
  ) {
    const { address = "", description = "" } = self ?? {}
    const [held, present] = yield* call(verb, verb, String(ttl), address, description, ...shards)
    const now = yield* Monotonic.millis
    // While Redis was away no replica could say that it is present: each gets the time to do so.
    if (now - answeredAt > longestInterval) patientUntil = now + ttl
    answeredAt = now
    members = new Set(now < patientUntil ? [...members, ...present] : present)
    return held
  })

  const persistence = <A>(effect: Effect.Effect<A, StoreError>) =>
    Effect.mapError(effect, (cause) => new ClusterError.PersistenceError({ cause }))

  const beat = Effect.gen(function* () {
    if (self === undefined || !isAdmitted || isLeaving) return
    const shards = [...acquired]
    const held = new Set(yield* ask("hold", shards))
    for (const shard of shards) if (!held.has(shard)) acquired.delete(shard)
  })
  yield* beat.pipe(
    Effect.matchEffect({ onFailure: onHeartbeat, onSuccess: () => onHeartbeat(undefined) }),
    Background.logDefects,
    Effect.repeat(Schedule.spaced(heartbeat)),
    Effect.forkScoped,
  )

  return RunnerStorage.makeEncoded({
    register: (address, description) =>
      Effect.gen(function* () {
        self = { address, description }
        yield* mayWrite
        isAdmitted = true
        yield* ask("hold")
        return 1
      }).pipe(Effect.tapError(onHeartbeat), persistence),
    // Sharding calls this first when a replica stops. The others learn of it together with the release of all holds.
    unregister: () => Effect.void,
    releaseAll: () =>
      Effect.suspend(() => {
        acquired.clear()
        isLeaving = true
        return Effect.ignore(ask("leave"))
      }),
    getRunners: Effect.sync(() => Array.from(members, (member) => [member, true] as const)),
    // A member that is silent is gone: it is not asked.
    setRunnerHealth: () => Effect.void,
    acquire: (_, shards) =>
      isAdmitted && !isLeaving
        ? Effect.map(ask("hold", shards), (held) => {
            for (const shard of held) acquired.add(shard)
            return [...held]
          }).pipe(Effect.orElseSucceed(() => []))
        : Effect.succeed([]),
    // Without a request: Sharding drops all shards when a single refresh is late.
    refresh: (_, shards) => Effect.sync(() => shards.filter((shard) => acquired.has(shard))),
    // A hold whose release fails expires.
    release: (_, shard) =>
      Effect.suspend(() => {
        acquired.delete(shard)
        return Effect.ignore(ask("release", [shard]))
      }),
  })
})
