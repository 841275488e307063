/**
 * Where the replicas of a fleet meet: Effect's `RunnerStorage`, on the Redis that holds the streams.
 *
 * A hold decides which replica follows a chain, not which one may write: the store decides that with each move. Two replicas that
 * follow a chain for a while are harmless, and none is not. While Redis does not answer, every replica therefore keeps what it
 * holds, and takes the others for present. One script per heartbeat says that this replica is present, keeps its holds, and reads who
 * else is present. The shards are dealt out among them, and Effect's Sharding is answered from that.
 */
import { Duration, Effect, Schedule } from "effect"
import * as ClusterError from "effect/cluster/ClusterError"
import * as RunnerStorage from "effect/cluster/RunnerStorage"
import * as Background from "../Background.ts"
import * as Monotonic from "../Monotonic.ts"
import type { StoreError } from "../store/StoreError.ts"

/** What a call to the fleet's script answers: the shards that are held, and the descriptions of the present members. */
export type Answer = readonly [held: ReadonlyArray<string>, present: ReadonlyArray<string>]

/** A replica: its address, and what Sharding stores about it. */
export interface Member {
  readonly address: string
  readonly description: string
}

/** How often it is looked whether shards have been dealt to this replica; no request is made for it. */
const lookInterval = "250 millis"

export interface FleetStorageOptions {
  /** Calls `fleet.lua`. */
  readonly call: (operation: string, ...args: ReadonlyArray<string>) => Effect.Effect<Answer, StoreError>
  /** The shards that are dealt to a member. */
  readonly share: (members: ReadonlyArray<string>, member: string) => ReadonlyArray<string>
  /** A replica that is silent for this long is gone. */
  readonly ttl: Duration.Duration
  readonly heartbeat: Duration.Duration
  /** Replicas that join get shards once no other one has joined for this long. */
  readonly debounce: Duration.Duration
  /** Succeeds if this replica may write the streams: otherwise it must not take chains. */
  readonly mayWrite: Effect.Effect<void, StoreError>
  /** Called with each heartbeat: why it failed, or `undefined`. */
  readonly onHeartbeat: (error: StoreError | undefined) => Effect.Effect<void>
}

/** Which shards a replica may take: those that are dealt to it among the members that share them. */
class Dealt {
  readonly #share: FleetStorageOptions["share"]
  readonly #debounce: number
  #sharing: ReadonlySet<string> = new Set()
  #own: ReadonlySet<string> = new Set()
  /** The members that get no shards yet, and since when there have been no others. */
  #joining = ""
  #joiningSince = -Infinity

  constructor({ share, debounce }: FleetStorageOptions) {
    this.#share = share
    this.#debounce = Duration.toMillis(debounce)
  }

  has(shard: string): boolean {
    return this.#own.has(shard)
  }

  /** Deals the shards again: at once if a member has left, else once no other one joins. */
  update(members: ReadonlySet<string>, self: string, now: number): void {
    const joining = [...members].filter((member) => !this.#sharing.has(member)).join()
    if (joining !== this.#joining) this.#joiningSince = now
    this.#joining = joining
    const hasLeft = [...this.#sharing].some((member) => !members.has(member))
    const isSettled = this.#sharing.size === 0 || now - this.#joiningSince >= this.#debounce
    if (!hasLeft && (joining === "" || !isSettled)) return
    this.#sharing = members
    this.#own = new Set(this.#share([...members], self))
  }
}

/** This replica among the others: what each answer of the fleet's script tells. */
const makeMembership = (options: FleetStorageOptions) => {
  const ttl = Duration.toMillis(options.ttl)
  /** Answers that are further apart are an outage, as is a call that fails. Otherwise they are a heartbeat and a moment apart. */
  const longestInterval = Duration.toMillis(options.heartbeat) + (ttl * 3) / 8
  let members: ReadonlySet<string> = new Set()
  let answeredAt = -Infinity
  let patientUntil = -Infinity
  const dealt = new Dealt(options)
  const own: {
    /** The address and the description of this replica, once it has registered. */
    member: Member | undefined
    /** It takes no more shards, and is not heard of any more. */
    isLeaving: boolean
  } = { member: undefined, isLeaving: false }
  const ask = Effect.fnUntraced(function* (
    verb: "hold" | "release" | "leave",
    shards: ReadonlyArray<string> = [],
  ) {
    const { address = "", description = "" } = own.member ?? {}
    const call = options.call(verb, verb, String(ttl), address, description, ...shards)
    const [held, present] = yield* Effect.tapError(call, () => Effect.sync(() => (answeredAt = -Infinity)))
    const now = yield* Monotonic.millis
    // While Redis was away no replica could say that it is present: each gets the time to do so, also the one that
    // reconnects last.
    if (now - answeredAt > longestInterval) patientUntil = now + ttl
    answeredAt = now
    members = new Set(now < patientUntil ? [...members, ...present] : present)
    if (!own.isLeaving) dealt.update(members, description, now)
    return held
  })
  return { own, dealt, ask }
}

/** The storage of this replica. Its heartbeats end with the scope. */
export const make = Effect.fnUntraced(function* (options: FleetStorageOptions) {
  const { heartbeat, mayWrite, onHeartbeat } = options
  const { own, dealt, ask } = makeMembership(options)
  let isAdmitted = false
  /** What was acquired and not released: only that is kept, and taken again after it has expired. */
  const acquired = new Set<string>()

  const persistence = <A>(effect: Effect.Effect<A, StoreError>) =>
    Effect.mapError(effect, (cause) => new ClusterError.PersistenceError({ cause }))

  const beat = Effect.gen(function* () {
    const shards = [...acquired]
    const held = new Set(yield* ask("hold", shards))
    for (const shard of shards) if (!held.has(shard)) acquired.delete(shard)
  })
  const report = Effect.matchEffect({ onFailure: onHeartbeat, onSuccess: () => onHeartbeat(undefined) })
  yield* Effect.suspend(() => (isAdmitted && !own.isLeaving ? report(beat) : Effect.void)).pipe(
    Background.logDefects,
    Effect.repeat(Schedule.spaced(heartbeat)),
    Effect.forkScoped,
  )

  return RunnerStorage.makeEncoded({
    register: (address, description) =>
      Effect.gen(function* () {
        own.member = { address, description }
        yield* mayWrite
        yield* ask("hold")
        isAdmitted = true
        yield* onHeartbeat(undefined)
        return 1
      }).pipe(Effect.tapError(onHeartbeat), persistence),
    // Sharding calls this first when a replica stops. The others learn of it together with the release of all holds.
    unregister: () => Effect.sync(() => void (own.isLeaving = true)),
    releaseAll: () =>
      Effect.suspend(() => {
        acquired.clear()
        own.isLeaving = true
        return Effect.ignore(ask("leave"))
      }),
    // Alone, this replica wants all shards: only those that are dealt to it are granted.
    getRunners: Effect.sync(() => (isAdmitted ? [[own.member!.description, true] as const] : [])),
    // A member that is silent is gone: it is not asked.
    setRunnerHealth: () => Effect.void,
    // Sharding asks for shards once a second, and again at once where it had no answer for that long.
    acquire: (_, shards) =>
      Effect.sync(() => shards.filter((shard) => dealt.has(shard))).pipe(
        Effect.repeat({
          until: (wanted) => wanted.length > 0 || own.isLeaving,
          schedule: Schedule.spaced(lookInterval),
        }),
        Effect.flatMap((wanted) => (own.isLeaving ? Effect.succeed([]) : ask("hold", wanted))),
        Effect.map((held) => {
          for (const shard of held) acquired.add(shard)
          return [...held]
        }),
        Effect.orElseSucceed(() => []),
      ),
    // Without a request: Sharding drops all shards when a single refresh is late.
    refresh: (_, shards) =>
      Effect.sync(() => shards.filter((shard) => acquired.has(shard) && dealt.has(shard))),
    // A hold whose release fails expires.
    release: (_, shard) =>
      Effect.suspend(() => {
        acquired.delete(shard)
        return Effect.ignore(ask("release", [shard]))
      }),
  })
})
