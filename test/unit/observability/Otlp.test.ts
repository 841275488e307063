/** The log lines and counters for undelivered telemetry, with real exporters and sockets. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Metric, Redacted } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import * as Delivery from "../../../src/observability/Delivery.ts"
import { makeRedactor, Redaction } from "../../../src/Redactor.ts"
import * as Telemetry from "../../../src/observability/Telemetry.ts"
import type { TelemetrySettings } from "../../../src/config/TelemetryConfig.ts"
import { Dropped } from "../../../src/Tracing.ts"
import { directory } from "../../support/directory.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode } from "../../support/FakeNode.ts"
import * as Otlp from "../../support/OtlpReceiver.ts"
import * as RedisServer from "../../support/RedisServer.ts"
import * as Service from "../../support/Service.ts"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

const none: TelemetrySettings = {
  traces: undefined,
  metrics: undefined,
  logs: undefined,
  serviceName: "test",
  attributes: {},
  sampler: "always_on",
  ratio: 1,
  metricInterval: 20,
  spanBatches: { delay: 5, timeout: 30_000, size: 512 },
  logBatches: { delay: 5, timeout: 30_000, size: 512 },
}

const secret = "t0psecret"

const to = (url: string, headers: Readonly<Record<string, string>> = {}, timeout = 200) => ({
  url,
  headers: Redacted.make({ "x-key": secret, ...headers }),
  timeout,
})

/** Telemetry with these settings, its log lines, and its counts of dropped items. */
const delivering = (settings: Partial<TelemetrySettings>) => {
  const lines: Array<string> = []
  const waiting = new Set<() => void>()
  const logger = Logger.make(({ logLevel, message }) => {
    lines.push(`${logLevel}: ${String(message)}`)
    for (const check of waiting) check()
  })
  const dropped = { traces: 0, metrics: 0, logs: 0 }
  const given = { ...none, ...settings }
  const urls = [given.traces, given.metrics, given.logs].flatMap((one) => (one ? [one.url] : []))
  const around = Layer.mergeAll(
    Logger.layer([logger]),
    Layer.succeed(Dropped, dropped),
    Layer.succeed(Redaction, makeRedactor({ urls, words: [secret] })),
  )
  const built = Telemetry.layer(given).pipe(Layer.provideMerge(around))
  return {
    lines,
    dropped,
    run: Effect.provide(built),
    until: (holds: () => boolean) =>
      Effect.callback<void>((resume) => {
        const check = () => {
          if (!holds()) return
          waiting.delete(check)
          resume(Effect.void)
        }
        waiting.add(check)
        check()
      }),
  }
}

const span = Effect.withSpan(Effect.void, "a span", { root: true })

const answering = (answer: Otlp.Answer) =>
  Effect.map(Otlp.start(), (receiver) => {
    receiver.answer = () => answer
    return receiver.url
  })

const refusals: ReadonlyArray<
  readonly [kind: string, url: Effect.Effect<string, never, Scope.Scope>, reason: RegExp]
> = [
  [
    "a gRPC port",
    Otlp.startGrpc,
    /^the response is not HTTP\/1.1 \(port 4317 is for gRPC; OTLP over HTTP uses port 4318\)$/,
  ],
  [
    "401",
    answering({ status: 401, body: `{"message":"no such key: ${secret}"}` }),
    /^HTTP 401 Unauthorized: no such key: \*\*\*$/,
  ],
  ["404", answering({ status: 404, body: "<html>" }), /^HTTP 404 Not Found$/],
  ["413", answering({ status: 413, body: "" }), /^HTTP 413 Payload Too Large$/],
  ["429", answering({ status: 429 }), /^HTTP 429 Too Many Requests$/],
  ["503", answering({ status: 503 }), /^HTTP 503 Service Unavailable$/],
  ["a redirect", answering({ status: 301 }), /^HTTP 301 Moved Permanently$/],
  [
    "nothing that listens",
    Effect.map(RedisServer.freePort, (port) => `http://127.0.0.1:${port}`),
    /^ECONNREFUSED$/,
  ],
  [
    "nothing that listens on gRPC's port",
    Effect.succeed("http://127.255.255.254:4317"),
    /^E\w+ \(port 4317 is for gRPC/,
  ],
  [
    "a name that does not resolve",
    Effect.succeed("http://collector.invalid:4318"),
    /^(ENOTFOUND|EAI_AGAIN)$/,
  ],
  [
    "TLS to a plain port",
    Effect.map(answering({}), (url) => url.replace("http:", "https:")),
    /^(EPROTO|ERR_SSL_\w+)$/,
  ],
  ["silence", Otlp.startMute, /^Request timed out$/],
]

describe("undelivered telemetry", () => {
  for (const [kind, url, reason] of refusals) {
    test(
      `is logged once per signal with the reason, and counted: ${kind} [G-176]`,
      Effect.gen(function* () {
        const target = to(`${yield* url}/${secret}`)
        const { dropped, lines, run, until } = delivering({ traces: target, metrics: target })
        yield* run(
          Effect.gen(function* () {
            yield* span
            yield* Metric.update(Metric.counter("a_counter"), 1)
            yield* until(() => lines.length >= 2)
            const before = dropped.metrics
            yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => dropped.metrics > before })
          }),
        )
        assert.isAbove(dropped.traces, 0)
        assert.isAbove(dropped.metrics, 1)
        assert.sameMembers(
          lines.map((line) => /^WARN: (\w+) not delivered: /i.exec(line)?.[1] ?? line),
          ["traces", "metrics"],
        )
        for (const line of lines) {
          assert.match(line.replace(/^.* not delivered: /, ""), reason)
          assert.notMatch(line, new RegExp(`${secret}|127\\.|collector|x-key`))
        }
      }),
    )
  }

  test(
    "is followed by one line when delivery works again",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      receiver.answer = () => ({ status: 401 })
      const { dropped, lines, run, until } = delivering({ traces: to(receiver.url) })
      yield* run(
        Effect.gen(function* () {
          yield* span
          yield* until(() => lines.length === 1)
          receiver.answer = () => ({})
          yield* span
          yield* until(() => lines.length === 2)
        }),
      )
      assert.match(lines[1]!, /^INFO: traces delivered again$/i)
      assert.strictEqual(dropped.traces, 1)
    }),
  )

  const partial = {
    traces: { rejectedSpans: "2", errorMessage: `a span of ${secret} is too long` },
    metrics: { rejectedDataPoints: 1, errorMessage: "too old" },
    logs: { rejectedLogRecords: 1 },
  }

  test(
    "is counted after a partial success, and logged once with the target's message [G-177]",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      receiver.answer = (path) => ({
        body: JSON.stringify({ partialSuccess: partial[path.slice(1) as keyof typeof partial] }),
      })
      const { dropped, lines, run, until } = delivering({
        traces: to(`${receiver.url}/traces`),
        metrics: to(`${receiver.url}/metrics`),
        logs: to(`${receiver.url}/logs`),
      })
      yield* run(
        Effect.gen(function* () {
          yield* Effect.all([span, span, span])
          yield* Metric.update(Metric.counter("a_counter"), 1)
          yield* Effect.logError("a record")
          yield* until(() => lines.length >= 4)
          const before = dropped.metrics
          yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => dropped.metrics > before + 1 })
        }),
      )
      assert.sameMembers(
        lines.map((line) => line.replace(/^\w+: /, "")),
        [
          "a record",
          "traces: the target accepted the export but rejected 2 of its items: a span of *** is too long",
          "metrics: the target accepted the export but rejected 1 of its items: too old",
          "logs: the target accepted the export but rejected 1 of its items: no reason given",
        ],
      )
      assert.strictEqual(dropped.traces, 2)
      assert.strictEqual(dropped.logs, 1)
    }),
  )

  test(
    "is suspected and logged when a plain web server accepts every request",
    Effect.gen(function* () {
      const url = yield* answering({ body: "<html>It works!</html>" })
      const { dropped, lines, run, until } = delivering({ traces: to(url) })
      yield* run(
        Effect.andThen(
          span,
          until(() => lines.length > 0),
        ),
      )
      assert.match(
        lines[0]!,
        /^WARN: traces: the response is not OTLP: check that the port and the path are those of a collector/i,
      )
      assert.strictEqual(dropped.traces, 0)
    }),
  )

  it("is logged at most once a minute, whatever the reason, and reported as over only after a warning", () => {
    const lines: Array<string> = []
    let now = 0
    const say = (text: string) => void lines.push(`${now / 1000} ${text}`)
    const handle = Delivery.make("traces", () => now, { warn: say, info: say })
    const at = (seconds: number, reason?: string, notice?: Delivery.TargetNotice) => {
      now = seconds * 1000
      return handle(10, reason, notice)
    }
    assert.deepStrictEqual(
      [at(0, "A"), at(1, "A"), at(2, "B"), at(59, "B"), at(60, "B"), at(61), at(62), at(63, "B"), at(64)],
      [10, 10, 10, 10, 10, 0, 0, 10, 0],
    )
    at(120, "B")
    at(300, "B")
    const message = "too long"
    assert.deepStrictEqual(
      [
        at(301, undefined, { rejected: 3, message }),
        at(302, undefined, { rejected: 4000, message }),
        at(400, undefined, { rejected: 1, message }),
        at(401, undefined, { rejected: 0, message: "deprecated" }),
      ],
      [3, 10, 1, 0],
    )
    assert.deepStrictEqual(lines, [
      "0 traces not delivered: A",
      "60 traces not delivered: B",
      "61 traces delivered again",
      "120 traces not delivered: B",
      "301 traces delivered again",
      "301 traces: the target accepted the export but rejected 3 of its items: too long",
      "401 traces: the target accepted the export but rejected 0 of its items: deprecated",
    ])
  })

  test(
    "is a warning of `check` with the reason, while an accepted signal is ok",
    Effect.gen(function* () {
      const node = new FakeNode(new FakeChain())
      node.chain.extend(...Array.from({ length: 30 }, () => 4))
      const { intercept } = node
      node.intercept = (method, params, proceed) => {
        if (method === "eth_subscribe" && params[0] === "newHeads") setImmediate(() => node.chain.extend(2))
        return intercept(method, params, proceed)
      }
      const receiver = yield* Otlp.start()
      receiver.answer = (path) => (path === "/v1/logs" ? { status: 401 } : {})
      const { code, output } = yield* Service.run({
        args: ["check", "--json"],
        env: {
          CHAINS: "devnet",
          DEVNET_CHAIN_ID: "31337",
          DEVNET_WS_URL: yield* node.serve,
          DATABASE_PATH: join(yield* directory, "events.db"),
          OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
          OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: yield* Otlp.startGrpc,
          OTEL_LOGS_EXPORTER: "otlp",
          OTEL_EXPORTER_OTLP_HEADERS: `x-key=${secret}`,
          OTEL_EXPORTER_OTLP_COMPRESSION: "brotli",
        },
      })
      assert.strictEqual(code, 0, output)
      const found = output
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as { subject: string; level: string; detail: string })
        .filter(({ subject }) => subject.startsWith("telemetry"))
        .map(({ subject, level, detail }) => `${subject} ${level}: ${detail}`)
      assert.deepStrictEqual(found.slice(-3), [
        "telemetry traces ok: accepts an empty request",
        "telemetry metrics warning: the response is not HTTP/1.1 (port 4317 is for gRPC; OTLP over HTTP uses port 4318)",
        "telemetry logs warning: HTTP 401 Unauthorized",
      ])
      assert.match(
        found[0]!,
        /^telemetry warning: OpenTelemetry: .*OTEL_EXPORTER_OTLP_COMPRESSION is invalid/,
      )
      assert.strictEqual(receiver.text, '{"resourceSpans":[]}')
      assert.notInclude(output, secret)
    }),
  )
})
