/**
 * Every metric: name, type, unit, labels and meaning, in one table, from which docs/METRICS.md is generated.
 *
 * Names are `event_ingestor_…`. The seven metrics of the original system also exist under their bare names. Metrics of the
 * Node process have the names of prom-client, so that common dashboards work.
 *
 * Most series are read from the plain numbers of Status at each scrape and cost nothing in between. Only histograms record
 * each value, once per block, request or call. Labels are bounded: chain, endpoint name, method, error type; never a URL,
 * a hash or a height.
 */
import { Family } from "./MetricFamily.ts"
import type { Definition, MetricType, Unit } from "./MetricFamily.ts"

const families: Array<Family<string>> = []

const namespace = "event_ingestor_"

const define =
  (type: MetricType, naming: (given: string) => Pick<Definition, "name" | "bareName">) =>
  <const Label extends string = never>(
    given: string,
    labels: ReadonlyArray<Label>,
    unit: Unit,
    help: string,
    buckets?: ReadonlyArray<number>,
  ): Family<Label> => {
    const family = new Family<Label>({
      ...naming(given),
      type,
      unit,
      labels,
      help,
      ...(buckets && { buckets }),
    })
    families.push(family as unknown as Family<string>)
    return family
  }

const ours = (given: string) => ({ name: namespace + given })
const originals = (given: string) => ({ name: namespace + given, bareName: given })
const standard = (given: string) => ({ name: given })

const counter = define("counter", ours)
const gauge = define("gauge", ours)
const histogram = define("histogram", ours)
const originalCounter = define("counter", originals)
const originalGauge = define("gauge", originals)
const standardCounter = define("counter", standard)
const standardGauge = define("gauge", standard)

/** Latencies: 1 ms … 60 s in steps of 1, 2.5, 5. */
const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 60]

// -- the seven metrics of the original system, also under their bare names

export const eventsReceived = originalCounter(
  "events_received_total",
  ["chain"],
  "{log}",
  "Logs verified and ready to be pushed",
)
export const eventsPublished = originalCounter(
  "events_published_total",
  ["chain"],
  "{log}",
  "Logs that the store acknowledged as new",
)
export const eventsDeduplicated = originalCounter(
  "events_deduplicated_total",
  ["chain"],
  "{log}",
  "Logs of blocks that the store already had",
)
export const websocketReconnects = originalCounter(
  "websocket_reconnects_total",
  ["chain"],
  "{reconnect}",
  "Connections made after the first one, to any endpoint",
)
export const circuitBreakerState = originalGauge(
  "circuit_breaker_state",
  ["chain"],
  "1",
  "Breaker of the endpoint in use: 0 closed, 1 open, 2 half-open",
)
export const eventProcessingErrors = originalCounter(
  "event_processing_errors_total",
  ["chain", "error_type"],
  "{error}",
  "Errors by type",
)
export const consecutiveFailures = originalGauge(
  "consecutive_failures",
  ["chain"],
  "1",
  "Consecutive failures of the endpoint in use",
)

// -- the journal

export const eventsRemoved = counter(
  "events_removed_total",
  ["chain"],
  "{log}",
  "Logs retracted by a reorg: entries with removed=true",
)
export const eventsRemovedIncomplete = counter(
  "events_removed_incomplete_total",
  ["chain"],
  "{log}",
  "Logs that could not be retracted because their entries had been deleted",
)
export const eventsAuditedMissing = counter(
  "events_audited_missing_total",
  ["chain"],
  "{log}",
  "Logs that the audit of finalized blocks found missing and added",
)
export const eventsAuditedExtra = counter(
  "events_audited_extra_total",
  ["chain"],
  "{log}",
  "Logs that the audit of finalized blocks found to be wrong and retracted",
)
export const blocksUnaudited = counter(
  "blocks_unaudited_total",
  ["chain"],
  "{block}",
  "Finalized blocks that were not audited",
)
export const reorgDepth = histogram(
  "reorg_depth_blocks",
  ["chain"],
  "{block}",
  "Blocks that one reorg replaced, with or without logs",
  [1, 2, 3, 5, 8, 13, 21, 34, 64, 128],
)
export const chainHead = gauge("chain_head_block", ["chain"], "{block}", "Highest announced block")
export const chainStored = gauge("chain_stored_block", ["chain"], "{block}", "Head of the journal")
export const chainFinal = gauge(
  "chain_final_block",
  ["chain"],
  "{block}",
  "Highest finalized block in the store",
)
export const chainHeadAge = gauge(
  "chain_head_age_seconds",
  ["chain"],
  "s",
  "Time since a head was announced, or since the endpoint confirmed that the chain is idle",
)
export const chainLag = gauge(
  "chain_lag_seconds",
  ["chain"],
  "s",
  "Time between the newest stored block and the newest block that CONFIRMATIONS allows to store, by their timestamps; 0 when none is missing",
)
export const chainFinalAge = gauge(
  "chain_final_age_seconds",
  ["chain"],
  "s",
  "Time between the highest stored final block and the newest announced block, by their timestamps",
)
export const chainHalted = gauge(
  "chain_halted",
  ["chain"],
  "1",
  "1 when final blocks contradict each other or a later release wrote the journal: an operator must decide",
)
export const finalityDisagreement = gauge(
  "finality_disagreement",
  ["chain"],
  "1",
  "1 while endpoints show different blocks at a final height",
)
export const eventLatency = histogram(
  "event_latency_seconds",
  ["chain"],
  "s",
  "Time from the block's timestamp to the store's acknowledgement, for live blocks",
  seconds,
)
export const publishLatency = histogram(
  "publish_latency_seconds",
  ["chain"],
  "s",
  "Time from receiving a head to the store's acknowledgement",
  seconds,
)
export const publishBatchSize = histogram(
  "publish_batch_size",
  ["chain"],
  "{log}",
  "Logs per push",
  [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
)
export const feedQueueSize = gauge("feed_queue_size", ["chain"], "1", "Moves in flight")

// -- endpoints

export const endpointBreakerState = gauge(
  "endpoint_circuit_breaker_state",
  ["chain", "endpoint"],
  "1",
  "Breaker of an endpoint: 0 closed, 1 open, 2 half-open",
)
export const endpointAuditMismatches = counter(
  "endpoint_audit_mismatches_total",
  ["chain", "endpoint"],
  "1",
  "Audit mismatches, of logs or of a final block, attributed to the endpoint",
)
export const rpcRequests = counter(
  "rpc_requests_total",
  ["chain", "endpoint", "method", "outcome"],
  "{request}",
  "Requests by method and outcome: ok, refused, lost (no response)",
)
export const rpcRequestDuration = histogram(
  "rpc_request_duration_seconds",
  ["chain", "endpoint"],
  "s",
  "Time from sending a request to receiving its response",
  seconds,
)

// -- the store

export const storeBreakerState = gauge(
  "store_circuit_breaker_state",
  ["chain"],
  "1",
  "Breaker between the chain and the store: 0 closed, 1 open, 2 half-open",
)
export const storeOperationDuration = histogram(
  "store_operation_duration_seconds",
  ["operation"],
  "s",
  "Time from a call to its acknowledgement, by operation",
  seconds,
)
export const storeMemory = gauge(
  "store_memory_bytes",
  [],
  "By",
  "Memory used by Redis, or the size of the SQLite file",
)
export const storeMemoryLimit = gauge(
  "store_memory_limit_bytes",
  [],
  "By",
  "maxmemory of Redis; 0 means no limit",
)
export const storeEvictionUnsafe = gauge(
  "store_eviction_unsafe",
  [],
  "1",
  "1 when the maxmemory-policy of Redis may evict streams",
)
export const streamLength = gauge("stream_length", ["chain"], "{entry}", "Entries in the chain's stream")
export const streamGroupLag = gauge(
  "stream_group_lag",
  ["chain", "group"],
  "{entry}",
  "Entries not yet delivered to a consumer group (the 20 groups furthest behind)",
)
export const streamGroupPending = gauge(
  "stream_group_pending",
  ["chain", "group"],
  "{entry}",
  "Entries delivered to a consumer group and not acknowledged (the 20 groups furthest behind)",
)
export const streamGroupConsumers = gauge(
  "stream_group_consumers",
  ["chain", "group"],
  "1",
  "Consumers of a consumer group, active or not (the 20 groups furthest behind)",
)
export const streamGroupIdle = gauge(
  "stream_group_idle_seconds",
  ["chain", "group"],
  "s",
  "Time since a consumer of the group last read or claimed entries; 0 while all are acknowledged (the 20 groups furthest behind)",
)
export const streamGroupMissed = counter(
  "stream_group_missed_total",
  ["chain", "group"],
  "{entry}",
  "Entries trimmed before their delivery to a consumer group; 0 until the group has had a consumer (the 20 groups furthest behind)",
)
export const streamReaderLag = gauge(
  "stream_reader_lag",
  ["chain", "reader"],
  "{entry}",
  "Entries not yet read by a reader with its own checkpoint (the 20 readers furthest behind)",
)
export const streamReaderIdle = gauge(
  "stream_reader_idle_seconds",
  ["chain", "reader"],
  "s",
  "Time since a reader with its own checkpoint last reported its position (the 20 readers furthest behind)",
)
export const streamReaderMissed = counter(
  "stream_reader_missed_total",
  ["chain", "reader"],
  "{entry}",
  "Entries trimmed before a reader with its own checkpoint read them (the 20 readers furthest behind)",
)
export const streamPaused = gauge(
  "stream_paused",
  ["chain"],
  "1",
  "1 while publishing to the chain's stream is paused because a pinned reader is too far behind",
)
export const storeRegressions = counter(
  "store_regressions_total",
  ["chain"],
  "1",
  "Times the store had lost entries that it had acknowledged",
)

// -- telemetry

export const telemetryDropped = counter(
  "telemetry_dropped_total",
  ["signal"],
  "1",
  "Spans, data points and log records that were not delivered",
)

// -- the process

export const buildInfo = gauge("build_info", ["version"], "1", "Always 1; the version is in the label")
export const processStart = standardGauge(
  "process_start_time_seconds",
  [],
  "s",
  "Start of the process, unix time",
)
export const processCpu = standardCounter("process_cpu_seconds_total", [], "s", "User and system CPU time")
export const processMemory = standardGauge("process_resident_memory_bytes", [], "By", "Resident memory")
export const heapUsed = standardGauge("nodejs_heap_size_used_bytes", [], "By", "JavaScript heap in use")
export const eventLoopLagMedian = standardGauge(
  "nodejs_eventloop_lag_p50_seconds",
  [],
  "s",
  "Event loop delay in the last minute, median",
)
export const eventLoopLagHigh = standardGauge(
  "nodejs_eventloop_lag_p99_seconds",
  [],
  "s",
  "Event loop delay in the last minute, 99th percentile",
)

/** All metrics, in the order of this file. */
export const definitions: ReadonlyArray<Definition> = families.map(({ definition }) => definition)
