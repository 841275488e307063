/**
 * The HTTP routes: `/health`, `/ready`, `/metrics`, `/status`, the page at `/` and its `/events`.
 *
 * Limits: 100 connections, 30 s for a request (10 s for its headers), 30 s for the response, and 30 s without progress
 * (event streams continue). If a token is set, everything except `/health` and `/ready` requires it: as a Bearer token, or
 * as the password of Basic authentication, so that a browser can prompt for it.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Duration, Effect, Layer, Redacted, Schema } from "effect"
import { HttpMiddleware, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { createHash, timingSafeEqual } from "node:crypto"
import { createServer } from "../NodeHttp.ts"
import { isIPv4 } from "node:net"
import type { AddressInfo } from "node:net"
import { AppConfig } from "../config/AppConfig.ts"
import { logEvent } from "../observability/LogEvents.ts"
import * as Monotonic from "../Monotonic.ts"
import * as Events from "./Events.ts"
import * as Page from "./Page.ts"
import * as Report from "./Report.ts"
import { Fleet } from "../fleet/Fleet.ts"
import { Status } from "../observability/Status.ts"

export class HttpError extends Schema.TaggedError<HttpError>()("HttpError", { detail: Schema.String }) {
  override get message() {
    return this.detail
  }
}

const mostConnections = 100
const requestTimeout = Duration.seconds(30)
/** How often Node checks these timeouts: with its default of 30 s, slow headers would take up to 40 s. */
const checkInterval = Duration.seconds(4)
/** So slow headers take at most 10 s. */
const headersTimeout = Duration.seconds(6)
/** How long open connections may take at shutdown. */
const closeWithin = Duration.seconds(1)

/** The Node server with its limits. */
const listen = () => {
  const server = createServer({
    requestTimeout: Duration.toMillis(requestTimeout),
    headersTimeout: Duration.toMillis(headersTimeout),
    connectionsCheckingInterval: Duration.toMillis(checkInterval),
    keepAliveTimeout: 5_000,
    maxHeaderSize: 16 * 1024,
  })
  // Node closes a connection above this limit at once, before it reads from it.
  server.maxConnections = mostConnections
  server.timeout = Duration.toMillis(requestTimeout)
  return server
}

const json = (body: unknown, status = 200, headers: Record<string, string> = {}) =>
  HttpServerResponse.jsonUnsafe(body, { status, headers: { "cache-control": "no-store", ...headers } })

const problem = (status: number, detail: string, headers?: Record<string, string>) =>
  json({ error: detail }, status, headers)

const digest = (text: string) => createHash("sha256").update(text).digest()

/** Compares in constant time. */
const isEqual = (a: string, b: string) => timingSafeEqual(digest(a), digest(b))

/** The token of a request: the Bearer token, or the password of Basic authentication. */
const tokenOf = (authorization: string): string => {
  const [scheme = "", rest = ""] = authorization.split(" ", 2)
  if (scheme.toLowerCase() === "bearer") return rest
  if (scheme.toLowerCase() !== "basic") return ""
  const decoded = Buffer.from(rest, "base64").toString()
  const colon = decoded.indexOf(":")
  return colon === -1 ? "" : decoded.slice(colon + 1)
}

const isLoopback = (name: string) => {
  const host = name.toLowerCase()
  return host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."))
}

const wrongHost = problem(
  421,
  "host not allowed: HTTP_HOST is a loopback address, so only localhost, 127.0.0.1 and [::1] are. Behind a proxy, let it send Host: localhost; to listen on other addresses, set HTTP_HOST (0.0.0.0: all) and METRICS_TOKEN",
)

/**
 * Prevents DNS rebinding: a page elsewhere may resolve its own name to 127.0.0.1 to read the status of this machine, but
 * its Host header reveals it. Browsers always send Host; a request of HTTP/1.0 without it is a probe.
 */
const hostCheck = HttpRouter.middleware(
  Effect.gen(function* () {
    const { http } = yield* AppConfig
    const listensOnLoopback = isLoopback(http.host)
    return (app) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) => {
        const host = (headers["host"] ?? "").replace(/:\d+$/, "").replace(/^\[|\]$/g, "")
        return listensOnLoopback && host !== "" && !isLoopback(host) ? Effect.succeed(wrongHost) : app
      })
  }),
  { global: true },
)

const authenticated = HttpRouter.middleware(
  Effect.gen(function* () {
    const { http } = yield* AppConfig
    const challenge = problem(401, "token required", { "www-authenticate": 'Basic realm="event-ingestor"' })
    return (app) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
        http.token === undefined ||
        isEqual(tokenOf(headers["authorization"] ?? ""), Redacted.value(http.token))
          ? app
          : Effect.succeed(challenge),
      )
  }),
).layer

const inTime = HttpRouter.middleware((app) =>
  Effect.timeoutOrElse(app, {
    duration: requestTimeout,
    orElse: () => Effect.succeed(problem(503, "response timed out")),
  }),
).layer

const open = HttpRouter.use(
  Effect.fnUntraced(function* (router) {
    const status = yield* Status
    const fleet = yield* Fleet
    const health = Effect.map(Monotonic.millis, (now) =>
      json({ status: "ok", uptime_s: Math.round((now - status.startedSince) / 1000) }),
    )
    const ready = Effect.gen(function* () {
      const { url } = yield* HttpServerRequest.HttpServerRequest
      const query = new URL(url, "http://localhost").searchParams
      const asked = { chain: query.get("chain") ?? undefined, processOnly: query.get("scope") === "process" }
      const report = Report.readyReport(status, asked, yield* Monotonic.millis, fleet.view())
      return report ? json(report, report.ready ? 200 : 503) : problem(404, "chain not configured")
    })
    yield* router.add("GET", "/health", health)
    yield* router.add("GET", "/ready", ready)
    // HEAD uses the routes of GET. `/*` would also match `/`, the route of the page.
    yield* router.add("GET", "*", problem(404, "not found"))
    const methodNotAllowed = problem(405, "method not allowed: use GET or HEAD", { allow: "GET, HEAD" })
    for (const method of ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const)
      yield* router.add(method, "*", methodNotAllowed)
  }),
)

const guarded = HttpRouter.use(
  Effect.fnUntraced(function* (router) {
    const status = yield* Status
    const fleet = yield* Fleet
    const metrics = Effect.sync(() =>
      HttpServerResponse.text(PrometheusMetrics.formatUnsafe(status.registry), {
        contentType: "text/plain; version=0.0.4; charset=utf-8",
      }),
    )
    const report = Effect.flatMap(fleet.reports, (reports) =>
      Effect.map(Report.now, (now) => json(Report.statusReport(status, now, fleet.view(), reports))),
    )
    const full = problem(503, `too many readers: the limit is ${Events.mostReaders}`, { "retry-after": "10" })
    yield* router.add("GET", "/", Page.load())
    yield* router.add("GET", "/metrics", metrics)
    yield* router.add("GET", "/status", report)
    yield* router.add("GET", "/events", Events.make(status, fleet, full))
  }),
).pipe(Layer.provide(authenticated))

const routes = Layer.mergeAll(open, guarded, hostCheck).pipe(Layer.provide(inTime))

/** Serves the routes during the lifetime of the layer. */
export const layer = Layer.unwrap(
  Effect.gen(function* () {
    const { http } = yield* AppConfig
    const { host, port } = http
    if (!isLoopback(host) && http.token === undefined) {
      const warning = `${host}:${port} serves the status without authentication: set METRICS_TOKEN`
      yield* logEvent("http_unprotected", warning, {})
    }
    const server = listen()
    yield* Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))
    return HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provide(
        HttpMiddleware.layerTracerDisabledForUrls([
          "/",
          "/health",
          "/ready",
          "/metrics",
          "/status",
          "/events",
        ]),
      ),
      Layer.provide(NodeHttpServer.layer(() => server, { host, port, gracefulShutdownTimeout: closeWithin })),
      Layer.tap(() =>
        Effect.suspend(() => {
          const { port } = server.address() as AddressInfo
          const url = `http://${host}:${port}/status`
          return logEvent("http", `status at ${url}`, { url })
        }),
      ),
      Layer.catchTag("ServeError", ({ cause }) => {
        const detail = `HTTP_PORT: cannot listen on ${host}:${port}: ${(cause as Error).message}`
        return Layer.effectDiscard(new HttpError({ detail }))
      }),
    )
  }),
)
