/**
 * The metrics of a chain. A counter is increased by `ChainStatus.add`, a value is recorded by `ChainStatus.observe`, and a
 * gauge is read at each scrape and costs nothing in between.
 */
import { errorTypes } from "../endpoint/EndpointError.ts"
import { breakerCode } from "./EndpointMetrics.ts"
import { latencies, makeTable } from "./MetricFamily.ts"
import type { Family, Registry, Unit } from "./MetricFamily.ts"
import type { ChainStatus } from "./ChainStatus.ts"

const table = makeTable()

type ChainFamily = Family<"chain">

const perChain = ["chain"] as const
const counters: Array<ChainFamily> = []
const histograms: Array<ChainFamily> = []
const read: Array<readonly [family: ChainFamily, value: (chain: ChainStatus) => number]> = []

const counted = (family: ChainFamily) => (counters.push(family), family)

const counter = (name: string, unit: Unit, help: string) => counted(table.counter(name, perChain, unit, help))

const original = (name: string, unit: Unit, help: string) =>
  counted(table.originalCounter(name, perChain, unit, help))

const gauge = (name: string, unit: Unit, help: string, value: (chain: ChainStatus) => number) =>
  void read.push([table.gauge(name, perChain, unit, help), value])

const histogram = (name: string, unit: Unit, help: string, buckets: ReadonlyArray<number>) => {
  const family = table.histogram(name, perChain, unit, help, buckets)
  histograms.push(family)
  return family
}

// -- the seven metrics of the original system

export const eventsReceived = original(
  "events_received_total",
  "{log}",
  "Logs verified and ready to be pushed",
)
export const eventsPublished = original(
  "events_published_total",
  "{log}",
  "Logs that the store acknowledged as new",
)
export const eventsDeduplicated = original(
  "events_deduplicated_total",
  "{log}",
  "Logs of blocks that the store already had",
)
read.push([
  table.originalCounter(
    "websocket_reconnects_total",
    perChain,
    "{reconnect}",
    "Connections made after the first one, to any endpoint",
  ),
  (chain) => chain.reconnects,
])
read.push([
  table.originalGauge(
    "circuit_breaker_state",
    perChain,
    "1",
    "Breaker of the endpoint in use: 0 closed, 1 open, 2 half-open",
  ),
  (chain) => breakerCode(chain.breakerState),
])
const eventProcessingErrors = table.originalCounter(
  "event_processing_errors_total",
  ["chain", "error_type"],
  "{error}",
  "Errors by type",
)
read.push([
  table.originalGauge("consecutive_failures", perChain, "1", "Consecutive failures of the endpoint in use"),
  (chain) => chain.breakerState.failures,
])

// -- the journal

export const eventsRemoved = counter(
  "events_removed_total",
  "{log}",
  "Logs retracted by a reorg: entries with removed=true",
)
export const eventsRemovedIncomplete = counter(
  "events_removed_incomplete_total",
  "{log}",
  "Logs that could not be retracted because their entries had been deleted",
)
export const eventsUndecoded = counter(
  "events_undecoded_total",
  "{log}",
  "Logs that were published without args because they could not be decoded by EVENTS",
)
export const eventsAuditedMissing = counter(
  "events_audited_missing_total",
  "{log}",
  "Logs that the audit of finalized blocks found missing and added",
)
export const eventsAuditedExtra = counter(
  "events_audited_extra_total",
  "{log}",
  "Logs that the audit of finalized blocks found to be wrong and retracted",
)
export const blocksUnaudited = counter(
  "blocks_unaudited_total",
  "{block}",
  "Finalized blocks that were not audited",
)
export const storeRegressions = counter(
  "store_regressions_total",
  "1",
  "Times the store had lost entries that it had acknowledged",
)
export const reorgDepth = histogram(
  "reorg_depth_blocks",
  "{block}",
  "Blocks that one reorg replaced, with or without logs",
  [1, 2, 3, 5, 8, 13, 21, 34, 64, 128],
)
export const eventLatency = histogram(
  "event_latency_seconds",
  "s",
  "Time from the block's timestamp to the store's acknowledgement, for live blocks",
  latencies,
)
export const publishLatency = histogram(
  "publish_latency_seconds",
  "s",
  "Time from receiving a head to the store's acknowledgement",
  latencies,
)
export const publishBatchSize = histogram(
  "publish_batch_size",
  "{log}",
  "Logs per push",
  [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
)
gauge("feed_queue_size", "1", "Moves in flight", (chain) => chain.inFlight)
gauge("chain_head_block", "{block}", "Highest announced block", (chain) => chain.head ?? 0)
gauge("chain_stored_block", "{block}", "Head of the journal", (chain) => chain.stored ?? 0)
gauge("chain_final_block", "{block}", "Highest finalized block in the store", (chain) => chain.final ?? 0)
gauge(
  "chain_head_age_seconds",
  "s",
  "Time since a head was announced, or since the endpoint confirmed that the chain is idle",
  (chain) => chain.headAge,
)
gauge(
  "chain_lag_seconds",
  "s",
  "Time between the newest stored block and the newest block that CONFIRMATIONS allows to store, by their timestamps; 0 when none is missing",
  (chain) => chain.lagSeconds,
)
gauge(
  "chain_final_age_seconds",
  "s",
  "Time between the highest stored final block and the newest announced block, by their timestamps",
  (chain) => chain.finalAge,
)
gauge(
  "chain_halted",
  "1",
  "1 when final blocks contradict each other or a later release wrote the journal: an operator must decide",
  (chain) => Number(chain.phase === "halted"),
)
gauge("finality_disagreement", "1", "1 while endpoints show different blocks at a final height", (chain) =>
  Number(chain.finalDisagreement !== undefined),
)

// -- the store, as the chain sees it

gauge(
  "store_circuit_breaker_state",
  "1",
  "Breaker between the chain and the store: 0 closed, 1 open, 2 half-open",
  (chain) => breakerCode(chain.storeBreakerState),
)
gauge("stream_length", "{entry}", "Entries in the chain's stream", (chain) => chain.stats?.entries ?? 0)
gauge(
  "stream_paused",
  "1",
  "1 while publishing to the chain's stream is paused because a pinned reader is too far behind",
  (chain) => Number(chain.holder?.paused !== undefined),
)

const followed = table.gauge(
  "chain_followed",
  perChain,
  "1",
  "1 while this process follows the chain; 0 while another replica of the fleet does, and then the chain has no other series here",
)

export const { definitions } = table

/** Registers the series that tells whether the chain is followed here. */
export const registerFollowed = (chain: ChainStatus, registry: Registry): void =>
  void followed.read({ chain: chain.name }, () => Number(chain.followed), registry)

/** Registers the series of a chain. */
export const register = (chain: ChainStatus, registry: Registry): void => {
  const labels = { chain: chain.name }
  for (const family of counters) family.read(labels, () => chain.count(family), registry)
  for (const family of histograms) chain.recordWith(family, family.record(labels, registry))
  for (const [family, value] of read) family.read(labels, () => value(chain), registry)
  for (const type of errorTypes)
    eventProcessingErrors.read({ ...labels, error_type: type }, () => chain.errors[type], registry)
}
