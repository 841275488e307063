/**
 * OpenTelemetry: traces, metrics and logs by OTLP over HTTP, each only where it is wanted. This file is loaded only then:
 * the SDK is most of what it costs.
 *
 * Nothing here is ever waited for but the last flush, and that for two seconds: a collector that is gone costs telemetry,
 * which is counted.
 */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
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
import type { ReadableSpan, Sampler, Span, SpanExporter, SpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Clock, Effect, Layer, Tracer } from "effect"
import { hostname } from "node:os"
import * as Delivery from "./Delivery.ts"
import * as Otlp from "./Otlp.ts"
import { logEvent } from "./LogEvents.ts"
import { Redaction } from "../Redactor.ts"
import { longestQueue } from "../config/TelemetryVariables.ts"
import type { Batches, Destination, TelemetrySettings } from "../config/TelemetryConfig.ts"
import { Dropped, Tracing } from "./Tracing.ts"
import type { Signal } from "./Tracing.ts"
import { version } from "../Version.ts"

/** For the last flush (milliseconds). */
const shutdownTimeout = 2000

const samplerOf = ({ sampler, ratio }: TelemetrySettings): Sampler => {
  const root = sampler.endsWith("always_on")
    ? new AlwaysOnSampler()
    : sampler.endsWith("always_off")
      ? new AlwaysOffSampler()
      : new TraceIdRatioBasedSampler(ratio)
  return sampler.startsWith("parentbased_") ? new ParentBasedSampler({ root }) : root
}

/** What cannot be delivered is counted when it is tried; at the end it is no reason to fail. */
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

/** Calls back as the exporter does, after it was noted what became of the items. */
type Noted = (items: number, callback: (result: ExportResult) => void) => (result: ExportResult) => void

/** Batches, with the drops of a full queue counted: the SDK's own processor keeps them to itself. */
const spanProcessor = (
  exporter: SpanExporter,
  { size, delay, timeout }: Batches,
  noted: Noted,
  onDropped: (spans: number) => void,
): SpanProcessor => {
  let waiting = 0
  const batches = new BatchSpanProcessor(
    {
      export: (spans, callback) => {
        waiting -= spans.length
        exporter.export(spans, noted(spans.length, callback))
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
    onStart: (span: Span, context) => batches.onStart(span, context),
    onEnd: (span: ReadableSpan) => {
      if ((span.spanContext().traceFlags & 1) === 0) return
      if (waiting >= longestQueue) return onDropped(1)
      waiting++
      batches.onEnd(span)
    },
    forceFlush: () => quietly(batches.forceFlush()),
    shutdown: () => quietly(batches.shutdown()),
  }
}

const pointsOf = ({ scopeMetrics }: ResourceMetrics) =>
  scopeMetrics.reduce(
    (sum, { metrics }) => metrics.reduce((n, { dataPoints }) => n + dataPoints.length, sum),
    0,
  )

/**
 * The unit belongs to the metric, not to each of its points. And a value that is not known is NaN, which JSON cannot say:
 * its point is left out.
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

const metricExporter = (exporter: OTLPMetricExporter, noted: Noted): PushMetricExporter => ({
  export: (all, callback) => exporter.export(cleaned(all), noted(pointsOf(all), callback)),
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
  selectAggregation: (kind) => exporter.selectAggregation(kind),
  selectAggregationTemporality: (kind) => exporter.selectAggregationTemporality(kind),
})

const logExporter = (exporter: OTLPLogExporter, noted: Noted): LogRecordExporter => ({
  export: (records, callback) => exporter.export(records, noted(records.length, callback)),
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
})

/** Delivers what the settings ask for, and tells the rest of the program that spans are wanted. */
export const layer = (settings: TelemetrySettings) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const dropped = yield* Dropped
      const clock = yield* Clock.Clock
      const log = yield* logOf
      Otlp.listen(log.warn)
      const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
      const notedOf = (signal: Signal, target: NonNullable<Destination>): Noted => {
        const delivery = Delivery.make(signal, now, log)
        return (items, callback) => (result) => {
          dropped[signal] += delivery(items, Otlp.reasonOf(result, target), Otlp.remark())
          callback(result)
        }
      }
      return deliver(settings, notedOf, (spans) => void (dropped.traces += spans))
    }),
  )

/** Lines of the log, from where no effect runs. They are not sent anywhere: what delivers logs is built on top of this. */
const logOf = Effect.gen(function* () {
  const redact = yield* Redaction
  const run = Effect.runForkWith(yield* Effect.context<never>())
  return {
    warn: (text: string) => void run(logEvent("telemetry_failed", redact(text), {})),
    info: (text: string) => void run(logEvent("telemetry_back", redact(text), {})),
  }
})

/**
 * The tracer without its `context`, which enters the span into OpenTelemetry's own context around every step of a fiber.
 * Nothing here reads that: without it, telemetry costs an event 10 % of CPU instead of 19 (blocks of 200 logs).
 */
const detached = Layer.effect(
  Tracer.Tracer,
  Effect.map(Effect.tracer, ({ span }) => Tracer.make({ span })),
)

const deliver = (
  settings: TelemetrySettings,
  notedOf: (signal: Signal, target: NonNullable<Destination>) => Noted,
  onDropped: (spans: number) => void,
) => {
  const { attributes, logs, metricInterval, metrics, serviceName, traces } = settings
  const sdk = NodeSdk.layer(() => ({
    // Two ingestors at one collector are two.
    resource: {
      serviceName,
      serviceVersion: version,
      attributes: { "service.instance.id": hostname(), ...attributes },
    },
    shutdownTimeout,
    tracerConfig: { sampler: samplerOf(settings) },
    ...(traces && {
      spanProcessor: spanProcessor(
        Otlp.traces(traces),
        settings.spanBatches,
        notedOf("traces", traces),
        onDropped,
      ),
    }),
    ...(metrics && {
      metricReader: new MetricReader({
        exporter: metricExporter(Otlp.metrics(metrics), notedOf("metrics", metrics)),
        exportIntervalMillis: metricInterval,
        exportTimeoutMillis: Math.min(metrics.timeout, metricInterval),
      }),
    }),
    ...(logs && {
      logRecordProcessor: new LogProcessor({
        exporter: logExporter(Otlp.logs(logs), notedOf("logs", logs)),
        maxQueueSize: longestQueue,
        maxExportBatchSize: settings.logBatches.size,
        scheduledDelayMillis: settings.logBatches.delay,
        exportTimeoutMillis: settings.logBatches.timeout,
      }),
      loggerMergeWithExisting: true,
    }),
  }))
  return detached.pipe(Layer.provideMerge(sdk), Layer.merge(Layer.succeed(Tracing, traces !== undefined)))
}
