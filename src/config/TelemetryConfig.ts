/**
 * Where telemetry goes: the standard `OTEL_*` variables.
 *
 * They are often set for all programs of a platform. As the specification says, what is not known here is warned about
 * and the default is used. Only what would send everything to the wrong place is refused: a URL that is none, and gRPC.
 */
import { Effect, Record, Redacted } from "effect"
import { validateHeaderName, validateHeaderValue } from "../NodeHttp.ts"
import {
  common,
  defaultName,
  exporter,
  logBatches,
  other,
  pairs,
  share,
  signals,
  spanBatches,
} from "./TelemetryVariables.ts"
import type { Sampler } from "./TelemetryVariables.ts"
import type { Reader, Values } from "./Variable.ts"

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
export type Batches = Values<typeof spanBatches>

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

/** The headers of a variable; an invalid one is dropped, with a warning that does not repeat its value. */
const readHeaders = Effect.fnUntraced(function* (reader: Reader, variable: typeof common.headers) {
  const given = yield* reader.get(variable)
  if (given === undefined) return undefined
  const headers = given.good.filter(isHeader)
  const left = given.bad + given.good.length - headers.length
  if (left > 0)
    reader.warnings.push(
      `${variable.name}: ${left} of its headers cannot be sent and ${left === 1 ? "is" : "are"} not used: expected ${pairs.expected}, percent-encoded`,
    )
  return Redacted.make<Readonly<Record<string, string>>>(Object.fromEntries(headers))
})

/** As the specification says, all of it counts or nothing. */
const readAttributes = Effect.fnUntraced(function* (reader: Reader) {
  const { good, bad } = (yield* reader.get(other.attributes)) ?? { good: [], bad: 0 }
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

const readDestination = Effect.fnUntraced(function* (
  reader: Reader,
  variables: (typeof signals)[keyof typeof signals],
) {
  const { exporter: chosenBy, prefix, signal } = variables
  const chosen = yield* reader.get(chosenBy)
  const given = yield* reader.text(chosenBy.name)
  if (given?.includes(",") && exporter.parse(given) !== undefined)
    reader.warnings.push(`${chosenBy.name}: of ${JSON.stringify(given.slice(0, 80))} only ${chosen} is used`)
  if (chosen === "none") return undefined

  const base = yield* reader.get(common.endpoint)
  const own = yield* reader.get(variables.endpoint)
  const target = own ?? (base && below(base, `v1/${signal}`))
  if (target === undefined) return undefined

  const protocol = yield* reader.get(variables.protocol, { otherwise: yield* reader.get(common.protocol) })
  const at = reader.isSet(variables.protocol.name) ? prefix : "OTEL_EXPORTER_OTLP"
  if (protocol === "grpc")
    reader.problem(
      `${at}_PROTOCOL`,
      `grpc is not supported: set ${at}_PROTOCOL=http/json, and ${at}_ENDPOINT to the port of OTLP over HTTP (4318, not 4317)`,
    )
  if (protocol === "http/protobuf")
    reader.warnings.push(`${at}_PROTOCOL is not used: http/json is sent, to the same port and paths`)

  return {
    url: target,
    headers:
      (yield* readHeaders(reader, variables.headers)) ??
      (yield* readHeaders(reader, common.headers)) ??
      Redacted.make<Readonly<Record<string, string>>>({}),
    timeout: yield* reader.get(variables.timeout, { otherwise: yield* reader.get(common.timeout) }),
  } satisfies Destination
})

/** The sampler and its share. An argument is only checked where it is one of ours. */
const readSampler = Effect.fnUntraced(function* (reader: Reader) {
  const sampler = yield* reader.get(other.sampler)
  if (sampler.endsWith("traceidratio")) return { sampler, ratio: yield* reader.get(other.ratio) }
  // 1 is what always_on does anyway.
  const argument = yield* reader.text(other.ratio.name)
  if (argument !== undefined && share.parse(argument) !== 1)
    reader.warnings.push(`${other.ratio.name} is not used: ${sampler} is used, which has no argument`)
  return { sampler, ratio: 1 }
})

/** `undefined` when nothing is to be sent anywhere. */
export const readTelemetry = Effect.fnUntraced(function* (reader: Reader) {
  if (yield* reader.get(other.disabled)) return undefined
  const targets = yield* Effect.all(Record.map(signals, (signal) => readDestination(reader, signal)))
  if (Object.values(targets).every((target) => target === undefined)) return undefined

  const attributes = yield* readAttributes(reader)
  return {
    ...targets,
    serviceName: (yield* reader.get(other.serviceName)) ?? attributes["service.name"] ?? defaultName,
    attributes,
    ...(yield* readSampler(reader)),
    metricInterval: yield* reader.get(other.interval),
    spanBatches: yield* reader.all(spanBatches),
    logBatches: yield* reader.all(logBatches),
  } satisfies TelemetrySettings
})
