/**
 * The standard `OTEL_*` variables that the service knows (OpenTelemetry's "Environment Variable Specification").
 *
 * They are often set for all programs of a platform. As the specification says, what is not known here is warned about
 * and the default is used. Only what would send everything to the wrong place is refused: a URL that is none, and gRPC.
 */
import { Effect, Redacted } from "effect"
import { validateHeaderName, validateHeaderValue } from "node:http"
import * as Env from "./Environment.ts"

/** Where one signal goes; `undefined` where it goes nowhere. */
export type Destination =
  | {
      readonly url: string
      /** HTTP headers of every export; they often hold a key. */
      readonly headers: Redacted.Redacted<Readonly<Record<string, string>>>
      /** Milliseconds for one export. */
      readonly timeout: number
    }
  | undefined

/** When spans or log records that wait are sent (milliseconds). */
export interface Batches {
  readonly delay: number
  readonly timeout: number
  readonly size: number
}

export interface TelemetrySettings {
  readonly traces: Destination
  readonly metrics: Destination
  readonly logs: Destination
  readonly serviceName: string
  readonly attributes: Readonly<Record<string, string>>
  readonly sampler: Sampler
  /** The share of traces that a ratio sampler takes, 0 … 1. */
  readonly ratio: number
  /** Milliseconds between two exports of the metrics. */
  readonly metricInterval: number
  readonly spanBatches: Batches
  readonly logBatches: Batches
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

/** Spans and records that wait for their export, and so the most that one export can have. */
export const longestQueue = 2048

/** The longest that a timer of Node's waits (milliseconds); it would take more for 1. */
const longest = 2 ** 31 - 1

const url = Env.kind("a URL that starts with http:// or https://", (text) => {
  const parsed = URL.canParse(text) ? new URL(text) : undefined
  return parsed && (parsed.protocol === "http:" || parsed.protocol === "https:") ? text : undefined
})

const whole = (least: number, most: number, what: string) =>
  Env.kind(`${what} from ${least} to ${most}`, (text) => {
    const value = Env.count(least).parse(text)
    return value !== undefined && value <= most ? value : undefined
  })

const interval = whole(1, longest, "milliseconds")

/** 0 is no limit. */
const timeout = Env.kind(`milliseconds from 1 to ${longest}, or 0 for no limit`, (text) =>
  text === "0" ? longest : interval.parse(text),
)

const share = Env.kind("a number from 0 to 1", (text) =>
  /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) && Number(text) <= 1 ? Number(text) : undefined,
)

/** One exporter, or several of which one is known. */
const exporter = Env.kind("otlp or none", (text) => {
  const names = text.toLowerCase().split(/\s*,\s*/)
  return (["none", "otlp"] as const).find((known) => names.includes(known))
})

const decoded = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text.trim())
  } catch {
    return undefined
  }
}

interface Pairs {
  readonly good: ReadonlyArray<readonly [key: string, value: string]>
  /** How many were not. */
  readonly bad: number
}

/** `key=value,key=value`, percent-encoded. */
const pairs = Env.kind("pairs such as key=value,key2=value2", (text): Pairs => {
  const parts = text.split(",").filter((part) => part.trim() !== "")
  const good = parts.flatMap((part) => {
    const at = part.indexOf("=")
    const [key, value] = at > 0 ? [decoded(part.slice(0, at)), decoded(part.slice(at + 1))] : []
    return key && value !== undefined ? [[key, value] as const] : []
  })
  return { good, bad: parts.length - good.length }
})

/** Whether Node would send it. */
const isHeader = ([name, value]: readonly [string, string]): boolean => {
  try {
    validateHeaderName(name)
    validateHeaderValue(name, value)
    return true
  } catch {
    return false
  }
}

/** The headers of a variable; what is wrong is left out, and said without its value. */
const readHeaders = Effect.fnUntraced(function* (reader: Env.Reader, name: string) {
  const given = yield* reader.secret(name, pairs)
  if (given === undefined) return undefined
  const headers = given.good.filter(isHeader)
  const left = given.bad + given.good.length - headers.length
  if (left > 0)
    reader.warnings.push(
      `${name}: ${left} of its headers cannot be sent and ${left === 1 ? "is" : "are"} not used: expected ${pairs.expected}, percent-encoded`,
    )
  return Redacted.make<Readonly<Record<string, string>>>(Object.fromEntries(headers))
})

/** As the specification says, all of it counts or nothing. */
const readAttributes = Effect.fnUntraced(function* (reader: Env.Reader) {
  const { good, bad } = (yield* reader.read("OTEL_RESOURCE_ATTRIBUTES", pairs)) ?? { good: [], bad: 0 }
  if (bad === 0) return Object.fromEntries(good)
  reader.warnings.push(
    `OTEL_RESOURCE_ATTRIBUTES is not used: expected ${pairs.expected}, percent-encoded; no attributes are used`,
  )
  return {}
})

/** Below a base, whatever its path and query. */
const below = (base: string, path: string): string => {
  const url = new URL(base)
  url.pathname = `${url.pathname.replace(/\/+$/, "")}/${path}`
  return url.href
}

const protocols = Env.oneOf("http/json", "http/protobuf", "grpc")

const readDestination = Effect.fnUntraced(function* (
  reader: Env.Reader,
  signal: string,
  usual: "otlp" | "none",
) {
  const SIGNAL = signal.toUpperCase()
  const exporterName = `OTEL_${SIGNAL}_EXPORTER`
  const chosen = yield* reader.lenient(exporterName, exporter, usual)
  const given = yield* reader.read(exporterName, Env.text)
  if (given?.includes(",") && exporter.parse(given) !== undefined)
    reader.warnings.push(`${exporterName}: of ${JSON.stringify(given.slice(0, 80))} only ${chosen} is used`)
  if (chosen === "none") return undefined

  const prefix = `OTEL_EXPORTER_OTLP_${SIGNAL}`
  const base = yield* reader.read("OTEL_EXPORTER_OTLP_ENDPOINT", url)
  const own = yield* reader.read(`${prefix}_ENDPOINT`, url)
  const target = own ?? (base && below(base, `v1/${signal}`))
  if (target === undefined) return undefined

  const all = yield* reader.lenient("OTEL_EXPORTER_OTLP_PROTOCOL", protocols, "http/json")
  const protocol = yield* reader.lenient(`${prefix}_PROTOCOL`, protocols, all)
  const at = reader.isSet(`${prefix}_PROTOCOL`) ? prefix : "OTEL_EXPORTER_OTLP"
  if (protocol === "grpc")
    reader.problem(
      `${at}_PROTOCOL`,
      `grpc is not supported: set ${at}_PROTOCOL=http/json, and ${at}_ENDPOINT to the port of OTLP over HTTP (4318, not 4317)`,
    )
  if (protocol === "http/protobuf")
    reader.warnings.push(`${at}_PROTOCOL is not used: http/json is sent, to the same port and paths`)

  const limit = yield* reader.lenient("OTEL_EXPORTER_OTLP_TIMEOUT", timeout, 10_000)
  return {
    url: target,
    headers:
      (yield* readHeaders(reader, `${prefix}_HEADERS`)) ??
      (yield* readHeaders(reader, "OTEL_EXPORTER_OTLP_HEADERS")) ??
      Redacted.make<Readonly<Record<string, string>>>({}),
    timeout: yield* reader.lenient(`${prefix}_TIMEOUT`, timeout, limit),
  } satisfies Destination
})

const readBatches = Effect.fnUntraced(function* (
  reader: Env.Reader,
  processor: "BSP" | "BLRP",
  delay: number,
) {
  return {
    delay: yield* reader.lenient(
      `OTEL_${processor}_SCHEDULE_DELAY`,
      whole(0, longest, "milliseconds"),
      delay,
    ),
    timeout: yield* reader.lenient(`OTEL_${processor}_EXPORT_TIMEOUT`, timeout, 30_000),
    size: yield* reader.lenient(
      `OTEL_${processor}_MAX_EXPORT_BATCH_SIZE`,
      whole(1, longestQueue, "a whole number"),
      512,
    ),
  } satisfies Batches
})

/** The sampler and its share. An argument is only checked where it is one of ours. */
const readSampler = Effect.fnUntraced(function* (reader: Env.Reader) {
  const sampler = yield* reader.lenient(
    "OTEL_TRACES_SAMPLER",
    Env.oneOf(...samplers),
    "parentbased_always_on",
  )
  if (sampler.endsWith("traceidratio"))
    return { sampler, ratio: yield* reader.lenient("OTEL_TRACES_SAMPLER_ARG", share, 1) }
  // 1 is what always_on does anyway.
  const argument = yield* reader.read("OTEL_TRACES_SAMPLER_ARG", Env.text)
  if (argument !== undefined && share.parse(argument) !== 1)
    reader.warnings.push(`OTEL_TRACES_SAMPLER_ARG is not used: ${sampler} is used, which has no argument`)
  return { sampler, ratio: 1 }
})

/** `undefined` when nothing is to be sent anywhere. */
export const readTelemetry = Effect.fnUntraced(function* (reader: Env.Reader) {
  const disabled = yield* reader.lenient("OTEL_SDK_DISABLED", Env.oneOf("true", "false"), "false")
  if (disabled === "true") return undefined
  const traces = yield* readDestination(reader, "traces", "otlp")
  const metrics = yield* readDestination(reader, "metrics", "otlp")
  // Most read logs from the container: they are sent when asked for.
  const logs = yield* readDestination(reader, "logs", "none")
  if (!(traces ?? metrics ?? logs)) return undefined

  const attributes = yield* readAttributes(reader)
  return {
    traces,
    metrics,
    logs,
    serviceName:
      (yield* reader.read("OTEL_SERVICE_NAME", Env.text)) ?? attributes["service.name"] ?? "event-ingestor",
    attributes,
    ...(yield* readSampler(reader)),
    metricInterval: yield* reader.lenient("OTEL_METRIC_EXPORT_INTERVAL", interval, 15_000),
    spanBatches: yield* readBatches(reader, "BSP", 5000),
    logBatches: yield* readBatches(reader, "BLRP", 1000),
  } satisfies TelemetrySettings
})
