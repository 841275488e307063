/** The standard `OTEL_*` variables that the service knows (OpenTelemetry's "Environment Variable Specification"). */
import * as Codec from "./Codec.ts"
import { variable } from "./Variable.ts"
import type { Section } from "./Variable.ts"

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

const url = Codec.kind("a URL that starts with http:// or https://", (text) => {
  const protocol = URL.parse(text)?.protocol
  return protocol === "http:" || protocol === "https:" ? text : undefined
})

const interval = Codec.between(1, longest, "milliseconds")

/** 0 is no limit. */
const timeout = Codec.kind(`milliseconds from 1 to ${longest}, or 0 for no limit`, (text) =>
  text === "0" ? longest : interval.parse(text),
)

export const share = Codec.kind("a number from 0 to 1", (text) =>
  /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) && Number(text) <= 1 ? Number(text) : undefined,
)

/** One exporter, or several of which one is known. */
export const exporter = Codec.kind("otlp or none", (text) => {
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
export const pairs = Codec.kind("pairs such as key=value,key2=value2", (text): Pairs => {
  const parts = text.split(",").filter((part) => part.trim() !== "")
  const good = parts.flatMap((part) => {
    const at = part.indexOf("=")
    const [key, value] = at > 0 ? [decoded(part.slice(0, at)), decoded(part.slice(at + 1))] : []
    return key && value !== undefined ? [[key, value] as const] : []
  })
  return { good, bad: parts.length - good.length }
})

const protocols = Codec.oneOf("http/json", "http/protobuf", "grpc")

/** Variables of all signals. */
export const common = {
  endpoint: variable("OTEL_EXPORTER_OTLP_ENDPOINT", url, {
    example: "http://127.0.0.1:4318",
    meaning:
      "the target of traces, metrics and logs, by OTLP over HTTP: the base URL of all three. Without it, only signals with a URL of their own are exported",
  }),
  protocol: variable("OTEL_EXPORTER_OTLP_PROTOCOL", protocols, {
    default: "http/json",
    isLenient: true,
    meaning:
      "the only protocol in use is `http/json`; `http/protobuf` causes a warning, `grpc` is refused. Also per signal (`OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`)",
  }),
  headers: variable("OTEL_EXPORTER_OTLP_HEADERS", pairs, {
    example: "authorization=Bearer%20TOKEN",
    isSecret: true,
    meaning:
      "headers of every export, or of one signal (`OTEL_EXPORTER_OTLP_TRACES_HEADERS`): comma-separated `name=value`, percent-encoded",
  }),
  timeout: variable("OTEL_EXPORTER_OTLP_TIMEOUT", timeout, {
    default: "10000",
    isLenient: true,
    meaning:
      "timeout of one export in milliseconds, 0 for no limit; also per signal (`OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`)",
  }),
}

/** Variables of one signal, which take the place of the common ones. */
const ofSignal = (signal: "TRACES" | "METRICS" | "LOGS", usual: "otlp" | "none") => {
  const prefix = `OTEL_EXPORTER_OTLP_${signal}`
  const { protocol, headers, timeout } = common
  return {
    prefix,
    signal: signal.toLowerCase(),
    exporter: variable(`OTEL_${signal}_EXPORTER`, exporter, {
      default: usual,
      isLenient: true,
      meaning: `whether ${signal.toLowerCase()} are exported: \`otlp\` or \`none\``,
    }),
    endpoint: variable(`${prefix}_ENDPOINT`, url, {
      example: `http://127.0.0.1:4318/v1/${signal.toLowerCase()}`,
      meaning: `the whole URL for ${signal.toLowerCase()}`,
    }),
    protocol: { ...protocol, name: `${prefix}_PROTOCOL` },
    headers: { ...headers, name: `${prefix}_HEADERS` },
    timeout: { ...timeout, name: `${prefix}_TIMEOUT` },
  }
}

export const signals = {
  traces: ofSignal("TRACES", "otlp"),
  metrics: ofSignal("METRICS", "otlp"),
  // Most platforms read logs from the container: they are sent on request.
  logs: ofSignal("LOGS", "none"),
}

/** When spans (`BSP`) or log records (`BLRP`) that wait are sent. */
const batchesOf = (processor: "BSP" | "BLRP", what: string, delay: string) => ({
  delay: variable(`OTEL_${processor}_SCHEDULE_DELAY`, Codec.between(0, longest, "milliseconds"), {
    default: delay,
    isLenient: true,
    meaning: `milliseconds until queued ${what} are exported`,
  }),
  timeout: variable(`OTEL_${processor}_EXPORT_TIMEOUT`, timeout, {
    default: "30000",
    isLenient: true,
    meaning: `timeout of one export of ${what} in milliseconds, 0 for no limit`,
  }),
  size: variable(
    `OTEL_${processor}_MAX_EXPORT_BATCH_SIZE`,
    Codec.between(1, longestQueue, "a whole number"),
    {
      default: "512",
      isLenient: true,
      meaning: `the largest number of ${what} in one export`,
    },
  ),
})

export const spanBatches = batchesOf("BSP", "spans", "5000")
export const logBatches = batchesOf("BLRP", "log records", "1000")

export const defaultName = "event-ingestor"

export const other = {
  sampler: variable("OTEL_TRACES_SAMPLER", Codec.oneOf(...samplers), {
    default: "parentbased_always_on",
    isLenient: true,
    meaning:
      "which blocks are traced: `always_on`, `always_off`, `traceidratio`, or one of them with the prefix `parentbased_`",
  }),
  ratio: variable("OTEL_TRACES_SAMPLER_ARG", share, {
    default: "1",
    isLenient: true,
    meaning: "the ratio of traces that a `traceidratio` sampler takes",
  }),
  interval: variable("OTEL_METRIC_EXPORT_INTERVAL", interval, {
    default: "15000",
    isLenient: true,
    meaning: "milliseconds between two exports of the metrics",
  }),
  serviceName: variable("OTEL_SERVICE_NAME", Codec.text, {
    shownDefault: `\`${defaultName}\``,
    example: defaultName,
    meaning: "the name of the service",
  }),
  attributes: variable("OTEL_RESOURCE_ATTRIBUTES", pairs, {
    example: "service.instance.id=one,deployment.environment.name=production",
    meaning:
      "further resource attributes; several ingestors at one Collector need a `service.instance.id` each",
  }),
  disabled: variable("OTEL_SDK_DISABLED", Codec.either("true", "false"), {
    default: "false",
    isLenient: true,
    meaning: "`true` disables all telemetry",
  }),
}

export const section: Section = {
  title: "OpenTelemetry, with its standard variables",
  variables: [
    common.endpoint,
    ...Object.values(signals).map(({ endpoint }) => endpoint),
    ...Object.values(signals).map(({ exporter }) => exporter),
    common.protocol,
    common.headers,
    common.timeout,
    ...Object.values(other),
    ...Object.values(spanBatches),
    ...Object.values(logBatches),
  ],
}
