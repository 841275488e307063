/** What follows a chain over one connection: its heads, its logs, their audit, and the steps that they lead to. */
import { Duration, Effect } from "effect"
import type { Scope, Stream } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { EndpointPool } from "../endpoint/EndpointPool.ts"
import * as Heads from "../endpoint/Heads.ts"
import type { PoolMember } from "../endpoint/PoolMember.ts"
import * as HttpFallback from "../logs/HttpFallback.ts"
import { Verification } from "../logs/Integrity.ts"
import * as LogSource from "../logs/LogSource.ts"
import * as LogsSubscription from "../logs/LogsSubscription.ts"
import type { BlockTraces } from "../observability/Tracing.ts"
import { Store } from "../store/Store.ts"
import type { StoreError } from "../store/Store.ts"
import * as Audit from "./Audit.ts"
import type { ChainEvents } from "./ChainEvents.ts"
import type { ChainState } from "./ChainState.ts"
import * as ClockSkew from "./ClockSkew.ts"
import type { FinalityViolation } from "./CrossCheck.ts"
import type { FilterReplaced } from "./JournalWriter.ts"
import type { ChainStep } from "./PendingJournal.ts"
import * as Steps from "./Steps.ts"

export interface FollowingOptions {
  readonly chain: ChainConfig
  readonly state: ChainState
  readonly pool: EndpointPool
  readonly events: ChainEvents
  readonly traces: BlockTraces
}

/** The steps from the journal as the store has it now. */
export type StepsFromJournal = Effect.Effect<
  Stream.Stream<ChainStep, EndpointError | FinalityViolation | StoreError>,
  EndpointError | FinalityViolation | FilterReplaced | StoreError,
  Scope.Scope
>

/** Follows connections, one after the other; each for as long as the scope. */
export const make = Effect.fnUntraced(function* ({ chain, state, pool, events, traces }: FollowingOptions) {
  const { status, storeBreaker, writer, provenance, pushLimits, recentHeaders } = state
  const config = yield* AppConfig
  const store = yield* Store
  const checks = yield* Verification
  const checkClockSkew = ClockSkew.make()
  const singleEndpoint = chain.endpoints.length + chain.rpc.length === 1
  let lastHeadTime: number | undefined

  const headsOf = (member: PoolMember) =>
    Heads.make(member.connection, {
      stallTimeout: config.stallTimeout,
      pollInterval: chain.pollInterval,
      traces,
      onLatest: (header) => checkClockSkew(member.connection.name, header),
      onHead: ({ header, at }, blockTime) => {
        lastHeadTime = header.timestamp
        recentHeaders.add(header)
        status.headAnnounced(header, at, blockTime)
        const pollDelay = member.connection.polled ? Duration.toMillis(chain.pollInterval) : 0
        pool.headAnnounced({ number: header.number, at, blockTime, late: pollDelay })
      },
      onQuiet: Effect.andThen(
        member.breaker.succeed,
        Effect.sync(() => status.confirmedIdle()),
      ),
    })

  const logsOf = (of: PoolMember, subscription?: LogsSubscription.LogsSubscription) =>
    LogSource.make(of.connection, chain, of.capabilities, checks, () => lastHeadTime, subscription)

  return (member: PoolMember): Effect.Effect<StepsFromJournal, EndpointError, Scope.Scope> =>
    Effect.gen(function* () {
      const { connection, capabilities } = member
      status.endpoint = status.endpoints[member.rank]
      const heads = yield* headsOf(member)
      const socket = logsOf(member, yield* LogsSubscription.make(connection))
      const logs = HttpFallback.preferHttp(socket, capabilities, pool.http, (of) => logsOf(of))
      const auditOptions = { sourceInUse: member, singleEndpoint, sources: pool.sources, logs }
      const audit = config.audit
        ? Audit.make({ ...auditOptions, logsOf: (of) => logsOf(of), events: events.audit }, provenance)
        : undefined
      return Effect.gen(function* () {
        if (!storeBreaker.isOpen()) status.enter("store-unavailable")
        const journal = yield* writer.load
        const steps = yield* Steps.make({
          ...state,
          chain,
          connection,
          heads,
          logs: audit === undefined ? logs : { ...logs, finalizedRange: audit.finalizedRange },
          audit,
          capabilities,
          endpoints: pool.connected,
          firstAttempts: pool.firstAttempts,
          checks,
          journal,
          stored: store.load(chain.id),
          filter: writer.filter,
          limits: { push: () => pushLimits.current, pop: store.limits.logs },
          knownStart: writer.start(),
          onStandoff: events.standoff,
          onFinal: (header) => status.finalAnnounced(header),
          onDisagreement: events.disagreement,
          disconnect: connection.end,
        })
        status.updatePhase()
        return steps
      })
    })
})
