/** What happens to a chain's endpoints, and what the second look finds: told to its status, its log and its traces. */
import { Effect } from "effect"
import type { ChainConfig } from "./Config.ts"
import * as Monotonic from "./Monotonic.ts"
import { errorType } from "./endpoint/EndpointError.ts"
import type { FailoverOptions } from "./endpoint/Failover.ts"
import type { Findings } from "./feed/Audit.ts"
import type { FeedOptions } from "./feed/Feed.ts"
import type { FinalityOptions } from "./feed/Finality.ts"
import * as Repeats from "./Repeats.ts"
import { traceFailure } from "./Tracing.ts"
import type { ChainStatus } from "./web/ChainStatus.ts"

export interface Observe {
  readonly endpoint: FailoverOptions["watch"]
  readonly findings: Findings
  readonly disagreement: FinalityOptions["onDisagreement"]
  readonly standoff: FeedOptions["onStandoff"]
}

/** @param takesMoves whether the store does: else that is what the chain waits for, whatever its endpoints do */
export const make = (
  chain: Pick<ChainConfig, "name">,
  status: ChainStatus,
  takesMoves: () => boolean,
): Observe => ({
  endpoint: (rank, known) => {
    const endpoint = status.endpoints[rank]!
    endpoint.breaker = known.breaker
    endpoint.learned = known.learned
    endpoint.budget = known.budget
    const repeats = Repeats.make()
    return {
      onRequest: (method, outcome, millis) => endpoint.requested(method, outcome, millis),
      onConnected: (connection) =>
        Effect.gen(function* () {
          endpoint.connection = connection
          endpoint.connectedSince = yield* Monotonic.millis
          endpoint.connects++
          yield* repeats.over.pipe(Effect.annotateLogs({ endpoint: endpoint.name }))
        }),
      onFailure: (error) =>
        Effect.gen(function* () {
          endpoint.connectedSince = undefined
          status.failed(errorType(error.reason), error.message)
          if (status.endpoint === endpoint && takesMoves()) status.enter("connecting")
          yield* traceFailure("connection lost", error, {
            "event_ingestor.chain": chain.name,
            "event_ingestor.endpoint": error.endpoint,
            "error.type": errorType(error.reason),
          })
          yield* repeats.warn(error.reason.message).pipe(Effect.annotateLogs({ endpoint: error.endpoint }))
        }),
    }
  },
  disagreement: (disagreement) =>
    Effect.gen(function* () {
      const isNew = disagreement !== undefined && status.finalDisagreement === undefined
      status.finalDisagreement = disagreement
      if (!isNew) return
      const text = `final block ${disagreement.number} is another one at ${disagreement.endpoints.join(", ")}`
      for (const endpoint of disagreement.endpoints) status.contradicted(endpoint)
      status.failed("unverified", text)
      yield* Effect.logError(disagreement.holds ? `${text}: nothing is made final until they agree` : text)
    }),
  standoff: (wait) =>
    Effect.gen(function* () {
      const isNew = status.standoffUntil === undefined
      if (wait === 0) {
        status.standoffUntil = undefined
        if (!isNew) yield* Effect.logInfo("the wait for another ingestor's node to leave its fork is over")
        return
      }
      status.standoffUntil = (yield* Monotonic.millis) + wait
      if (!isNew) return
      const text = "another ingestor replaced blocks that this node still shows"
      status.failed("unverified", text)
      yield* Effect.logWarning(
        `${text}: they are written again in ${Math.ceil(wait / 1000)} s at the earliest`,
      )
    }),
  findings: {
    missing: (logs) => void (status.auditedMissing += logs),
    extra: (logs) => void (status.auditedExtra += logs),
    unaudited: (blocks) => void (status.unaudited += blocks),
    contradicted: (endpoint, text) =>
      Effect.gen(function* () {
        status.contradicted(endpoint)
        status.failed("unverified", `${endpoint}: contradicted: ${text}`)
        yield* Effect.logWarning(`contradicted: ${text}`).pipe(Effect.annotateLogs({ endpoint }))
      }),
  },
})
