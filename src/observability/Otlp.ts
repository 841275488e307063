/** The exporters for OTLP over HTTP, and readable reasons for their failures. */
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
import { STATUS_CODES } from "../NodeHttp.ts"
import type { ClientRequest, IncomingMessage } from "node:http"
import { describeNotice } from "./Delivery.ts"
import type { TargetNotice } from "./Delivery.ts"
import type { Destination, TelemetrySettings } from "../config/TelemetryConfig.ts"
import { signals } from "../Tracing.ts"
import type { Signal } from "../Tracing.ts"

type Target = NonNullable<Destination>

/** Variables that TelemetryConfig has read (also from `.env`) and validated. The SDK would read them again without checks. */
const handledVariables =
  /^OTEL_(EXPORTER_OTLP_(\w+_)?(ENDPOINT|HEADERS|TIMEOUT)|RESOURCE_ATTRIBUTES|SERVICE_NAME)$/

/** The last HTTP status of each target: an exporter's error does not include it when the status is retryable. */
const statuses = new Map<string, number | undefined>()

let lastNotice: TargetNotice

/** What the target reported about the export that just succeeded: exporters pass it only to the SDK's own log. */
export const takeNotice = (): TargetNotice => {
  const last = lastNotice
  lastNotice = undefined
  return last
}

/** The count of rejected items, whatever the signal; JSON encodes 64-bit numbers as text. */
const rejectedOf = (parts: Readonly<Record<string, unknown>>): number => {
  const given = Number(
    parts["rejectedSpans"] ?? parts["rejectedDataPoints"] ?? parts["rejectedLogRecords"] ?? 0,
  )
  return Number.isSafeInteger(given) && given > 0 ? given : 0
}

const fileVariables =
  "OTEL_EXPORTER_OTLP_[TRACES_|METRICS_|LOGS_]CERTIFICATE, CLIENT_CERTIFICATE or CLIENT_KEY"

/** Handles the SDK's own log: keeps the notices of targets, warns about rejected variables, ignores the rest. */
const onDiagnostic =
  (warn: (text: string) => void, warned = new Set<string>()): DiagLogFunction =>
  (...parts) => {
    const [text = "", detail] = (parts[0] === "OTLPExportDelegate" ? parts.slice(1) : parts).map(String)
    if (text.startsWith("Received Partial Success")) {
      const body = JSON.parse(detail!) as Readonly<Record<string, unknown>>
      const message = body["errorMessage"]
      lastNotice = { rejected: rejectedOf(body), message: typeof message === "string" ? message : "" }
    } else if (/^Failed to parse \w+ export response|could not deserialize response/.test(text)) {
      lastNotice = { notOtlp: text }
    } else if (/OTEL_[A-Z]|^Failed to read/.test(text) && !warned.has(text)) {
      // The SDK repeats the text for each signal.
      warned.add(text)
      // The SDK does not name the variable of a file that it cannot read.
      const of = text.startsWith("Failed to read") ? ` of ${fileVariables}: none is used` : ""
      warn(`OpenTelemetry: ${text}${of}`)
    }
  }

/** Must be called before an exporter exists. The SDK's warnings about variables that only it reads go to `warn`. */
export const listen = (warn: (text: string) => void): void => {
  for (const name of Object.keys(process.env)) if (handledVariables.test(name)) delete process.env[name]
  const silent = () => {}
  diag.setLogger(
    { error: silent, warn: onDiagnostic(warn), info: silent, debug: silent, verbose: silent },
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

/** The message of an error body, if the body is an OTLP `Status`. */
const messageOf = (data: string | undefined): string => {
  try {
    const { message } = JSON.parse(data ?? "") as { readonly message?: unknown }
    return typeof message === "string" && message !== "" ? `: ${message}` : ""
  } catch {
    return ""
  }
}

const statusText = (status: number) => `HTTP ${status} ${STATUS_CODES[status] ?? ""}`.trim()

const grpcHint = "port 4317 is for gRPC; OTLP over HTTP uses port 4318"

/**
 * Why an export failed; `undefined` if it succeeded. Never contains the URL or the headers: of a system error only the code
 * is used, because its text contains addresses.
 */
export const reasonOf = ({ code, error }: ExportResult, target: Target): string | undefined => {
  if (code === ExportResultCode.SUCCESS) return undefined
  const url = new URL(target.url)
  const { code: cause, data } = (error ?? {}) as { readonly code?: unknown; readonly data?: string }
  if (typeof cause === "number") return `${statusText(cause)}${messageOf(data)}`
  const status = statuses.get(pathOf(url))
  if (error?.message.endsWith("retryable status") && status !== undefined) return statusText(status)
  if (typeof cause === "string" && cause.startsWith("HPE_"))
    return `the response is not HTTP/1.1 (${grpcHint})`
  const why = typeof cause === "string" ? cause : (error?.message ?? "unknown reason")
  return url.port === "4317" ? `${why} (${grpcHint})` : why
}

/** Why a target does not accept an empty export; `undefined` if it does. */
const refusal = (signal: Signal, target: Target): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    const done = (result: ExportResult) => {
      const notice = takeNotice()
      resume(Effect.succeed(reasonOf(result, target) ?? (notice && describeNotice(notice)[1])))
    }
    if (signal === "traces") traces(target).export([], done)
    else if (signal === "logs") logs(target).export([], done)
    else metrics(target).export({ resource: emptyResource(), scopeMetrics: [] }, done)
  })

/** Sends an empty export to each signal's target; a `reason` of `undefined` means that it was accepted. */
export const probe = (settings: TelemetrySettings) =>
  Effect.forEach(
    signals.flatMap((signal) => (settings[signal] ? [[signal, settings[signal]] as const] : [])),
    ([signal, target]) => Effect.map(refusal(signal, target), (reason) => ({ signal, reason })),
    { concurrency: "unbounded" },
  )
