/**
 * Every metric there is: name, type, unit, labels, and what it says. docs/METRICS.md is made from this file.
 *
 * Names are `event_ingestor_…`. The seven that the original system had exist under its bare names as well, and what any
 * Node process reports has the name that Prometheus' client for Node gives it, so that common dashboards work.
 *
 * Most series are read when somebody asks for them, from the plain numbers that Status keeps: they cost nothing in
 * between. Only distributions are told about each value, once per block, request or call. Labels are bounded: chain,
 * endpoint name, method, error type; never a URL, a hash or a height.
 */
import { Metric } from "effect"
import type { Context } from "effect"

export type MetricType = "counter" | "gauge" | "histogram"

/** The unit as OpenTelemetry writes it. */
export type Unit =
  | "1"
  | "s"
  | "By"
  | "{log}"
  | "{block}"
  | "{entry}"
  | "{error}"
  | "{request}"
  | "{reconnect}"

export interface Definition {
  readonly name: string
  /** The name that the original system had for it: the same series exist under this one too. */
  readonly bareName?: string
  readonly type: MetricType
  readonly unit: Unit
  readonly labels: ReadonlyArray<string>
  readonly help: string
  readonly buckets?: ReadonlyArray<number>
}

/** Where series are kept: that of the process, unless a context says otherwise. */
export type Registry = Context.Context<never>

/** Every name of a metric. */
export const namesOf = ({ name, bareName }: Definition): ReadonlyArray<string> =>
  bareName === undefined ? [name] : [name, bareName]

/** One metric with all its series. */
export class Family<Label extends string = never> {
  readonly definition: Definition

  constructor(definition: Definition) {
    this.definition = definition
  }

  #options(labels: Record<Label, string>) {
    const { help, unit } = this.definition
    return { description: help, attributes: { ...labels, unit } }
  }

  /** A series, under each of the names, whose value is read when somebody asks. Answers how to remove it. */
  read(labels: Record<Label, string>, value: () => number, registry: Registry): Metric.Registration {
    const { type } = this.definition
    const options = this.#options(labels)
    const ignore = () => {}
    const registered = namesOf(this.definition).map((name) =>
      type === "counter"
        ? Metric.registerUnsafe(Metric.counter(name, { ...options, incremental: true }), registry, {
            get: () => ({ count: value(), incremental: true }),
            update: ignore,
            modify: ignore,
          })
        : Metric.registerUnsafe(Metric.gauge(name, options), registry, {
            get: () => ({ value: value() }),
            update: ignore,
            modify: ignore,
          }),
    )
    return { remove: () => registered.forEach((one) => one.remove()) }
  }

  /** A distribution that is told about each value. It exists, empty, from now on. */
  record(labels: Record<Label, string>, registry: Registry): (value: number) => void {
    const { name, buckets = [] } = this.definition
    const histogram = Metric.histogram(name, { ...this.#options(labels), boundaries: buckets })
    histogram.valueUnsafe(registry)
    return (value) => histogram.updateUnsafe(value, registry)
  }
}

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

// -- the seven of the original system, under its names as well

export const eventsReceived = originalCounter(
  "events_received_total",
  ["chain"],
  "{log}",
  "Logs that were verified, before they are pushed",
)
export const eventsPublished = originalCounter(
  "events_published_total",
  ["chain"],
  "{log}",
  "Logs that the store has acknowledged as new",
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
  "What went wrong, by kind",
)
export const consecutiveFailures = originalGauge(
  "consecutive_failures",
  ["chain"],
  "1",
  "Failures in a row of the endpoint in use",
)

// -- the journal

export const eventsRemoved = counter(
  "events_removed_total",
  ["chain"],
  "{log}",
  "Logs that a reorg retracted: entries with removed=true",
)
export const eventsRemovedIncomplete = counter(
  "events_removed_incomplete_total",
  ["chain"],
  "{log}",
  "Logs that could not be retracted, as their entries had been deleted",
)
export const eventsAuditedMissing = counter(
  "events_audited_missing_total",
  ["chain"],
  "{log}",
  "Logs that the audit of finalized blocks found missing, and added",
)
export const eventsAuditedExtra = counter(
  "events_audited_extra_total",
  ["chain"],
  "{log}",
  "Logs that the audit of finalized blocks found to be wrong, and retracted",
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
  "Blocks of the chain that one reorg replaced, with logs or without",
  [1, 2, 3, 5, 8, 13, 21, 34, 64, 128],
)
export const chainHead = gauge("chain_head_block", ["chain"], "{block}", "Highest block that was announced")
export const chainStored = gauge("chain_stored_block", ["chain"], "{block}", "Head of the journal")
export const chainFinal = gauge(
  "chain_final_block",
  ["chain"],
  "{block}",
  "Highest stored block that is final",
)
export const chainHeadAge = gauge(
  "chain_head_age_seconds",
  ["chain"],
  "s",
  "Time since a head was announced, or since the endpoint confirmed that the chain is quiet",
)
export const chainLag = gauge(
  "chain_lag_seconds",
  ["chain"],
  "s",
  "How much older the newest stored block is than the newest one that CONFIRMATIONS allows to store; 0 when none is missing",
)
export const chainFinalAge = gauge(
  "chain_final_age_seconds",
  ["chain"],
  "s",
  "How much older the highest stored final block is than the newest announced block",
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
  "Block time to acknowledged by the store, of live blocks",
  seconds,
)
export const publishLatency = histogram(
  "publish_latency_seconds",
  ["chain"],
  "s",
  "Head received to acknowledged by the store",
  seconds,
)
export const publishBatchSize = histogram(
  "publish_batch_size",
  ["chain"],
  "{log}",
  "Logs of one push",
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
  "Requests by method and outcome: ok, refused, lost (no answer)",
)
export const rpcRequestDuration = histogram(
  "rpc_request_duration_seconds",
  ["chain", "endpoint"],
  "s",
  "Request sent to answer received",
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
  "Call to acknowledged, by operation",
  seconds,
)
export const storeMemory = gauge(
  "store_memory_bytes",
  [],
  "By",
  "Memory that Redis uses, or the size of the SQLite file",
)
export const storeMemoryLimit = gauge(
  "store_memory_limit_bytes",
  [],
  "By",
  "Redis' maxmemory; 0 means no limit",
)
export const storeEvictionUnsafe = gauge(
  "store_eviction_unsafe",
  [],
  "1",
  "1 when Redis' maxmemory-policy deletes streams",
)
export const streamLength = gauge("stream_length", ["chain"], "{entry}", "Entries of the chain's stream")
export const streamGroupLag = gauge(
  "stream_group_lag",
  ["chain", "group"],
  "{entry}",
  "Entries that a consumer group has not been given yet (the 20 furthest behind)",
)
export const streamGroupPending = gauge(
  "stream_group_pending",
  ["chain", "group"],
  "{entry}",
  "Entries that a consumer group was given and has not acknowledged (the 20 furthest behind)",
)
export const streamGroupConsumers = gauge(
  "stream_group_consumers",
  ["chain", "group"],
  "1",
  "Consumers of a consumer group, alive or not (the 20 furthest behind)",
)
export const streamGroupIdle = gauge(
  "stream_group_idle_seconds",
  ["chain", "group"],
  "s",
  "Time since a consumer of the group last asked for entries or claimed some; 0 while all are acknowledged (the 20 furthest behind)",
)
export const streamGroupMissed = counter(
  "stream_group_missed_total",
  ["chain", "group"],
  "{entry}",
  "Entries that were trimmed before a consumer group was given them; 0 while it has had no consumer (the 20 furthest behind)",
)
export const streamReaderLag = gauge(
  "stream_reader_lag",
  ["chain", "reader"],
  "{entry}",
  "Entries that a reader with a checkpoint of its own has not read yet (the 20 furthest behind)",
)
export const streamReaderMissed = counter(
  "stream_reader_missed_total",
  ["chain", "reader"],
  "{entry}",
  "Entries that were trimmed before a reader with a checkpoint of its own read them (the 20 furthest behind)",
)
export const streamPaused = gauge(
  "stream_paused",
  ["chain"],
  "1",
  "1 while nothing is published to the chain's stream, since a reader that is waited for is too far behind",
)
export const storeRegressions = counter(
  "store_regressions_total",
  ["chain"],
  "1",
  "How often the store was found to have lost entries that it had acknowledged",
)

// -- telemetry

export const telemetryDropped = counter(
  "telemetry_dropped_total",
  ["signal"],
  "1",
  "Spans, data points and log records that could not be delivered",
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
  "Delay of the event loop in the last minute, median",
)
export const eventLoopLagHigh = standardGauge(
  "nodejs_eventloop_lag_p99_seconds",
  [],
  "s",
  "Delay of the event loop in the last minute, 99th percentile",
)

/** All of them, in the order of this file. */
export const definitions: ReadonlyArray<Definition> = families.map(({ definition }) => definition)
