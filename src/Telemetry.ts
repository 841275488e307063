/**
 * OpenTelemetry: traces, metrics and logs by OTLP over HTTP, each only where it is wanted. This file is loaded only then:
 * the SDK is most of what it costs.
 *
 * Nothing here is ever waited for but the last flush, and that for two seconds: a collector that is gone costs telemetry,
 * which is counted.
 */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import { ExportResultCode } from "@opentelemetry/core"
import type { ExportResult } from "@opentelemetry/core"
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http"
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http"
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
import { Effect, Layer, Redacted, Tracer } from "effect"
import { hostname } from "node:os"
import type { TelemetrySettings } from "./TelemetryConfig.ts"
import { Dropped, Tracing } from "./Tracing.ts"
import type { Signal } from "./Tracing.ts"
import { version } from "./Version.ts"

/** Spans and records that wait for their export. */
const longestQueue = 2048

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

/** Calls back as the exporter does, and counts what it could not deliver. */
const counting =
  (items: number, onDropped: (items: number) => void, callback: (result: ExportResult) => void) =>
  (result: ExportResult) => {
    if (result.code !== ExportResultCode.SUCCESS) onDropped(items)
    callback(result)
  }

/** Batches, with the drops of a full queue counted: the SDK's own processor keeps them to itself. */
const spanProcessor = (exporter: SpanExporter, onDropped: (spans: number) => void): SpanProcessor => {
  let waiting = 0
  const batches = new BatchSpanProcessor(
    {
      export: (spans, callback) => {
        waiting -= spans.length
        exporter.export(spans, counting(spans.length, onDropped, callback))
      },
      shutdown: () => exporter.shutdown(),
      forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
    },
    { maxQueueSize: longestQueue },
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

/** The unit belongs to the metric, not to each of its points. */
const withoutUnits = (all: ResourceMetrics): ResourceMetrics => {
  for (const { metrics } of all.scopeMetrics) {
    for (const { dataPoints } of metrics) for (const { attributes } of dataPoints) delete attributes["unit"]
  }
  return all
}

const metricExporter = (
  exporter: OTLPMetricExporter,
  onDropped: (points: number) => void,
): PushMetricExporter => ({
  export: (all, callback) => exporter.export(withoutUnits(all), counting(pointsOf(all), onDropped, callback)),
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
  selectAggregation: (kind) => exporter.selectAggregation(kind),
  selectAggregationTemporality: (kind) => exporter.selectAggregationTemporality(kind),
})

const logExporter = (exporter: OTLPLogExporter, onDropped: (records: number) => void): LogRecordExporter => ({
  export: (records, callback) => exporter.export(records, counting(records.length, onDropped, callback)),
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
})

/** Delivers what the settings ask for, and tells the rest of the program that spans are wanted. */
export const layer = (settings: TelemetrySettings) =>
  Layer.unwrap(
    Effect.map(Dropped, (dropped) => deliver(settings, (signal, items) => void (dropped[signal] += items))),
  )

/**
 * The tracer without its `context`, which enters the span into OpenTelemetry's own context around every step of a fiber.
 * Nothing here reads that: without it, telemetry costs an event 10 % of CPU instead of 19 (blocks of 200 logs).
 */
const detached = Layer.effect(
  Tracer.Tracer,
  Effect.map(Effect.tracer, ({ span }) => Tracer.make({ span })),
)

const deliver = (settings: TelemetrySettings, onDropped: (signal: Signal, items: number) => void) => {
  const { attributes, metricInterval, serviceName } = settings
  const headers = Redacted.value(settings.headers)
  const to = (url: string) => ({ url, headers: { ...headers }, timeoutMillis: settings.timeout })
  const sdk = NodeSdk.layer(() => ({
    // Two ingestors at one collector are two.
    resource: {
      serviceName,
      serviceVersion: version,
      attributes: { "service.instance.id": hostname(), ...attributes },
    },
    shutdownTimeout,
    tracerConfig: { sampler: samplerOf(settings) },
    ...(settings.traces && {
      spanProcessor: spanProcessor(new OTLPTraceExporter(to(settings.traces)), (n) => onDropped("traces", n)),
    }),
    ...(settings.metrics && {
      metricReader: new MetricReader({
        exporter: metricExporter(new OTLPMetricExporter(to(settings.metrics)), (n) =>
          onDropped("metrics", n),
        ),
        exportIntervalMillis: metricInterval,
        exportTimeoutMillis: Math.min(settings.timeout, metricInterval),
      }),
    }),
    ...(settings.logs && {
      logRecordProcessor: new LogProcessor({
        exporter: logExporter(new OTLPLogExporter(to(settings.logs)), (n) => onDropped("logs", n)),
        maxQueueSize: longestQueue,
      }),
      loggerMergeWithExisting: true,
    }),
  }))
  return detached.pipe(
    Layer.provideMerge(sdk),
    Layer.merge(Layer.succeed(Tracing, settings.traces !== undefined)),
  )
}
