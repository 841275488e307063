/** The exporters of OTLP over HTTP, and in words why one of them could not deliver something. */
import { diag, DiagLogLevel } from "@opentelemetry/api"
import type { DiagLogFunction } from "@opentelemetry/api"
import { ExportResultCode } from "@opentelemetry/core"
import type { ExportResult } from "@opentelemetry/core"
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http"
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http"
import { emptyResource } from "@opentelemetry/resources"
import { Effect, Redacted } from "effect"
import { subscribe } from "node:diagnostics_channel"
import { STATUS_CODES } from "node:http"
import type { ClientRequest, IncomingMessage } from "node:http"
import { inWords } from "./Delivery.ts"
import type { Remark } from "./Delivery.ts"
import type { Destination, TelemetrySettings } from "../config/TelemetryConfig.ts"
import { signals } from "./Tracing.ts"
import type { Signal } from "./Tracing.ts"

type Target = NonNullable<Destination>

/** What TelemetryConfig has read, also from `.env`, and checked: the SDK would read it again, and take what cannot be sent. */
const ours = /^OTEL_(EXPORTER_OTLP_(\w+_)?(ENDPOINT|HEADERS|TIMEOUT)|RESOURCE_ATTRIBUTES|SERVICE_NAME)$/

/** The status of the last answer of each target: of one that is worth another try, an exporter does not tell it. */
const statuses = new Map<string, number | undefined>()

let heard: Remark

/** What the target said about the export that has just succeeded: exporters tell it only to the SDK's own log. */
export const remark = (): Remark => {
  const last = heard
  heard = undefined
  return last
}

/** The first of the numbers that there is; a number of 64 bits is text in JSON. */
const rejectedOf = (parts: Readonly<Record<string, unknown>>): number => {
  const given = Number(
    parts["rejectedSpans"] ?? parts["rejectedDataPoints"] ?? parts["rejectedLogRecords"] ?? 0,
  )
  return Number.isSafeInteger(given) && given > 0 ? given : 0
}

const fileVariables =
  "OTEL_EXPORTER_OTLP_[TRACES_|METRICS_|LOGS_]CERTIFICATE, CLIENT_CERTIFICATE or CLIENT_KEY"

/** What the SDK says to its own log: what a target remarked, or a value of a variable that it does not take; no more of it. */
const hear =
  (warn: (text: string) => void, warned = new Set<string>()): DiagLogFunction =>
  (...said) => {
    const [text = "", detail] = (said[0] === "OTLPExportDelegate" ? said.slice(1) : said).map(String)
    if (text.startsWith("Received Partial Success")) {
      const parts = JSON.parse(detail!) as Readonly<Record<string, unknown>>
      const message = parts["errorMessage"]
      heard = { rejected: rejectedOf(parts), message: typeof message === "string" ? message : "" }
    } else if (/^Failed to parse \w+ export response|could not deserialize response/.test(text)) {
      heard = { notOtlp: text }
    } else if (/OTEL_[A-Z]|^Failed to read/.test(text) && !warned.has(text)) {
      // For each signal.
      warned.add(text)
      // Of a file it does not name the variable.
      const of = text.startsWith("Failed to read") ? ` of ${fileVariables}: none is used` : ""
      warn(`OpenTelemetry: ${text}${of}`)
    }
  }

/** To be called before there is an exporter. The SDK's own warnings, of variables that only it reads, go to `warn`. */
export const listen = (warn: (text: string) => void): void => {
  for (const name of Object.keys(process.env)) if (ours.test(name)) delete process.env[name]
  const silent = () => {}
  diag.setLogger(
    { error: silent, warn: hear(warn), info: silent, debug: silent, verbose: silent },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  )
}

const pathOf = ({ host, pathname, search }: URL) => `${host}${pathname}${search}`

subscribe("http.client.response.finish", (message) => {
  const { request, response } = message as {
    readonly request: ClientRequest
    readonly response: IncomingMessage
  }
  const path = `${String(request.getHeader("host"))}${request.path}`
  if (statuses.has(path)) statuses.set(path, response.statusCode)
})

const options = ({ url, headers, timeout }: Target) => {
  statuses.set(pathOf(new URL(url)), undefined)
  return { url, headers: { ...Redacted.value(headers) }, timeoutMillis: timeout }
}

export const traces = (target: Target) => new OTLPTraceExporter(options(target))
export const metrics = (target: Target) => new OTLPMetricExporter(options(target))
export const logs = (target: Target) => new OTLPLogExporter(options(target))

/** What an error says about itself, if it is OTLP's `Status`. */
const messageOf = (data: string | undefined): string => {
  try {
    const { message } = JSON.parse(data ?? "") as { readonly message?: unknown }
    return typeof message === "string" && message !== "" ? `: ${message}` : ""
  } catch {
    return ""
  }
}

const http = (status: number) => `HTTP ${status} ${STATUS_CODES[status] ?? ""}`.trim()

const grpc = "port 4317 is for gRPC; OTLP over HTTP has port 4318"

/**
 * Why an export failed; `undefined` where it did not. Nothing of the URL and of the headers: of a system's error only the
 * code is told, as its text has addresses.
 */
export const reasonOf = ({ code, error }: ExportResult, target: Target): string | undefined => {
  if (code === ExportResultCode.SUCCESS) return undefined
  const url = new URL(target.url)
  const { code: cause, data } = (error ?? {}) as { readonly code?: unknown; readonly data?: string }
  if (typeof cause === "number") return `${http(cause)}${messageOf(data)}`
  const status = statuses.get(pathOf(url))
  if (error?.message.endsWith("retryable status") && status !== undefined) return http(status)
  if (typeof cause === "string" && cause.startsWith("HPE_")) return `no HTTP/1.1 in the answer (${grpc})`
  const why = typeof cause === "string" ? cause : (error?.message ?? "for an unknown reason")
  return url.port === "4317" ? `${why} (${grpc})` : why
}

/** Why an empty export is not taken as it should be; `undefined` where it is. */
const refusal = (signal: Signal, target: Target): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    const done = (result: ExportResult) => {
      const said = remark()
      resume(Effect.succeed(reasonOf(result, target) ?? (said && inWords(said)[1])))
    }
    if (signal === "traces") traces(target).export([], done)
    else if (signal === "logs") logs(target).export([], done)
    else metrics(target).export({ resource: emptyResource(), scopeMetrics: [] }, done)
  })

/** What each signal's target says to an empty export; `undefined`: it takes it. */
export const probe = (settings: TelemetrySettings) =>
  Effect.forEach(
    signals.flatMap((signal) => (settings[signal] ? [[signal, settings[signal]] as const] : [])),
    ([signal, target]) => Effect.map(refusal(signal, target), (reason) => ({ signal, reason })),
    { concurrency: "unbounded" },
  )
