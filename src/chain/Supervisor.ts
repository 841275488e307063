/**
 * One supervised fiber per chain: the feed's moves go to the store.
 *
 * Whatever happens to a chain stays with it. A failing endpoint costs the connection, a failing store the moves in
 * flight, a defect the connection too: the chain then starts over from what the store has. Only a contradiction of
 * final blocks stops a chain, until the store's journal is changed.
 */
import { Cause, Clock, Deferred, Duration, Effect, FiberMap, Layer, Schedule, Stream } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import { logEvent } from "../observability/LogEvents.ts"
import * as Monotonic from "../Monotonic.ts"
import { Defect } from "../endpoint/EndpointError.ts"
import * as EndpointPool from "../endpoint/EndpointPool.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import type { PoolMember } from "../endpoint/PoolMember.ts"
import { backoff, circuitBreaking, makeBreaker } from "../Retry.ts"
import type { Breaker } from "../Retry.ts"
import * as Audit from "./Audit.ts"
import { Provenance } from "./Provenance.ts"
import * as Feed from "./Feed.ts"
import * as Heads from "../endpoint/Heads.ts"
import type { Disagreed } from "./FinalityQuorum.ts"
import * as ClockSkew from "./ClockSkew.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"
import type { ChainStep } from "./PendingJournal.ts"
import * as LogSource from "../logs/LogSource.ts"
import * as LogsSubscription from "../logs/LogsSubscription.ts"
import * as HttpFallback from "../logs/HttpFallback.ts"
import { RecentHeaders } from "./RecentHeaders.ts"
import { ForkStandoff } from "./ForkStandoff.ts"
import { Verification } from "../logs/Integrity.ts"
import * as ChainEvents from "./ChainEvents.ts"
import * as Progress from "../observability/Progress.ts"
import { Redaction } from "../Redactor.ts"
import { CurrentLogLimits, LogLimits } from "../observability/LogLimits.ts"
import * as Suspension from "./Suspension.ts"
import * as Housekeeping from "../store/Housekeeping.ts"
import * as StoreBreaker from "../store/StoreBreaker.ts"
import { PushLimits } from "../store/PushLimits.ts"
import { Store } from "../store/Store.ts"
import type { StoreError } from "../store/Store.ts"
import { blockTraces } from "../observability/Tracing.ts"
import { Status } from "../observability/Status.ts"
import * as JournalWriter from "./JournalWriter.ts"

/** Moves on their way to the store at the same time; the head each one expects is known beforehand. */
const movesInFlight = 3

/** What a chain knows that outlives a defect. */
interface ChainState {
  readonly writer: JournalWriter.JournalWriter
  readonly provenance: Provenance
  readonly sides: ForkStandoff
  readonly seen: RecentHeaders
  readonly pushLimits: PushLimits
  readonly housekeeping: Housekeeping.Housekeeping
  readonly disagreed: Disagreed
  /** The breaker of the chain as a whole. */
  readonly breaker: Breaker
}

/** Follows a chain, whatever its endpoints do. */
const follow = Effect.fnUntraced(function* (
  chain: ChainConfig,
  storeBreaker: StoreBreaker.StoreBreaker,
  { writer, provenance, sides, seen, disagreed, pushLimits, housekeeping, breaker }: ChainState,
) {
  const config = yield* AppConfig
  const store = yield* Store
  const redact = yield* Redaction
  const checks = yield* Verification
  const status = (yield* Status).chain(chain.name)
  const traces = yield* blockTraces(chain)
  const events = ChainEvents.make(chain, status, storeBreaker.isOpen)

  const pool = yield* EndpointPool.make(chain, {
    requestTimeout: config.requestTimeout,
    wsMaxPayload: config.wsMaxPayload,
    rpcRate: config.rpcRate,
    watch: events.endpoint,
  })

  const suspension = Suspension.make({ chain, store, status, writer, connected: pool.connected })
  const checkTime = ClockSkew.make()
  let newestTime: number | undefined
  const newest = () => newestTime
  const singleEndpoint = chain.endpoints.length + chain.rpc.length === 1
  const headHandled = (member: PoolMember, heard: ReceivedHead | undefined) =>
    Effect.gen(function* () {
      if (heard !== undefined) {
        status.recordLatency((yield* Monotonic.millis) - heard.at)
        status.eventLatency(Math.max((yield* Clock.currentTimeMillis) / 1000 - heard.header.timestamp, 0))
      }
      status.updatePhase()
      yield* member.breaker.succeed
      yield* breaker.succeed
    })

  const acknowledge =
    (member: PoolMember) =>
    ({ step, result }: JournalWriter.Submitted) =>
      Effect.suspend(() => {
        if (result === undefined) {
          if (step._tag === "Followed") return Effect.sync(() => traces.done(step.trace))
          const agrees = sides.confirm(step.journal, step.hash)
          return Effect.andThen(agrees ? events.standoff(0) : Effect.void, headHandled(member, undefined))
        }
        // What is stored there may not be what this process would have written.
        if (step.move._tag === "Push") {
          if (result._tag === "Duplicate") provenance.invalidate(step.move.blocks)
          else pushLimits.accepted()
          sides.recordPush(step.journal)
        }
        const recorded = writer.acknowledge(step, result)
        switch (step.move._tag) {
          case "Push":
            return Effect.all([
              recorded,
              events.standoff(0),
              storeBreaker.succeed,
              headHandled(member, step.heard),
            ])
          case "Pop":
            return Effect.andThen(
              recorded,
              Effect.map(Monotonic.millis, (now) => sides.recordPop(now)),
            )
          case "Finalize":
            return recorded
        }
      })

  /** The journal cannot be read for what it is: trying again does not help. */
  const isUnusable = ({ reason, operation }: StoreError) =>
    reason === "newer" || (reason === "corrupt" && operation === "load")

  const refused = (error: StoreError) =>
    Effect.gen(function* () {
      if (isUnusable(error)) return yield* suspension.refused(error)
      if (!storeBreaker.isOpen()) return
      status.enter("store-unavailable")
      status.recordFailure("store", error.message)
      yield* storeBreaker.trip(error)
    })

  /**
   * Makes a move. One that the store does not take is made again when it may be taken, without asking a provider anything:
   * if it was taken after all, the store says that it is a duplicate, or that its head is another one.
   *
   * @param again whether it is made again
   */
  const submit = (
    step: ChainStep,
    again: boolean,
  ): Effect.Effect<
    JournalWriter.Submitted,
    JournalWriter.HeadConflict | JournalWriter.FilterReplaced | StoreError
  > =>
    writer.submit(step).pipe(
      Effect.catchTags({
        Paused: () =>
          housekeeping.untilResumed.pipe(Effect.andThen(Effect.suspend(() => submit(step, again)))),
        Lost: (lost) => {
          // Whoever wrote them may have been told of other logs.
          if (step._tag === "Move" && step.move._tag === "Push") provenance.invalidate(step.move.blocks)
          return Effect.fail(lost)
        },
        StoreError: (error) => {
          if (isUnusable(error)) return Effect.fail(error)
          const { move } = step as Extract<ChainStep, { readonly _tag: "Move" }>
          // Cut anew, from what the store has.
          if (move._tag === "Push" && pushLimits.refused(move, error, again)) return Effect.fail(error)
          return refused(error).pipe(
            Effect.andThen(storeBreaker.awaitClosed),
            Effect.andThen(Effect.suspend(() => submit(step, true))),
          )
        },
      }),
    )

  const followJournal = (
    member: PoolMember,
    heads: Heads.Heads,
    logs: LogSource.LogSource,
    audit: Audit.Audit | undefined,
  ) =>
    Effect.gen(function* () {
      if (!storeBreaker.isOpen()) status.enter("store-unavailable")
      const journal = yield* writer.load
      const { connection } = member
      const steps = yield* Feed.make({
        chain,
        connection,
        heads,
        logs: audit === undefined ? logs : { ...logs, finalizedRange: audit.finalizedRange },
        audit,
        capabilities: member.capabilities,
        endpoints: pool.connected,
        firstAttempts: pool.firstAttempts,
        checks,
        disagreed,
        journal,
        stored: store.load(chain.id),
        filter: writer.filter,
        limits: { push: () => pushLimits.current, pop: store.limits.logs },
        knownStart: writer.start(),
        sides,
        seen,
        onStandoff: events.standoff,
        onFinal: (header) => status.finalAnnounced(header),
        onDisagreement: events.disagreement,
        leave: connection.end,
      })
      status.updatePhase()
      yield* steps.pipe(
        Stream.mapEffect((step) => submit(step, false), { concurrency: movesInFlight }),
        Stream.runForEach(acknowledge(member)),
      )
    }).pipe(Effect.scoped)

  /** A defect costs the connection. */
  const onDefect = (member: PoolMember) => (defect: unknown) =>
    Effect.andThen(
      logEvent("defect", "a defect while following the chain", {}, defect),
      member.connection.end(new Defect({ detail: redact(String(defect)) })),
    )

  /** Follows one connection until it ends. */
  const withEndpoint = (member: PoolMember) =>
    Effect.gen(function* () {
      const { connection } = member
      status.endpoint = status.endpoints[member.rank]
      const heads = yield* Heads.make(connection, {
        stallTimeout: config.stallTimeout,
        pollInterval: chain.pollInterval,
        traces,
        onLatest: (header) => checkTime(connection.name, header),
        onHead: ({ header, at }, blockTime) => {
          newestTime = header.timestamp
          seen.add(header)
          status.headAnnounced(header, at, blockTime)
          const late = connection.polled ? Duration.toMillis(chain.pollInterval) : 0
          pool.headAnnounced({ number: header.number, at, blockTime, late })
        },
        onQuiet: Effect.andThen(
          member.breaker.succeed,
          Effect.sync(() => status.confirmedIdle()),
        ),
      })
      const logsOf = (of: PoolMember<Connection>) =>
        LogSource.make(of.connection, chain, of.capabilities, checks, newest)
      const announced = yield* LogsSubscription.make(connection)
      const socket = LogSource.make(connection, chain, member.capabilities, checks, newest, announced)
      const logs = HttpFallback.preferHttp(socket, member.capabilities, pool.http, logsOf)
      const audit = config.audit
        ? Audit.make(
            {
              sourceInUse: member,
              singleEndpoint,
              sources: pool.sources,
              logsOf,
              logs,
              events: events.findings,
            },
            provenance,
          )
        : undefined
      return yield* followJournal(member, heads, logs, audit).pipe(
        Effect.tapError((error) => traces.abandon(error.message)),
        Effect.catchTags({
          Lost: (lost) => Effect.logDebug(lost.message),
          Superseded: suspension.yieldJournal,
          Contradiction: suspension.haltUntilResolved,
          StoreError: refused,
        }),
        Effect.forever,
      )
    }).pipe(
      Effect.raceFirst(member.connection.ended),
      Effect.tapError((error) => traces.abandon(error.message)),
      Effect.catch((error) => member.connection.end(error.reason)),
      Effect.catchDefect(onDefect(member)),
      Effect.ensuring(traces.abandon("another endpoint is in use")),
      Effect.scoped,
      Effect.provideService(Defects.Owner, onDefect(member)),
    )

  return yield* pool.active.pipe(
    Stream.switchMap((member) => Stream.fromEffectDrain(withEndpoint(member))),
    Stream.runDrain,
  )
})

/** Restarts a chain after whatever went wrong outside of a connection. */
const supervised = Effect.fnUntraced(function* (chain: ChainConfig) {
  const redact = yield* Redaction
  const breaker = yield* makeBreaker
  const store = yield* Store
  const storeBreaker = yield* StoreBreaker.make(store.ping(chain.id))
  const writer = yield* JournalWriter.make(chain, storeBreaker)
  const disagreed: Disagreed = { endpoints: [], at: -Infinity }
  const status = (yield* Status).chain(chain.name)
  status.storeBreaker = storeBreaker.breaker
  const { retention } = yield* AppConfig
  const housekeeping = yield* Housekeeping.make(store.trim(chain.id), retention, (holder) =>
    status.setHolder(holder),
  )
  const state = {
    writer,
    provenance: new Provenance(),
    sides: new ForkStandoff(),
    seen: new RecentHeaders(),
    disagreed,
    pushLimits: new PushLimits(store.limits),
    housekeeping,
    breaker,
  }
  const followed = Effect.gen(function* () {
    const defect = yield* Deferred.make<never>()
    return yield* follow(chain, storeBreaker, state).pipe(
      Effect.provideService(Defects.Owner, (cause) => Deferred.die(defect, cause)),
      Effect.raceFirst(Deferred.await(defect)),
    )
  })
  return yield* Effect.scoped(followed).pipe(
    Effect.sandbox,
    Effect.tapError((cause) =>
      Effect.gen(function* () {
        if (Cause.hasInterruptsOnly(cause)) return
        const text = redact(Cause.pretty(cause))
        status.recordFailure("defect", text)
        status.enter("connecting")
        for (const endpoint of status.endpoints) endpoint.connectedSince = undefined
        yield* logEvent("chain_failed", "the chain failed and is restarted", {}, cause)
      }),
    ),
    Effect.retry({
      schedule: circuitBreaking(breaker)(backoff),
      while: (cause) => !Cause.hasInterruptsOnly(cause),
    }),
    Effect.annotateLogs({ chain: chain.name }),
  )
})

/** Follows every configured chain for as long as the layer lives. */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { chains } = yield* AppConfig
    const limits = new LogLimits()
    const fibers = yield* FiberMap.make<string>()
    const followed = (chain: ChainConfig) =>
      Effect.provideService(supervised(chain), CurrentLogLimits, limits)
    for (const chain of chains) yield* FiberMap.run(fibers, chain.name, followed(chain))
    yield* Effect.andThen(Progress.make((yield* Status).chains), limits.flush).pipe(
      Effect.repeat(Schedule.spaced(Progress.lookEvery)),
      Defects.toOwner,
      Effect.provideService(CurrentLogLimits, limits),
      Effect.forkScoped,
    )
  }),
)
