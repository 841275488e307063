/** The standard `OTEL_*` variables that the service knows (OpenTelemetry's "Environment Variable Specification"). */
import { Effect, Redacted } from "effect"
import * as Env from "./Environment.ts"

/** Where one signal goes; `undefined` where it goes nowhere. */
export type Destination = string | undefined

export interface TelemetrySettings {
  readonly traces: Destination
  readonly metrics: Destination
  readonly logs: Destination
  /** HTTP headers of every export; they often hold a key. */
  readonly headers: Redacted.Redacted<Readonly<Record<string, string>>>
  readonly serviceName: string
  readonly attributes: Readonly<Record<string, string>>
  readonly sampler: Sampler
  /** The share of traces that a ratio sampler takes, 0 … 1. */
  readonly ratio: number
  /** Milliseconds between two exports of the metrics. */
  readonly metricInterval: number
  /** Milliseconds for one export. */
  readonly timeout: number
}

const samplers = [
  "always_on",
  "always_off",
  "traceidratio",
  "parentbased_always_on",
  "parentbased_always_off",
  "parentbased_traceidratio",
] as const

export type Sampler = (typeof samplers)[number]

const url = Env.kind("a URL that starts with http:// or https://", (text) => {
  const parsed = URL.canParse(text) ? new URL(text) : undefined
  return parsed && (parsed.protocol === "http:" || parsed.protocol === "https:") ? text : undefined
})

const decoded = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text.trim())
  } catch {
    return undefined
  }
}

/** `key=value,key=value`, percent-encoded. */
const pairs = Env.kind("pairs such as key=value,key2=value2", (text) => {
  const entries = text.split(",").map((pair) => {
    const at = pair.indexOf("=")
    return at > 0 ? [decoded(pair.slice(0, at)), decoded(pair.slice(at + 1))] : []
  })
  const complete = entries.every(([key, value]) => key !== undefined && key !== "" && value !== undefined)
  return complete ? (Object.fromEntries(entries) as Record<string, string>) : undefined
})

const share = Env.kind("a number from 0 to 1", (text) =>
  /^\d*\.?\d+$/.test(text) && Number(text) <= 1 ? Number(text) : undefined,
)

/** `undefined` when nothing is to be sent anywhere. */
export const readTelemetry = Effect.fnUntraced(function* (reader: Env.Reader) {
  const disabled = (yield* reader.read("OTEL_SDK_DISABLED", Env.oneOf("true", "false"))) === "true"
  const base = yield* reader.read("OTEL_EXPORTER_OTLP_ENDPOINT", url)
  const exporter = Env.oneOf("otlp", "none")
  const to = (signal: string, own: Destination, kind: "otlp" | "none"): Destination =>
    disabled || kind === "none" ? undefined : (own ?? (base && `${base.replace(/\/+$/, "")}/v1/${signal}`))

  const traces = to(
    "traces",
    yield* reader.read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url),
    (yield* reader.read("OTEL_TRACES_EXPORTER", exporter)) ?? "otlp",
  )
  const metrics = to(
    "metrics",
    yield* reader.read("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", url),
    (yield* reader.read("OTEL_METRICS_EXPORTER", exporter)) ?? "otlp",
  )
  // Most read logs from the container: they are sent when asked for.
  const logs = to(
    "logs",
    yield* reader.read("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", url),
    (yield* reader.read("OTEL_LOGS_EXPORTER", exporter)) ?? "none",
  )
  const settings = {
    traces,
    metrics,
    logs,
    headers: Redacted.make((yield* reader.secret("OTEL_EXPORTER_OTLP_HEADERS", pairs)) ?? {}),
    serviceName: (yield* reader.read("OTEL_SERVICE_NAME", Env.text)) ?? "event-ingestor",
    attributes: (yield* reader.read("OTEL_RESOURCE_ATTRIBUTES", pairs)) ?? {},
    sampler: (yield* reader.read("OTEL_TRACES_SAMPLER", Env.oneOf(...samplers))) ?? "parentbased_always_on",
    ratio: (yield* reader.read("OTEL_TRACES_SAMPLER_ARG", share)) ?? 1,
    metricInterval: (yield* reader.read("OTEL_METRIC_EXPORT_INTERVAL", Env.count(1))) ?? 15_000,
    timeout: (yield* reader.read("OTEL_EXPORTER_OTLP_TIMEOUT", Env.count(1))) ?? 10_000,
  } satisfies TelemetrySettings
  return (traces ?? metrics ?? logs) ? settings : undefined
})
