/** Maps each metric series to the number of Status that it reads. */
import type { Clock } from "effect"
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Monotonic from "../Monotonic.ts"
import type { Outcome } from "../endpoint/RpcClient.ts"
import { errorTypes } from "../endpoint/EndpointError.ts"
import * as Metrics from "./Metrics.ts"
import type { Family, Registry } from "./MetricFamily.ts"
import { signals } from "./Tracing.ts"
import type { Signal } from "./Tracing.ts"
import { version } from "../Version.ts"
import type { ChainStatus } from "./ChainStatus.ts"
import type { EndpointStatus } from "./EndpointStatus.ts"
import type { StoreStatus } from "./StoreStatus.ts"

const breakerCodes = { Closed: 0, Open: 1, HalfOpen: 2 } as const

const outcomes: ReadonlyArray<Outcome> = ["ok", "refused", "lost"]

const ofEndpoint = (chain: string, endpoint: EndpointStatus, registry: Registry) => {
  const labels = { chain, endpoint: endpoint.name }
  Metrics.endpointBreakerState.read(labels, () => breakerCodes[endpoint.breakerState._tag], registry)
  Metrics.endpointAuditMismatches.read(labels, () => endpoint.contradicted, registry)
  for (const [method, counts] of endpoint.requests) {
    for (const outcome of outcomes) {
      Metrics.rpcRequests.read({ ...labels, method, outcome }, () => counts[outcome], registry)
    }
  }
}

/** The series of a chain and of its endpoints. */
export const ofChain = (chain: ChainStatus, clock: Clock.Clock, registry: Registry) => {
  const labels = { chain: chain.name }
  const series: ReadonlyArray<readonly [Family<"chain">, () => number]> = [
    [Metrics.eventsReceived, () => chain.received],
    [Metrics.eventsPublished, () => chain.published],
    [Metrics.eventsDeduplicated, () => chain.deduplicated],
    [Metrics.eventsRemoved, () => chain.removed],
    [Metrics.eventsRemovedIncomplete, () => chain.removedIncomplete],
    [Metrics.eventsAuditedMissing, () => chain.auditedMissing],
    [Metrics.eventsAuditedExtra, () => chain.auditedExtra],
    [Metrics.blocksUnaudited, () => chain.unaudited],
    [Metrics.websocketReconnects, () => chain.reconnects],
    [Metrics.circuitBreakerState, () => breakerCodes[chain.breakerState._tag]],
    [Metrics.consecutiveFailures, () => chain.breakerState.failures],
    [Metrics.chainHead, () => chain.head ?? 0],
    [Metrics.chainStored, () => chain.stored ?? 0],
    [Metrics.chainFinal, () => chain.final ?? 0],
    [Metrics.chainHeadAge, () => (Monotonic.millisUnsafe(clock) - chain.headSince) / 1000],
    [Metrics.chainLag, () => chain.lagSeconds],
    [Metrics.chainFinalAge, () => chain.finalAge],
    [Metrics.storeBreakerState, () => breakerCodes[chain.storeBreakerState._tag]],
    [Metrics.finalityDisagreement, () => (chain.finalDisagreement === undefined ? 0 : 1)],
    [Metrics.chainHalted, () => (chain.phase === "halted" ? 1 : 0)],
    [Metrics.feedQueueSize, () => chain.inFlight],
    [Metrics.streamPaused, () => (chain.holder?.paused ? 1 : 0)],
    [Metrics.storeRegressions, () => chain.storeRegressions],
    [Metrics.streamLength, () => chain.stats?.entries ?? 0],
  ]
  for (const [family, value] of series) family.read(labels, value, registry)
  for (const endpoint of chain.endpoints) ofEndpoint(chain.name, endpoint, registry)
  for (const type of errorTypes) {
    Metrics.eventProcessingErrors.read({ ...labels, error_type: type }, () => chain.errors[type], registry)
  }
}

/** The series of the store. */
export const ofStore = (store: StoreStatus, registry: Registry) => {
  Metrics.storeMemory.read({}, () => store.info?.bytes ?? 0, registry)
  Metrics.storeMemoryLimit.read({}, () => store.info?.limit ?? 0, registry)
  Metrics.storeEvictionUnsafe.read({}, () => (store.evictionUnsafe ? 1 : 0), registry)
}

/** The series of undelivered telemetry. */
export const ofTelemetry = (dropped: Readonly<Record<Signal, number>>, registry: Registry): void => {
  for (const signal of signals) Metrics.telemetryDropped.read({ signal }, () => dropped[signal], registry)
}

const quantiles = [50, 99]

/** CPU, memory and event loop of this process. @param startedAt unix milliseconds */
export const ofProcess = (startedAt: number, registry: Registry): void => {
  // The monitor measures the interval of its own timer: the excess over its resolution is delay.
  const resolution = 50
  const delay = monitorEventLoopDelay({ resolution })
  delay.enable()
  // Over the last minute: over all time, a current stall would not show.
  let since = performance.now()
  let lastMinute: ReadonlyMap<number, number> | undefined
  const delayAt = (quantile: number): number => {
    if (performance.now() - since >= 60_000) {
      lastMinute = new Map(quantiles.map((one) => [one, delay.percentile(one)]))
      delay.reset()
      since = performance.now()
    }
    return lastMinute?.get(quantile) ?? delay.percentile(quantile)
  }
  Metrics.buildInfo.read({ version }, () => 1, registry)
  Metrics.processStart.read({}, () => startedAt / 1000, registry)
  Metrics.processCpu.read({}, () => (process.cpuUsage().user + process.cpuUsage().system) / 1e6, registry)
  Metrics.processMemory.read({}, () => process.memoryUsage.rss(), registry)
  Metrics.heapUsed.read({}, () => process.memoryUsage().heapUsed, registry)
  const lag = (quantile: number) => Math.max(delayAt(quantile) / 1e6 - resolution, 0) / 1000
  Metrics.eventLoopLagMedian.read({}, () => lag(50), registry)
  Metrics.eventLoopLagHigh.read({}, () => lag(99), registry)
}
