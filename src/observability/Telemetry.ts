/**
 * OpenTelemetry: traces, metrics and logs by OTLP over HTTP, each only if configured. This file is loaded only then,
 * because the SDK is most of the cost.
 *
 * Nothing waits for telemetry except the final flush, for at most two seconds. An unreachable collector loses telemetry,
 * which is counted.
 */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import * as Resource from "@effect/opentelemetry/Resource"
import type { ExportResult } from "@opentelemetry/core"
import type { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http"
import type { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http"
import { BatchLogRecordProcessor } from "@opentelemetry/sdk-logs"
import type { LogRecordExporter } from "@opentelemetry/sdk-logs"
import { PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics"
import type { PushMetricExporter, ResourceMetrics } from "@opentelemetry/sdk-metrics"
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-base"
import type { ReadableSpan, Sampler, SpanExporter } from "@opentelemetry/sdk-trace-base"
import { Clock, Effect, Layer, Tracer } from "effect"
import { hostname } from "node:os"
import * as Delivery from "./Delivery.ts"
import * as Otlp from "./Otlp.ts"
import * as Spans from "./Spans.ts"
import { logEvent } from "./LogEvents.ts"
import { Redaction } from "../Redactor.ts"
import { longestQueue } from "../config/TelemetryVariables.ts"
import type { Batches, Destination, TelemetrySettings } from "../config/TelemetryConfig.ts"
import { Dropped, Tracing } from "../Tracing.ts"
import type { Signal } from "../Tracing.ts"
import { version } from "../Version.ts"

/** The timeout of the final flush (milliseconds). */
const shutdownTimeout = 2000

const samplerOf = ({ sampler, ratio }: TelemetrySettings): Sampler => {
  const root = sampler.endsWith("always_on")
    ? new AlwaysOnSampler()
    : sampler.endsWith("always_off")
      ? new AlwaysOffSampler()
      : new TraceIdRatioBasedSampler(ratio)
  return sampler.startsWith("parentbased_") ? new ParentBasedSampler({ root }) : root
}

/** Undelivered items are counted at each export, so that a failing flush is no error. */
const quietly = (promise: Promise<void>): Promise<void> => promise.catch(() => {})

class MetricReader extends PeriodicExportingMetricReader {
  override shutdown(): Promise<void> {
    return quietly(super.shutdown())
  }
}

class LogProcessor extends BatchLogRecordProcessor {
  override forceFlush(): Promise<void> {
    return quietly(super.forceFlush())
  }
  override shutdown(): Promise<void> {
    return quietly(super.shutdown())
  }
}

/** Wraps an exporter's callback to count the items that were not delivered. */
type CountDropped = (
  items: number,
  callback: (result: ExportResult) => void,
) => (result: ExportResult) => void

/** Batches of spans. Counts those dropped by a full queue: the SDK's own processor does not report them. */
const spanBatches = (
  exporter: SpanExporter,
  { size, delay, timeout }: Batches,
  countDropped: CountDropped,
  onDropped: (spans: number) => void,
) => {
  let waiting = 0
  const batches = new BatchSpanProcessor(
    {
      export: (spans, callback) => {
        waiting -= spans.length
        exporter.export(spans, countDropped(spans.length, callback))
      },
      shutdown: () => exporter.shutdown(),
      forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
    },
    {
      maxQueueSize: longestQueue,
      maxExportBatchSize: size,
      scheduledDelayMillis: delay,
      exportTimeoutMillis: timeout,
    },
  )
  return {
    onEnd: (span: ReadableSpan) => {
      if (waiting >= longestQueue) return onDropped(1)
      waiting++
      batches.onEnd(span)
    },
    flush: Effect.promise(() => quietly(batches.forceFlush().finally(() => batches.shutdown()))),
  }
}

const pointsOf = ({ scopeMetrics }: ResourceMetrics) =>
  scopeMetrics.reduce(
    (sum, { metrics }) => metrics.reduce((n, { dataPoints }) => n + dataPoints.length, sum),
    0,
  )

/**
 * Removes the `unit` attribute, which belongs to the metric and not to its points, and drops points with NaN (unknown
 * values), which JSON cannot represent.
 */
const cleaned = (all: ResourceMetrics): ResourceMetrics => {
  for (const { metrics } of all.scopeMetrics) {
    for (const metric of metrics) {
      const points = metric.dataPoints as Array<{ attributes: Record<string, unknown>; value: unknown }>
      for (const { attributes } of points) delete attributes["unit"]
      const known = points.filter(({ value }) => !Number.isNaN(value))
      if (known.length < points.length) points.splice(0, points.length, ...known)
    }
  }
  return all
}

const metricExporter = (exporter: OTLPMetricExporter, countDropped: CountDropped): PushMetricExporter => ({
  export: (all, callback) => exporter.export(cleaned(all), countDropped(pointsOf(all), callback)),
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
  selectAggregation: (kind) => exporter.selectAggregation(kind),
  selectAggregationTemporality: (kind) => exporter.selectAggregationTemporality(kind),
})

const logExporter = (exporter: OTLPLogExporter, countDropped: CountDropped): LogRecordExporter => ({
  export: (records, callback) => exporter.export(records, countDropped(records.length, callback)),
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
})

/** Delivers the configured signals, and enables spans in the rest of the program if traces are configured. */
export const layer = (settings: TelemetrySettings) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const dropped = yield* Dropped
      const clock = yield* Clock.Clock
      const log = yield* logOf
      Otlp.listen(log.warn)
      const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
      const counterOf = (signal: Signal, target: NonNullable<Destination>): CountDropped => {
        const delivery = Delivery.make(signal, now, log)
        return (items, callback) => (result) => {
          dropped[signal] += delivery(items, Otlp.reasonOf(result, target), Otlp.takeNotice())
          callback(result)
        }
      }
      return deliver(settings, counterOf, (spans) => void (dropped.traces += spans))
    }),
  )

/** Writes log lines from outside an effect. They are not exported: the log exporter is built on top of this. */
const logOf = Effect.gen(function* () {
  const redact = yield* Redaction
  const run = Effect.runForkWith(yield* Effect.context<never>())
  return {
    warn: (text: string) => void run(logEvent("telemetry_failed", redact(text), {})),
    info: (text: string) => void run(logEvent("telemetry_back", redact(text), {})),
  }
})

/** The tracer, which delivers what it has before it ends. */
const tracerLayer = (sampler: Sampler, makeBatches: () => ReturnType<typeof spanBatches>) =>
  Layer.effect(
    Tracer.Tracer,
    Effect.gen(function* () {
      const resource = yield* Resource.Resource
      const { onEnd } = yield* Effect.acquireRelease(Effect.sync(makeBatches), ({ flush }) =>
        Effect.timeoutOption(Effect.interruptible(flush), shutdownTimeout),
      )
      return Spans.makeTracer(sampler, resource, onEnd)
    }),
  )

const deliver = (
  settings: TelemetrySettings,
  counterOf: (signal: Signal, target: NonNullable<Destination>) => CountDropped,
  onDropped: (spans: number) => void,
) => {
  const { attributes, logs, metricInterval, metrics, serviceName, traces } = settings
  const sdk = NodeSdk.layer(() => ({
    // Distinguishes ingestors that share a collector.
    resource: {
      serviceName,
      serviceVersion: version,
      attributes: { "service.instance.id": hostname(), ...attributes },
    },
    shutdownTimeout,
    ...(metrics && {
      metricReader: new MetricReader({
        exporter: metricExporter(Otlp.metrics(metrics), counterOf("metrics", metrics)),
        exportIntervalMillis: metricInterval,
        exportTimeoutMillis: Math.min(metrics.timeout, metricInterval),
      }),
    }),
    ...(logs && {
      logRecordProcessor: new LogProcessor({
        exporter: logExporter(Otlp.logs(logs), counterOf("logs", logs)),
        maxQueueSize: longestQueue,
        maxExportBatchSize: settings.logBatches.size,
        scheduledDelayMillis: settings.logBatches.delay,
        exportTimeoutMillis: settings.logBatches.timeout,
      }),
      loggerMergeWithExisting: true,
    }),
  }))
  if (traces === undefined) return sdk
  const tracer = tracerLayer(samplerOf(settings), () =>
    spanBatches(Otlp.traces(traces), settings.spanBatches, counterOf("traces", traces), onDropped),
  )
  return tracer.pipe(Layer.provideMerge(sdk), Layer.merge(Layer.succeed(Tracing, true)))
}
