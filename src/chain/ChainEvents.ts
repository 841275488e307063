/** Reports the events of a chain's endpoints and of its audit to the status, the log and the traces. */
import { Effect } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Monotonic from "../Monotonic.ts"
import { errorType } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { EndpointPoolOptions } from "../endpoint/EndpointPool.ts"
import type { AuditEvents } from "./Audit.ts"
import type { StepsOptions } from "./Steps.ts"
import type { FinalityOptions } from "./Finality.ts"
import { formatDuration, logEvent } from "../observability/LogEvents.ts"
import { traceFailure } from "../observability/Tracing.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"

export interface ChainEvents {
  readonly endpoint: EndpointPoolOptions["watch"]
  readonly audit: AuditEvents
  readonly disagreement: FinalityOptions["onDisagreement"]
  readonly standoff: StepsOptions["onStandoff"]
}

/** The reason of an endpoint's failure, without what the log line already contains. */
const reasonOf = ({ reason }: EndpointError) =>
  reason._tag === "Disconnected" ? reason.detail : reason.message

/** @param isStoreAvailable whether the store accepts moves: if not, the chain's phase is `store-unavailable` in any case */
export const make = (
  chain: Pick<ChainConfig, "name">,
  status: ChainStatus,
  isStoreAvailable: () => boolean,
): ChainEvents => ({
  endpoint: (rank, known) => {
    const endpoint = status.endpoints[rank]!
    endpoint.breaker = known.breaker
    endpoint.capabilities = known.capabilities
    endpoint.rateLimiter = known.rateLimiter
    let wasConnected = false
    const at = Effect.annotateLogs({ endpoint: endpoint.name })
    return {
      onRequest: (method, outcome, millis) => endpoint.requested(method, outcome, millis),
      onConnected: (connection) =>
        Effect.gen(function* () {
          endpoint.connection = connection
          endpoint.connectedSince = yield* Monotonic.millis
          endpoint.connects++
          const how = connection.polled ? ", heads are polled" : ""
          yield* at(logEvent("connected", `connected to ${endpoint.name}${how}`, {}))
        }),
      onFailure: (error) =>
        Effect.gen(function* () {
          const since = endpoint.connectedSince
          endpoint.connectedSince = undefined
          status.recordFailure(errorType(error.reason), error.message)
          if (status.endpoint === endpoint && isStoreAvailable()) status.enter("connecting")
          yield* traceFailure("connection lost", error, {
            "event_ingestor.chain": chain.name,
            "event_ingestor.endpoint": error.endpoint,
            "error.type": errorType(error.reason),
          })
          if (since === undefined) return
          const reason = reasonOf(error)
          const seconds = Math.round(((yield* Monotonic.millis) - since) / 1000)
          const text = `lost ${endpoint.name} after ${formatDuration(seconds)}: ${reason}`
          yield* at(logEvent("disconnected", text, { error_type: errorType(error.reason), reason, seconds }))
          wasConnected = true
        }),
      onWait: (error, { failures, opened, seconds }) =>
        Effect.suspend(() => {
          const isFirstAttempt = !wasConnected
          wasConnected = false
          const next_try_seconds = Math.round(seconds * 10) / 10
          const next = `next try in ${formatDuration(seconds)}`
          const reason = reasonOf(error)
          if (opened) {
            const text = `circuit to ${endpoint.name} opened after ${failures} failures: ${reason}; ${next}`
            return at(
              logEvent("circuit_open", text, { circuit: "endpoint", reason, failures, next_try_seconds }),
            )
          }
          // `onFailure` has just logged the lost connection.
          if (!isFirstAttempt) return Effect.void
          const text = `cannot connect to ${endpoint.name}: ${reason}; ${next}`
          const error_type = errorType(error.reason)
          return at(logEvent("connect_failed", text, { error_type, reason, failures, next_try_seconds }))
        }),
      onClosed: (failures) =>
        at(
          logEvent("circuit_closed", `circuit to ${endpoint.name} closed after ${failures} failures`, {
            circuit: "endpoint",
            failures,
          }),
        ),
    }
  },
  disagreement: (disagreement) =>
    Effect.gen(function* () {
      const isNew = disagreement !== undefined && status.finalDisagreement === undefined
      status.finalDisagreement = disagreement
      if (!isNew) return
      const text = `final block ${disagreement.number} differs at ${disagreement.endpoints.join(", ")}`
      for (const endpoint of disagreement.endpoints) status.contradicted(endpoint)
      status.recordFailure("unverified", text)
      yield* logEvent(
        "final_disagreement",
        disagreement.holds ? `${text}: nothing is finalized until they agree` : text,
        { block: disagreement.number, endpoints: disagreement.endpoints.join(",") },
      )
    }),
  standoff: (wait) =>
    Effect.gen(function* () {
      const isNew = status.standoffUntil === undefined
      if (wait === 0) {
        status.standoffUntil = undefined
        if (!isNew)
          yield* logEvent(
            "standoff_over",
            "the wait for another ingestor's node to leave its fork has ended",
            {},
          )
        return
      }
      status.standoffUntil = (yield* Monotonic.millis) + wait
      if (!isNew) return
      const text = "another ingestor replaced blocks that this node still serves"
      status.recordFailure("unverified", text)
      const seconds = Math.ceil(wait / 1000)
      yield* logEvent("standoff", `${text}: they are written again in ${seconds} s at the earliest`, {
        seconds,
      })
    }),
  audit: {
    missing: (logs) => void (status.auditedMissing += logs),
    extra: (logs) => void (status.auditedExtra += logs),
    unaudited: (blocks) => void (status.unaudited += blocks),
    contradicted: (endpoint, text) =>
      Effect.gen(function* () {
        status.contradicted(endpoint)
        status.recordFailure("unverified", `${endpoint}: contradicted: ${text}`)
        yield* logEvent("contradicted", `contradicted: ${text}`, { reason: text }).pipe(
          Effect.annotateLogs({ endpoint }),
        )
      }),
  },
})
