/** What follows a chain over one connection: its heads, its logs, their audit, and the steps that they lead to. */
import { Effect } from "effect"
import type { Scope, Stream } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { EndpointPool } from "../endpoint/EndpointPool.ts"
import type { Endpoint } from "../endpoint/Endpoint.ts"
import * as HttpFallback from "../logs/HttpFallback.ts"
import { CurrentIntegrityChecks } from "../logs/Integrity.ts"
import * as LogSource from "../logs/LogSource.ts"
import * as LogsSubscription from "../logs/LogsSubscription.ts"
import { JournalStore } from "../store/JournalStore.ts"
import * as Audit from "./Audit.ts"
import type { ChainState } from "./ChainState.ts"
import type { FinalityViolation } from "./CrossCheck.ts"
import type { FilterReplaced } from "./JournalWriter.ts"
import type { ChainStep } from "./PendingJournal.ts"
import * as Steps from "./Steps.ts"
import type { StoreError } from "../store/StoreError.ts"

export interface FollowingOptions {
  readonly chain: ChainConfig
  readonly state: ChainState
  readonly pool: EndpointPool
}

/** The steps from the journal as the store has it now. */
export type StepsFromJournal = Effect.Effect<
  Stream.Stream<ChainStep, EndpointError | FinalityViolation | StoreError>,
  EndpointError | FinalityViolation | FilterReplaced | StoreError,
  Scope.Scope
>

/** Follows endpoints, one after the other; each for as long as the scope. */
export const make = Effect.fnUntraced(function* ({ chain, state, pool }: FollowingOptions) {
  const { events, inTurn, storeBreaker, writer, provenance, pushLimits } = state
  const config = yield* AppConfig
  const store = yield* JournalStore
  const checks = yield* CurrentIntegrityChecks
  const singleEndpoint = chain.endpoints.length + chain.rpc.length === 1

  return (endpoint: Endpoint): Effect.Effect<StepsFromJournal, EndpointError, Scope.Scope> =>
    Effect.gen(function* () {
      const { connection, capabilities } = endpoint
      events.record({ _tag: "EndpointFollowed", endpoint: connection.name })
      const heads = yield* endpoint.heads
      const newestTime = () => heads.last()?.header.timestamp
      const logsOf = (of: Endpoint) =>
        LogSource.make(of.connection, chain, of.capabilities, checks, newestTime)
      const subscription = yield* LogsSubscription.make(connection)
      const socket = LogSource.make(connection, chain, capabilities, checks, newestTime, subscription)
      const logs = HttpFallback.preferHttp(socket, capabilities, pool.http, logsOf)
      const auditOptions = { sourceInUse: endpoint, singleEndpoint, sources: pool.sources, logs }
      const audit = config.audit
        ? Audit.make({ ...auditOptions, logsOf, events, provenance, inTurn })
        : undefined
      return Effect.gen(function* () {
        if (!storeBreaker.acceptsMoves()) events.record({ _tag: "StoreAwaited", error: undefined })
        const journal = yield* writer.load
        const steps = yield* Steps.make({
          ...state,
          chain,
          connection,
          heads,
          logs: audit === undefined ? logs : { ...logs, finalizedRange: audit.finalizedRange },
          audit,
          capabilities,
          connections: pool.connected,
          firstAttempts: pool.firstAttempts,
          checks,
          journal,
          stored: store.load(chain.id),
          filter: writer.filter,
          limits: { push: () => pushLimits.current, pop: store.limits.logs },
          knownStart: writer.start(),
          disconnect: connection.end,
        })
        events.record({ _tag: "Following" })
        return steps
      })
    })
})
