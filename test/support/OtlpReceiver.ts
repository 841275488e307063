/** A receiver for OTLP over HTTP in JSON, in place of an OpenTelemetry Collector; keeps what it receives. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { createServer } from "node:http"
import type { IncomingMessage, Server } from "node:http"
import { createServer as createHttp2Server } from "node:http2"
import { createServer as createNetServer } from "node:net"
import type { AddressInfo, Server as NetServer } from "node:net"
import { gunzipSync } from "node:zlib"

export interface Attribute {
  readonly key: string
  readonly value: Readonly<Record<string, unknown>>
}

export interface Span {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly attributes: ReadonlyArray<Attribute>
  readonly links?: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
  readonly events?: ReadonlyArray<{ readonly name: string }>
  readonly status: { readonly code?: number }
}

interface Points {
  readonly dataPoints: ReadonlyArray<{ readonly attributes: ReadonlyArray<Attribute> }>
}

export interface MetricData {
  readonly name: string
  readonly unit: string
  readonly description: string
  readonly sum?: Points & { readonly isMonotonic: boolean }
  readonly gauge?: Points
  readonly histogram?: Points
}

export interface LogRecord {
  readonly traceId?: string
  readonly body: Readonly<Record<string, unknown>>
}

interface Payload {
  readonly resourceSpans?: ReadonlyArray<{
    readonly resource: { readonly attributes: ReadonlyArray<Attribute> }
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<Span> }>
  }>
  readonly resourceMetrics?: ReadonlyArray<{
    readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<MetricData> }>
  }>
  readonly resourceLogs?: ReadonlyArray<{
    readonly scopeLogs: ReadonlyArray<{ readonly logRecords: ReadonlyArray<LogRecord> }>
  }>
}

export interface Answer {
  readonly status?: number
  readonly body?: string
}

export interface Receiver {
  readonly url: string
  readonly port: number
  readonly spans: Array<Span>
  readonly resource: Map<string, unknown>
  /** The last export. */
  metrics: ReadonlyArray<MetricData>
  readonly logs: Array<LogRecord>
  /** All received bodies, as text. */
  text: string
  /** The response for a path. By default, everything is accepted. */
  answer: (path: string) => Answer
  /** Waits until the condition holds. */
  readonly until: (holds: () => boolean) => Effect.Effect<void>
}

export const valueOf = ({ value }: Attribute): unknown => Object.values(value)[0]

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks)
  return (request.headers["content-encoding"] === "gzip" ? gunzipSync(body) : body).toString()
}

/** The URL of a server that is not a receiver, until the scope closes. */
const startOther = (make: () => NetServer): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<NetServer>((resume) => {
      const server = make()
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close()),
  ).pipe(Effect.map((server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`))

/** The gRPC port of a Collector, which speaks only HTTP/2. */
export const startGrpc = startOther(() => createHttp2Server())

/** Accepts connections and never responds. */
export const startMute = startOther(() => createNetServer(() => {}))

/** Listens until the scope closes. */
export const start = (port = 0): Effect.Effect<Receiver, never, Scope.Scope> =>
  Effect.gen(function* () {
    const waiting = new Set<() => void>()
    const receiver: Omit<Receiver, "url" | "port" | "until"> = {
      spans: [],
      resource: new Map(),
      metrics: [],
      logs: [],
      text: "",
      answer: () => ({}),
    }
    const take = (text: string) => {
      receiver.text += text
      const payload = JSON.parse(text) as Payload
      for (const { resource, scopeSpans } of payload.resourceSpans ?? []) {
        for (const one of resource.attributes) receiver.resource.set(one.key, valueOf(one))
        for (const { spans } of scopeSpans) receiver.spans.push(...spans)
      }
      for (const { scopeMetrics } of payload.resourceMetrics ?? []) {
        receiver.metrics = scopeMetrics.flatMap(({ metrics }) => metrics)
      }
      for (const { scopeLogs } of payload.resourceLogs ?? []) {
        for (const { logRecords } of scopeLogs) receiver.logs.push(...logRecords)
      }
      for (const check of waiting) check()
    }
    const server = yield* Effect.acquireRelease(
      Effect.callback<Server>((resume) => {
        const server = createServer((request, response) => {
          const answer = async () => {
            const { status = 200, body = "{}" } = receiver.answer(request.url!)
            const sent = await bodyOf(request)
            if (status === 200) take(sent)
            response.writeHead(status, { "content-type": "application/json" }).end(body)
          }
          void answer()
        })
        server.listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          server.closeAllConnections()
          server.close()
        }),
    )
    const bound = (server.address() as AddressInfo).port
    const until = (holds: () => boolean) =>
      Effect.callback<void>((resume) => {
        const check = () => {
          if (!holds()) return
          waiting.delete(check)
          resume(Effect.void)
        }
        waiting.add(check)
        check()
        return Effect.sync(() => void waiting.delete(check))
      })
    return Object.assign(receiver, { port: bound, url: `http://127.0.0.1:${bound}`, until })
  })
