/** The routes of the running service, called by well-behaved, slow and hostile clients. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import { definitions } from "../../src/observability/Metrics.ts"
import { namesOf } from "../../src/observability/MetricFamily.ts"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode, Refused } from "../support/FakeNode.ts"
import { closed, fetchFrom, jsonFrom, openSocket } from "../support/http.ts"
import { freePort } from "../support/RedisServer.ts"
import * as Service from "../support/Service.ts"

interface World {
  readonly port: number
  readonly node: FakeNode
  readonly service: Service.Process
}

/** A running service on a scripted node. */
const test = (
  title: string,
  body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>,
  variables: Record<string, string> = {},
) =>
  it.live(
    title,
    () =>
      Effect.gen(function* () {
        const node = new FakeNode(new FakeChain())
        node.chain.extend(1, 2)
        const path = join(yield* directory, "events.db")
        const env = Devnet.environment(yield* node.serve, { DATABASE_PATH: path, ...variables })
        const service = yield* Service.start({ env })
        const port = yield* service.port
        // Ready is up to three blocks behind: these are all there are.
        const headers = { authorization: `Bearer ${variables["METRICS_TOKEN"] ?? ""}` }
        yield* Effect.repeat(fetchFrom(port, "/metrics", { headers }), {
          until: ({ text }) => text.includes('event_ingestor_chain_stored_block{chain="devnet"} 2\n'),
        })
        yield* Effect.repeat(jsonFrom(port, "/ready"), { until: ({ status }) => status === 200 })
        yield* body({ port, node, service })
      }).pipe(Effect.scoped),
    60_000,
  )

describe("the HTTP routes", () => {
  test("serve health, readiness and status", ({ port }) =>
    Effect.gen(function* () {
      const health = yield* jsonFrom(port, "/health")
      assert.deepInclude(health.body, { status: "ok" })
      assert.deepStrictEqual(yield* jsonFrom(port, "/ready?chain=devnet"), {
        status: 200,
        body: { ready: true, chains: { devnet: { ready: true, reasons: [] } } },
      } as never)
      assert.strictEqual((yield* fetchFrom(port, "/ready?chain=mars")).status, 404)
      const status = (yield* jsonFrom(port, "/status")).body as {
        chains: Array<Record<string, unknown>>
        store: Record<string, unknown>
      }
      assert.deepInclude(status.chains[0], {
        name: "devnet",
        id: 31337,
        ready: true,
        head: 2,
        stored: 2,
        behind: 0,
      })
      assert.match(String(status.store["version"]), /^sqlite /)
      assert.deepInclude((status.chains[0]!["endpoints"] as Array<Record<string, unknown>>)[0], {
        in_use: true,
        connects: 1,
        heads: "subscribed",
        audit_mismatches: 0,
        limits: [],
        capabilities: {
          refused: [],
          range: 500,
          recent_range: 20,
          addresses: 1000,
          headers_per_batch: 20,
          receipts_per_batch: 20,
          finalized_tag: true,
          nothing_final: false,
          logs_by_hash: true,
          logs_of_ranges: true,
          announces_heads: true,
          computes_blooms: true,
          bloom_mismatches: 0,
          oversized_blocks: 0,
        },
      })
    }))

  test(
    "report whether each endpoint's heads are subscribed or polled",
    ({ port, node }) =>
      Effect.gen(function* () {
        assert.strictEqual(node.timesAsked("eth_subscribe"), 1)
        const heads = Effect.map(jsonFrom(port, "/status"), ({ body }) => {
          const [chain] = (body as { chains: Array<{ endpoints: Array<{ heads: string | null }> }> }).chains
          return chain!.endpoints.map((endpoint) => endpoint.heads)
        })
        assert.deepStrictEqual(yield* heads, ["subscribed", null])
        node.intercept = (method, _params, proceed) => {
          if (method === "eth_subscribe") throw new Refused(-32601, "the method does not exist")
          return proceed()
        }
        node.drop()
        yield* Effect.repeat(heads, { until: ([first]) => first === "polled" })
      }),
    { DEVNET_RPC_URL: "http://127.0.0.1:1" },
  )

  test("support HEAD, and reject unknown paths, other methods and other hosts [G-179]", ({ port }) =>
    Effect.gen(function* () {
      for (const path of ["/", "/health", "/ready", "/metrics", "/status"]) {
        const head = yield* fetchFrom(port, path, { method: "HEAD" })
        assert.deepStrictEqual([head.status, head.text], [200, ""], path)
        assert.isAbove(Number(head.headers["content-length"]), 10, path)
        const post = yield* fetchFrom(port, path, { method: "POST" })
        assert.deepStrictEqual([post.status, post.headers["allow"]], [405, "GET, HEAD"], path)
      }
      for (const path of ["/nothing", "/metrics/x", "//x", "/%2e%2e/etc/passwd", "/status%00"]) {
        assert.strictEqual((yield* fetchFrom(port, path)).status, 404, path)
      }
      for (const host of [
        "evil.example.com",
        "127.0.0.1.evil.example.com",
        "localhost.evil.example.com:80",
      ]) {
        const { status, text } = yield* fetchFrom(port, "/status", { headers: { host } })
        assert.strictEqual(status, 421, host)
        for (const what of ["Host: localhost", "HTTP_HOST", "METRICS_TOKEN"]) assert.include(text, what)
      }
      const loopback = ["localhost", "localhost:1", "LOCALHOST", "LocalHost:9090", "[::1]:9090", "127.0.0.1"]
      for (const host of loopback) {
        assert.strictEqual((yield* fetchFrom(port, "/status", { headers: { host } })).status, 200, host)
      }
      // Load balancers may probe with HTTP/1.0.
      for (const headers of ["", "Host:\r\n"]) {
        const socket = yield* openSocket(port)
        socket.write(`GET /ready HTTP/1.0\r\n${headers}\r\n`)
        assert.match(yield* closed(socket), /^HTTP\/1.1 200 /)
      }
    }))

  test(
    "require the token, as Bearer or as the password of Basic, except for health and readiness",
    ({ port }) =>
      Effect.gen(function* () {
        const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`
        const ask = (path: string, authorization?: string) =>
          fetchFrom(port, path, authorization === undefined ? {} : { headers: { authorization } })
        for (const path of ["/", "//", "/metrics", "/status"]) {
          const refused = yield* ask(path)
          assert.strictEqual(refused.status, 401)
          assert.match(refused.headers["www-authenticate"]!, /^Basic realm=/)
          for (const wrong of [
            "Bearer t0ke",
            "Bearer t0ken2",
            "Bearer",
            "t0ken",
            basic("t0ken"),
            basic("u:wrong"),
            "Basic %%%",
          ]) {
            assert.strictEqual((yield* ask(path, wrong)).status, 401, wrong)
          }
          for (const right of ["Bearer t0ken", "bearer t0ken", basic(":t0ken"), basic("user:t0ken")]) {
            assert.strictEqual((yield* ask(path, right)).status, 200, right)
          }
        }
        for (const path of ["/health", "/ready"]) assert.strictEqual((yield* ask(path)).status, 200)
        assert.strictEqual((yield* ask("/nothing")).status, 404)
      }),
    { METRICS_TOKEN: "t0ken" },
  )

  test("serve every defined metric with its type, help and labels from the start", ({ port }) =>
    Effect.gen(function* () {
      const { text, headers } = yield* fetchFrom(port, "/metrics")
      assert.strictEqual(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
      const all = definitions.flatMap((one) => namesOf(one).map((name) => ({ ...one, name })))
      for (const { name, type, help, labels } of all) {
        // Those come with the groups and readers of a stream.
        if (labels.includes("group") || labels.includes("reader")) continue
        assert.include(text, `# TYPE ${name} ${type}\n`)
        assert.include(text, `# HELP ${name} ${help.replaceAll("\n", "\\n")}\n`)
        const sample = new RegExp(`^${name}(_bucket)?(?:\\{([^}]*)\\})? `, "m").exec(text)
        assert.isNotNull(sample, name)
        const found = [...(sample![2] ?? "").matchAll(/(\w+)="/g)]
          .map(([, label]) => label)
          .filter((label) => label !== "le")
        assert.deepStrictEqual(found, [...labels], name)
      }
      assert.include(text, '\nevent_ingestor_events_published_total{chain="devnet"} 3\n')
      assert.include(text, '\nevents_published_total{chain="devnet"} 3\n')
      assert.include(
        text,
        'event_ingestor_event_processing_errors_total{chain="devnet",error_type="defect"} 0\n',
      )
      assert.notMatch(text, /0x[0-9a-f]{8}|ws:\/\//)
    }))

  test("stay responsive while hundreds of connections are opened: the 101st is closed at once", ({ port }) =>
    Effect.gen(function* () {
      const before = performance.now()
      const sockets = yield* Effect.forEach(Array.from({ length: 500 }), () => openSocket(port), {
        concurrency: 50,
      })
      const gone = yield* Effect.forEach(sockets.slice(100), closed, { concurrency: "unbounded" })
      assert.strictEqual(gone.length, 400)
      assert.isBelow(performance.now() - before, 5000)
      assert.isTrue(sockets.slice(0, 100).every(({ destroyed }) => !destroyed))
      assert.instanceOf(yield* Effect.flip(fetchFrom(port, "/health")), Error)
      for (const socket of sockets) socket.destroy()
      yield* Effect.retry(fetchFrom(port, "/health"), { times: 50 })
    }))

  test("disconnect clients that do not read or whose headers never end", ({ port }) =>
    Effect.gen(function* () {
      const deaf = yield* openSocket(port)
      deaf.pause()
      const since = performance.now()
      deaf.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000))
      const slow = yield* openSocket(port)
      const before = performance.now()
      slow.write("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
      const drip = setInterval(() => slow.write("x"), 500)
      const response = yield* closed(slow)
      clearInterval(drip)
      assert.match(response, /^HTTP\/1.1 408 /)
      assert.isBelow(performance.now() - before, 13_000)
      assert.strictEqual((yield* fetchFrom(port, "/health")).status, 200)
      // A disconnected client notices it when it writes.
      const drop = Effect.callback<void>((resume) => {
        deaf.on("error", () => resume(Effect.void))
        deaf.on("close", () => resume(Effect.void))
      })
      const write = Effect.sync(() => deaf.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
      yield* Effect.raceFirst(drop, Effect.repeat(write, Schedule.spaced("1 second")))
      assert.isBelow(performance.now() - since, 40_000)
    }))

  test("survive malformed requests and respond with an error", ({ port }) =>
    Effect.gen(function* () {
      for (const nonsense of [
        "\u0000\u0001\r\n\r\n",
        "GET\r\n\r\n",
        `GET /${"a".repeat(40_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
      ]) {
        const socket = yield* openSocket(port)
        socket.write(nonsense)
        assert.match(yield* closed(socket), /^HTTP\/1.1 (400|431) /)
      }
      assert.strictEqual((yield* fetchFrom(port, "/health")).status, 200)
    }))

  test("can be scraped under load", ({ port, node }) =>
    Effect.gen(function* () {
      const scrapes: Array<number> = []
      for (let i = 0; i < 40; i++) {
        node.chain.extend(900, 300)
        const before = performance.now()
        const { status, text } = yield* fetchFrom(port, "/metrics")
        assert.strictEqual(status, 200)
        assert.include(text, "event_ingestor_events_published_total")
        scrapes.push(performance.now() - before)
      }
      assert.isBelow(scrapes.toSorted((a, b) => a - b)[20]!, 500)
      const published = /^event_ingestor_events_published_total\{chain="devnet"\} (\d+)/m
      yield* Effect.repeat(fetchFrom(port, "/metrics"), {
        until: ({ text }) => Number(published.exec(text)![1]) === 3 + 40 * 1200,
      })
    }))

  test("report why a chain is not ready while the process is healthy", ({ port, node }) =>
    Effect.gen(function* () {
      node.up = false
      node.drop()
      const unready = yield* Effect.repeat(jsonFrom(port, "/ready"), {
        until: ({ status }) => status === 503,
      })
      const { chains } = unready.body as { chains: { devnet: { reasons: Array<string> } } }
      assert.match(
        chains.devnet.reasons[0]!,
        /breaker is open after \d+ failures: 127\.0\.0\.1:\d+: connection lost/,
      )
      assert.strictEqual((yield* fetchFrom(port, "/health")).status, 200)
      node.up = true
      yield* Effect.repeat(jsonFrom(port, "/ready"), { until: ({ status }) => status === 200 })
    }))

  it.live("warn when they are open without a token, and name a port that is in use", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const env = {
        ...Devnet.environment("ws://127.0.0.1:1", { DATABASE_PATH: join(yield* directory, "events.db") }),
        HTTP_PORT: String(port),
      }
      const first = yield* Service.start({ env: { ...env, HTTP_HOST: "0.0.0.0" } })
      yield* first.says(/0\.0\.0\.0:\d+ serves the status without authentication: set METRICS_TOKEN/)
      yield* first.says(/status at http/)
      const second = yield* Service.run({ env })
      assert.strictEqual(second.code, 78)
      assert.match(
        second.errors,
        new RegExp(`^HTTP_PORT: cannot listen on 127.0.0.1:${port}: .*EADDRINUSE`, "m"),
      )
    }).pipe(Effect.scoped),
  )
})
