/**
 * One supervised fiber per chain, which submits the feed's moves to the store.
 *
 * Failures are isolated per chain. A failing endpoint costs the connection, a failing store delays the moves in flight, and
 * a defect costs the connection too: the chain then resumes from the stored journal. Only a finality violation halts a
 * chain, until the store's journal is changed or an endpoint serves the finalized block again.
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

/** Moves in flight to the store at the same time: the head that each one expects is known in advance. */
const movesInFlight = 3

/** The state of a chain that outlives connections and defects. */
interface ChainState {
  readonly writer: JournalWriter.JournalWriter
  readonly provenance: Provenance
  readonly standoff: ForkStandoff
  readonly seen: RecentHeaders
  readonly pushLimits: PushLimits
  readonly housekeeping: Housekeeping.Housekeeping
  readonly disagreed: Disagreed
  /** The breaker of the chain as a whole. */
  readonly breaker: Breaker
}

/** Follows a chain over all its endpoints. */
const follow = Effect.fnUntraced(function* (
  chain: ChainConfig,
  storeBreaker: StoreBreaker.StoreBreaker,
  { writer, provenance, standoff, seen, disagreed, pushLimits, housekeeping, breaker }: ChainState,
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
  const checkClockSkew = ClockSkew.make()
  let lastHeadTime: number | undefined
  const headTime = () => lastHeadTime
  const singleEndpoint = chain.endpoints.length + chain.rpc.length === 1
  const headHandled = (member: PoolMember, received: ReceivedHead | undefined) =>
    Effect.gen(function* () {
      if (received !== undefined) {
        status.recordLatency((yield* Monotonic.millis) - received.at)
        status.eventLatency(Math.max((yield* Clock.currentTimeMillis) / 1000 - received.header.timestamp, 0))
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
          if (step._tag === "HeadDone") return Effect.sync(() => traces.done(step.trace))
          const agrees = standoff.confirm(step.journal, step.hash)
          return Effect.andThen(agrees ? events.standoff(0) : Effect.void, headHandled(member, undefined))
        }
        // A duplicate was written by another ingestor, perhaps from another answer.
        if (step.move._tag === "Push") {
          if (result._tag === "Duplicate") provenance.invalidate(step.move.blocks)
          else pushLimits.accepted()
          standoff.recordPush(step.journal)
        }
        const recorded = writer.acknowledge(step, result)
        switch (step.move._tag) {
          case "Push":
            return Effect.all([
              recorded,
              events.standoff(0),
              storeBreaker.succeed,
              headHandled(member, step.received),
            ])
          case "Pop":
            return Effect.andThen(
              recorded,
              Effect.map(Monotonic.millis, (now) => standoff.recordPop(now)),
            )
          case "Finalize":
            return recorded
        }
      })

  /** The journal is not readable by this release: retries do not help. */
  const isUnusable = ({ reason, operation }: StoreError) =>
    reason === "newer" || (reason === "corrupt" && operation === "load")

  const onStoreError = (error: StoreError) =>
    Effect.gen(function* () {
      if (isUnusable(error)) return yield* suspension.haltUntilReadable(error)
      if (!storeBreaker.isOpen()) return
      status.enter("store-unavailable")
      status.recordFailure("store", error.message)
      yield* storeBreaker.trip(error)
    })

  /**
   * Submits a move, and retries it once the store accepts moves again, without requests to a provider. If the failed
   * attempt was applied after all, the store reports a duplicate or a conflict.
   *
   * @param isRetry whether the move was submitted before
   */
  const submit = (
    step: ChainStep,
    isRetry: boolean,
  ): Effect.Effect<
    JournalWriter.Submitted,
    JournalWriter.HeadConflict | JournalWriter.FilterReplaced | StoreError
  > =>
    writer.submit(step).pipe(
      Effect.catchTags({
        Paused: () =>
          housekeeping.untilResumed.pipe(Effect.andThen(Effect.suspend(() => submit(step, isRetry)))),
        HeadConflict: (conflict) => {
          // Another ingestor wrote these blocks, perhaps from another answer.
          if (step._tag === "Move" && step.move._tag === "Push") provenance.invalidate(step.move.blocks)
          return Effect.fail(conflict)
        },
        StoreError: (error) => {
          if (isUnusable(error)) return Effect.fail(error)
          const { move } = step as Extract<ChainStep, { readonly _tag: "Move" }>
          // The feed restarts from the stored journal and makes smaller pushes.
          if (move._tag === "Push" && pushLimits.refused(move, error, isRetry)) return Effect.fail(error)
          return onStoreError(error).pipe(
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
        standoff,
        seen,
        onStandoff: events.standoff,
        onFinal: (header) => status.finalAnnounced(header),
        onDisagreement: events.disagreement,
        disconnect: connection.end,
      })
      status.updatePhase()
      yield* steps.pipe(
        Stream.mapEffect((step) => submit(step, false), { concurrency: movesInFlight }),
        Stream.runForEach(acknowledge(member)),
      )
    }).pipe(Effect.scoped)

  /** A defect ends the connection. */
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
        onLatest: (header) => checkClockSkew(connection.name, header),
        onHead: ({ header, at }, blockTime) => {
          lastHeadTime = header.timestamp
          seen.add(header)
          status.headAnnounced(header, at, blockTime)
          const pollDelay = connection.polled ? Duration.toMillis(chain.pollInterval) : 0
          pool.headAnnounced({ number: header.number, at, blockTime, late: pollDelay })
        },
        onQuiet: Effect.andThen(
          member.breaker.succeed,
          Effect.sync(() => status.confirmedIdle()),
        ),
      })
      const logsOf = (of: PoolMember<Connection>) =>
        LogSource.make(of.connection, chain, of.capabilities, checks, headTime)
      const subscription = yield* LogsSubscription.make(connection)
      const socket = LogSource.make(connection, chain, member.capabilities, checks, headTime, subscription)
      const logs = HttpFallback.preferHttp(socket, member.capabilities, pool.http, logsOf)
      const audit = config.audit
        ? Audit.make(
            {
              sourceInUse: member,
              singleEndpoint,
              sources: pool.sources,
              logsOf,
              logs,
              events: events.audit,
            },
            provenance,
          )
        : undefined
      return yield* followJournal(member, heads, logs, audit).pipe(
        Effect.tapError((error) => traces.abandon(error.message)),
        Effect.catchTags({
          HeadConflict: (conflict) => Effect.logDebug(conflict.message),
          FilterReplaced: suspension.yieldJournal,
          FinalityViolation: suspension.haltUntilResolved,
          StoreError: onStoreError,
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

/** Restarts a chain after a failure outside of a connection. */
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
    standoff: new ForkStandoff(),
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
      Effect.repeat(Schedule.spaced(Progress.checkInterval)),
      Defects.toOwner,
      Effect.provideService(CurrentLogLimits, limits),
      Effect.forkScoped,
    )
  }),
)
