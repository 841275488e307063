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
import { say } from "../observability/LogEvents.ts"
import * as Monotonic from "../Monotonic.ts"
import { Defect } from "../endpoint/EndpointError.ts"
import * as Failover from "../endpoint/EndpointPool.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import type { Live } from "../endpoint/PoolMember.ts"
import { backoff, circuitBreaking, makeBreaker } from "../Retry.ts"
import type { Breaker } from "../Retry.ts"
import * as Audit from "./Audit.ts"
import { Memory } from "./Provenance.ts"
import * as Feed from "./Feed.ts"
import * as Heads from "../endpoint/Heads.ts"
import type { Disagreed } from "./FinalityQuorum.ts"
import * as HeadTime from "./ClockSkew.ts"
import type { Heard } from "../endpoint/Heads.ts"
import type { Step } from "./PendingJournal.ts"
import * as Logs from "../logs/LogSource.ts"
import * as LogsSubscription from "../logs/LogsSubscription.ts"
import * as OverHttp from "../logs/HttpFallback.ts"
import { SeenHeaders } from "./RecentHeaders.ts"
import { Sides } from "./ForkStandoff.ts"
import { Verification } from "../logs/Integrity.ts"
import * as Observe from "./ChainEvents.ts"
import * as Progress from "../observability/Progress.ts"
import { Redaction } from "../Redactor.ts"
import { Limited, Limits } from "../observability/LogLimits.ts"
import * as Standstill from "./Suspension.ts"
import * as Housekeeping from "../store/Housekeeping.ts"
import * as StoreBreaker from "../store/StoreBreaker.ts"
import { PushLimits } from "../store/PushLimits.ts"
import { Store } from "../store/Store.ts"
import type { StoreError } from "../store/Store.ts"
import { blockTraces } from "../observability/Tracing.ts"
import { Status } from "../observability/Status.ts"
import * as Writer from "./JournalWriter.ts"

/** Moves on their way to the store at the same time; the head each one expects is known beforehand. */
const movesInFlight = 3

/** What a chain knows that outlives a defect. */
interface Lasting {
  readonly writer: Writer.Writer
  readonly auditMemory: Memory
  readonly sides: Sides
  readonly seen: SeenHeaders
  readonly pushLimits: PushLimits
  readonly housekeeping: Housekeeping.Housekeeping
  readonly disagreed: Disagreed
  /** The breaker of the chain as a whole. */
  readonly breaker: Breaker
}

/** Follows a chain, whatever its endpoints do. */
const chainIngest = Effect.fnUntraced(function* (
  chain: ChainConfig,
  storeBreaker: StoreBreaker.StoreBreaker,
  { writer, auditMemory, sides, seen, disagreed, pushLimits, housekeeping, breaker }: Lasting,
) {
  const config = yield* AppConfig
  const store = yield* Store
  const redact = yield* Redaction
  const checks = yield* Verification
  const status = (yield* Status).chain(chain.name)
  const traces = yield* blockTraces(chain)
  const observe = Observe.make(chain, status, storeBreaker.isOpen)

  const failover = yield* Failover.make(chain, {
    requestTimeout: config.requestTimeout,
    wsMaxPayload: config.wsMaxPayload,
    rpcRate: config.rpcRate,
    watch: observe.endpoint,
  })

  const standstill = Standstill.make({ chain, store, status, writer, connected: failover.connected })
  const checkTime = HeadTime.make()
  let newestTime: number | undefined
  const newest = () => newestTime
  const alone = chain.endpoints.length + chain.rpc.length === 1
  const handled = (live: Live, heard: Heard | undefined) =>
    Effect.gen(function* () {
      if (heard !== undefined) {
        status.handledIn((yield* Monotonic.millis) - heard.at)
        status.eventLatency(Math.max((yield* Clock.currentTimeMillis) / 1000 - heard.header.timestamp, 0))
      }
      status.progress()
      yield* live.breaker.succeed
      yield* breaker.succeed
    })

  const settle =
    (live: Live) =>
    ({ step, result }: Writer.Applied) =>
      Effect.suspend(() => {
        if (result === undefined) {
          if (step._tag === "Followed") return Effect.sync(() => traces.done(step.trace))
          const agrees = sides.shown(step.journal, step.hash)
          return Effect.andThen(agrees ? observe.standoff(0) : Effect.void, handled(live, undefined))
        }
        // What is stored there may not be what this process would have written.
        if (step.move._tag === "Push") {
          if (result._tag === "Duplicate") auditMemory.othersWrote(step.move.blocks)
          else pushLimits.taken()
          sides.wrote(step.journal)
        }
        const recorded = writer.record(step, result)
        switch (step.move._tag) {
          case "Push":
            return Effect.all([
              recorded,
              observe.standoff(0),
              storeBreaker.succeed,
              handled(live, step.heard),
            ])
          case "Pop":
            return Effect.andThen(
              recorded,
              Effect.map(Monotonic.millis, (now) => sides.undid(now)),
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
      if (isUnusable(error)) return yield* standstill.refused(error)
      if (!storeBreaker.isOpen()) return
      status.enter("store-unavailable")
      status.failed("store", error.message)
      yield* storeBreaker.failed(error)
    })

  /**
   * Makes a move. One that the store does not take is made again when it may be taken, without asking a provider anything:
   * if it was taken after all, the store says that it is a duplicate, or that its head is another one.
   *
   * @param again whether it is made again
   */
  const apply = (
    step: Step,
    again: boolean,
  ): Effect.Effect<Writer.Applied, Writer.Lost | Writer.Superseded | StoreError> =>
    writer.apply(step).pipe(
      Effect.catchTags({
        Paused: () =>
          housekeeping.untilResumed.pipe(Effect.andThen(Effect.suspend(() => apply(step, again)))),
        Lost: (lost) => {
          // Whoever wrote them may have been told of other logs.
          if (step._tag === "Move" && step.move._tag === "Push") auditMemory.othersWrote(step.move.blocks)
          return Effect.fail(lost)
        },
        StoreError: (error) => {
          if (isUnusable(error)) return Effect.fail(error)
          const { move } = step as Extract<Step, { readonly _tag: "Move" }>
          // Cut anew, from what the store has.
          if (move._tag === "Push" && pushLimits.refused(move, error, again)) return Effect.fail(error)
          return refused(error).pipe(
            Effect.andThen(storeBreaker.pass),
            Effect.andThen(Effect.suspend(() => apply(step, true))),
          )
        },
      }),
    )

  const session = (live: Live, heads: Heads.Heads, logs: Logs.Logs, audit: Audit.Audit | undefined) =>
    Effect.gen(function* () {
      if (!storeBreaker.isOpen()) status.enter("store-unavailable")
      const journal = yield* writer.load
      const { connection } = live
      const steps = yield* Feed.make({
        chain,
        connection,
        heads,
        logs: audit === undefined ? logs : { ...logs, history: audit.history },
        audit,
        learned: live.learned,
        witnesses: failover.connected,
        tried: failover.tried,
        checks,
        disagreed,
        journal,
        stored: store.load(chain.id),
        filter: writer.filter,
        limits: { push: () => pushLimits.current, pop: store.limits.logs },
        knownStart: writer.start(),
        sides,
        seen,
        onStandoff: observe.standoff,
        onFinal: (header) => (status.finalSeen = header.number),
        onDisagreement: observe.disagreement,
        leave: connection.end,
      })
      status.progress()
      yield* steps.pipe(
        Stream.mapEffect((step) => apply(step, false), { concurrency: movesInFlight }),
        Stream.runForEach(settle(live)),
      )
    }).pipe(Effect.scoped)

  /** A defect costs the connection. */
  const broken = (live: Live) => (defect: unknown) =>
    Effect.andThen(
      say("defect", "a defect while following the chain", {}, defect),
      live.connection.end(new Defect({ detail: redact(String(defect)) })),
    )

  /** Follows one connection until it ends. */
  const serve = (live: Live) =>
    Effect.gen(function* () {
      const { connection } = live
      status.endpoint = status.endpoints[live.rank]
      const heads = yield* Heads.make(connection, {
        stallTimeout: config.stallTimeout,
        pollInterval: chain.pollInterval,
        traces,
        onLatest: (header) => checkTime(connection.name, header),
        onHead: ({ header, at }, blockTime) => {
          newestTime = header.timestamp
          seen.add(header)
          status.heard(header.number, at, blockTime)
          const late = connection.polled ? Duration.toMillis(chain.pollInterval) : 0
          failover.heard({ number: header.number, at, blockTime, late })
        },
        onQuiet: Effect.andThen(
          live.breaker.succeed,
          Effect.sync(() => status.quiet()),
        ),
      })
      const logsOf = (of: Live<Connection>) => Logs.make(of.connection, chain, of.learned, checks, newest)
      const announced = yield* LogsSubscription.make(connection)
      const socket = Logs.make(connection, chain, live.learned, checks, newest, announced)
      const logs = OverHttp.prefer(socket, live.learned, failover.http, logsOf)
      const audit = config.audit
        ? Audit.make(
            { sourceInUse: live, alone, sources: failover.sources, logsOf, logs, findings: observe.findings },
            auditMemory,
          )
        : undefined
      return yield* session(live, heads, logs, audit).pipe(
        Effect.tapError((error) => traces.abandon(error.message)),
        Effect.catchTags({
          Lost: (lost) => Effect.logDebug(lost.message),
          Superseded: standstill.stepAside,
          Contradiction: standstill.halt,
          StoreError: refused,
        }),
        Effect.forever,
      )
    }).pipe(
      Effect.raceFirst(live.connection.ended),
      Effect.tapError((error) => traces.abandon(error.message)),
      Effect.catch((error) => live.connection.end(error.reason)),
      Effect.catchDefect(broken(live)),
      Effect.ensuring(traces.abandon("another endpoint is in use")),
      Effect.scoped,
      Effect.provideService(Defects.Owner, broken(live)),
    )

  return yield* failover.active.pipe(
    Stream.switchMap((live) => Stream.fromEffectDrain(serve(live))),
    Stream.runDrain,
  )
})

/** Restarts a chain after whatever went wrong outside of a connection. */
const supervised = Effect.fnUntraced(function* (chain: ChainConfig) {
  const redact = yield* Redaction
  const breaker = yield* makeBreaker
  const store = yield* Store
  const storeBreaker = yield* StoreBreaker.make(store.ping(chain.id))
  const writer = yield* Writer.make(chain, storeBreaker)
  const disagreed: Disagreed = { endpoints: [], at: -Infinity }
  const status = (yield* Status).chain(chain.name)
  status.storeBreaker = storeBreaker.breaker
  const { retention } = yield* AppConfig
  const housekeeping = yield* Housekeeping.make(store.trim(chain.id), retention, (holder) =>
    status.held(holder),
  )
  const lasting = {
    writer,
    auditMemory: new Memory(),
    sides: new Sides(),
    seen: new SeenHeaders(),
    disagreed,
    pushLimits: new PushLimits(store.limits),
    housekeeping,
    breaker,
  }
  const followed = Effect.gen(function* () {
    const defect = yield* Deferred.make<never>()
    return yield* chainIngest(chain, storeBreaker, lasting).pipe(
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
        status.failed("defect", text)
        status.enter("connecting")
        for (const endpoint of status.endpoints) endpoint.connectedSince = undefined
        yield* say("chain_failed", "the chain failed and is restarted", {}, cause)
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
    const limits = new Limits()
    const fibers = yield* FiberMap.make<string>()
    const followed = (chain: ChainConfig) => Effect.provideService(supervised(chain), Limited, limits)
    for (const chain of chains) yield* FiberMap.run(fibers, chain.name, followed(chain))
    yield* Effect.andThen(Progress.make((yield* Status).chains), limits.flush).pipe(
      Effect.repeat(Schedule.spaced(Progress.lookEvery)),
      Defects.toOwner,
      Effect.provideService(Limited, limits),
      Effect.forkScoped,
    )
  }),
)
