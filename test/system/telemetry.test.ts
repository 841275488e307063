/** What the real service sends to a collector, and what an unreachable collector costs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import { emptyHead } from "../../src/store/Journal.ts"
import { pushes } from "../../src/store/Pushes.ts"
import { blocks } from "../support/blocks.ts"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { fetchFrom } from "../support/http.ts"
import * as Otlp from "../support/OtlpReceiver.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"
import * as TcpProxy from "../support/TcpProxy.ts"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 60_000)

/** A devnet, and a service on it that sends its telemetry to this URL. */
const observed = Effect.fnUntraced(function* (url: string, variables: Record<string, string> = {}) {
  const devnet = yield* Devnet.start()
  const proxy = yield* TcpProxy.start(devnet.anvil.port)
  const path = join(yield* directory, "events.db")
  const service = yield* Service.start({
    env: {
      ...Devnet.environment(`ws://127.0.0.1:${proxy.port}`, { DATABASE_PATH: path }),
      OTEL_EXPORTER_OTLP_ENDPOINT: url,
      OTEL_METRIC_EXPORT_INTERVAL: "300",
      OTEL_BSP_SCHEDULE_DELAY: "200",
      LOG_FORMAT: "json",
      ...variables,
    },
  })
  const store = yield* Devnet.openSqlite(path)
  return { devnet, proxy, service, store }
})

const metricsOf = (port: number) => Effect.map(fetchFrom(port, "/metrics"), ({ text }) => text)

/** `name type label=value,…` of every series in the Prometheus text format, without the suffixes and labels of histograms. */
const seriesOf = (text: string): ReadonlySet<string> => {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!]))
  const found = new Set<string>()
  for (const [, sample, labels = ""] of text.matchAll(/^([a-z_0-9]+)(?:\{(.*)\})? \S+$/gm)) {
    const name = types.has(sample!) ? sample! : sample!.replace(/_(bucket|sum|count)$/, "")
    const pairs = [...labels.matchAll(/([a-z_]+)="([^"]*)"/g)].filter(([, key]) => key !== "le")
    found.add(
      `${name} ${types.get(name)} ${pairs
        .map(([, key, value]) => `${key}=${value}`)
        .sort()
        .join(",")}`,
    )
  }
  return found
}

const typeOf = (metric: Otlp.MetricData) =>
  metric.histogram ? "histogram" : metric.gauge ? "gauge" : metric.sum?.isMonotonic ? "counter" : "gauge"

const received = (metrics: ReadonlyArray<Otlp.MetricData>): ReadonlySet<string> =>
  new Set(
    metrics.flatMap((metric) =>
      (metric.histogram ?? metric.gauge ?? metric.sum)!.dataPoints.map(
        ({ attributes }) =>
          `${metric.name} ${typeOf(metric)} ${attributes
            .map((one) => `${one.key}=${String(Otlp.valueOf(one))}`)
            .sort()
            .join(",")}`,
      ),
    ),
  )

describe("telemetry", () => {
  test(
    "produces one trace per block, from announced to pushed, whose context the entries carry",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      const { devnet, store } = yield* observed(receiver.url, {
        OTEL_SERVICE_NAME: "mine",
        OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test",
      })
      // Only an announced head starts a trace, and nothing is subscribed before the first blocks are stored.
      yield* Devnet.reached(store, devnet.head)
      for (let i = 0; i < 5; i++) yield* devnet.block(4)
      yield* Devnet.reached(store, devnet.head)
      const { number } = yield* devnet.head
      const isLast = ({ attributes, name }: Otlp.Span) =>
        name === "block" &&
        attributes.some((one) => one.key === "event_ingestor.block.number" && Otlp.valueOf(one) === number)
      yield* receiver.until(() => receiver.spans.some(isLast))
      const root = receiver.spans.find(isLast)!
      const children = () => receiver.spans.filter(({ parentSpanId }) => parentSpanId === root.spanId)
      yield* receiver.until(() => children().some(({ name }) => name === "push"))
      const entries = yield* Stream.runCollect(store.after(Devnet.chainId))
      const { entry } = entries.at(-1)!
      assert.strictEqual(entry.block_number, String(number))
      assert.strictEqual(entry.traceparent, `00-${root.traceId}-${root.spanId}-01`)
      assert.include(
        children().map(({ name }) => name),
        "eth_getLogs",
      )
      const request = children().find(({ name }) => name === "eth_getLogs")!
      const attributes = Object.fromEntries(request.attributes.map((one) => [one.key, Otlp.valueOf(one)]))
      assert.strictEqual(attributes["rpc.system.name"], "jsonrpc")
      assert.strictEqual(attributes["rpc.method"], "eth_getLogs")
      assert.strictEqual(receiver.resource.get("service.name"), "mine")
      assert.strictEqual(receiver.resource.get("deployment.environment.name"), "test")
      assert.isString(receiver.resource.get("service.version"))
      assert.isUndefined(root.parentSpanId)
    }),
  )

  test(
    "traces the blocks that a reorg retracts, and a lost connection",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      const { devnet, proxy, store } = yield* observed(receiver.url)
      // Only an announced head starts a trace, and nothing is subscribed before the first blocks are stored.
      yield* Devnet.reached(store, devnet.head)
      for (let i = 0; i < 5; i++) yield* devnet.block(2)
      yield* Devnet.reached(store, devnet.head)
      yield* devnet.reorg(3)
      yield* devnet.block(1)
      yield* Devnet.reached(store, devnet.head)
      yield* receiver.until(() => receiver.spans.filter(({ name }) => name === "pop").length >= 3)
      proxy.cut()
      yield* receiver.until(() => receiver.spans.some(({ name }) => name === "connection lost"))
      const lost = receiver.spans.find(({ name }) => name === "connection lost")!
      assert.strictEqual(lost.status.code, 2)
      assert.isTrue(lost.events?.some(({ name }) => name === "exception"))
    }),
  )

  test(
    "omits an unknown lag, which is NaN in /metrics",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const store = yield* openRedis(standalone(server.port))
      for (const move of pushes(emptyHead(1), blocks(1, "a", [1000, 1000]), true))
        yield* store.push(Devnet.chainId, "none", move)
      const ids = (yield* Stream.runCollect(store.after(Devnet.chainId))).map(({ id }) => id)
      const stream = `events:${Devnet.chainId}`
      yield* Effect.promise(async () => {
        for (const [name, id] of [
          ["odd", ids[10]!],
          ["even", "$"],
        ] as const)
          await server.client.xgroup("CREATE", stream, name, id)
        await server.client.xdel(stream, ids[500]!)
      })
      const receiver = yield* Otlp.start()
      const service = yield* Service.start({
        env: {
          ...Devnet.environment("ws://127.0.0.1:1", { REDIS_URL: server.url }),
          OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
          OTEL_METRIC_EXPORT_INTERVAL: "300",
        },
      })
      const port = yield* service.port
      const scraped = yield* Effect.repeat(metricsOf(port), {
        until: (text) => /group_lag\{.*"odd"/.test(text),
      })
      assert.match(scraped, /stream_group_lag\{.*group="odd".*\} NaN$/m)
      assert.match(scraped, /stream_group_lag\{.*group="even".*\} 0$/m)
      receiver.metrics = []
      yield* receiver.until(() => receiver.metrics.some(({ name }) => name.endsWith("stream_group_pending")))
      const groupsOf = (end: string) =>
        [...received(receiver.metrics)]
          .filter((series) => series.includes(`${end} `))
          .map((series) => /group=(\w+)/.exec(series)?.[1])
          .sort()
      assert.deepStrictEqual(groupsOf("stream_group_lag"), ["even"])
      assert.deepStrictEqual(groupsOf("stream_group_pending"), ["even", "odd"])
    }),
  )

  test(
    "exports the same metrics as /metrics: names, types, labels",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      const { devnet, service, store } = yield* observed(receiver.url)
      yield* devnet.block(3)
      yield* Devnet.reached(store, devnet.head)
      const port = yield* service.port
      const scraped = seriesOf(yield* metricsOf(port))
      receiver.metrics = []
      yield* receiver.until(() => receiver.metrics.length > 0)
      assert.deepStrictEqual([...received(receiver.metrics)].sort(), [...scraped].sort())
      assert.isAbove(scraped.size, 60)
      const latency = receiver.metrics.find(({ name }) => name === "event_ingestor_publish_latency_seconds")!
      assert.strictEqual(latency.unit, "s")
      assert.match(latency.description, /acknowledgement/)
    }),
  )

  test(
    "exports logs if configured",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      const { service } = yield* observed(receiver.url, {
        OTEL_LOGS_EXPORTER: "otlp",
        OTEL_BLRP_SCHEDULE_DELAY: "100",
      })
      yield* service.says(/following/)
      yield* receiver.until(() =>
        receiver.logs.some(({ body }) => JSON.stringify(body).includes("following devnet")),
      )
    }),
  )

  test(
    "samples no trace if the sampler is off, and then adds no traceparent to entries",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      const { devnet, service, store } = yield* observed(receiver.url, { OTEL_TRACES_SAMPLER: "always_off" })
      // Only an announced head starts a trace, and nothing is subscribed before the first blocks are stored.
      yield* Devnet.reached(store, devnet.head)
      for (let i = 0; i < 5; i++) yield* devnet.block(4)
      yield* Devnet.reached(store, devnet.head)
      yield* receiver.until(() => receiver.metrics.length > 0)
      const entries = yield* Stream.runCollect(store.after(Devnet.chainId))
      assert.isAbove(entries.length, 10)
      for (const { entry } of entries) assert.isUndefined(entry.traceparent)
      service.kill("SIGTERM")
      assert.strictEqual(yield* service.exit, 0)
      assert.deepStrictEqual(receiver.spans, [])
    }),
  )

  test(
    "stays off without an endpoint, even if the rest is configured",
    Effect.gen(function* () {
      const { devnet, service, store } = yield* observed("", {
        OTEL_SERVICE_NAME: "mine",
        OTEL_TRACES_SAMPLER: "always_on",
      })
      yield* devnet.block(4)
      yield* Devnet.reached(store, devnet.head)
      const entries = yield* Stream.runCollect(store.after(Devnet.chainId))
      assert.isUndefined(entries.at(-1)!.entry.traceparent)
      assert.notMatch(service.output() + service.errors(), /otel|telemetry|collector/i)
    }),
  )

  test(
    "is delivered whatever unknown values the variables of the specification have [G-174]",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      const unknown = `SDK_DISABLED LOG_LEVEL PROPAGATORS RESOURCE_ATTRIBUTES TRACES_EXPORTER METRICS_EXPORTER
        LOGS_EXPORTER TRACES_SAMPLER TRACES_SAMPLER_ARG METRICS_EXEMPLAR_FILTER METRIC_EXPORT_TIMEOUT
        EXPORTER_OTLP_PROTOCOL EXPORTER_OTLP_HEADERS EXPORTER_OTLP_TIMEOUT EXPORTER_OTLP_COMPRESSION
        EXPORTER_OTLP_CERTIFICATE EXPORTER_OTLP_CLIENT_KEY EXPORTER_OTLP_INSECURE
        EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE BSP_SCHEDULE_DELAY BSP_EXPORT_TIMEOUT BSP_MAX_QUEUE_SIZE
        BSP_MAX_EXPORT_BATCH_SIZE BLRP_SCHEDULE_DELAY BLRP_EXPORT_TIMEOUT BLRP_MAX_QUEUE_SIZE
        BLRP_MAX_EXPORT_BATCH_SIZE ATTRIBUTE_COUNT_LIMIT ATTRIBUTE_VALUE_LENGTH_LIMIT SPAN_EVENT_COUNT_LIMIT
        SPAN_ATTRIBUTE_COUNT_LIMIT SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT SPAN_LINK_COUNT_LIMIT`.split(/\s+/)
      for (const value of ["0", "-1", "a b=c"]) {
        const variables = Object.fromEntries(unknown.map((name) => [`OTEL_${name}`, value]))
        const { service } = yield* observed(receiver.url, variables)
        receiver.metrics = []
        yield* receiver.until(() => receiver.metrics.length > 0)
        service.kill("SIGTERM")
        assert.strictEqual(yield* service.exit, 0, value)
        const warned = service.output().match(/"(?:OpenTelemetry: .*)?OTEL_\w+(?=:? )/g) ?? []
        assert.isAbove(warned.length, 12, value)
        assert.strictEqual(new Set(warned).size, warned.length, service.output())
        assert.notMatch(service.output(), /not delivered|did you mean|Discarding/)
      }
    }),
  )

  for (const kind of ["dead", "black-holed"] as const) {
    test(
      `stops nothing when the collector is ${kind}: losses are counted and logged once, and SIGTERM ends within 3 s [G-178]`,
      Effect.gen(function* () {
        const port = yield* RedisServer.freePort
        const url = kind === "dead" ? `http://127.0.0.1:${port}` : yield* Otlp.startMute
        const { devnet, service, store } = yield* observed(url, {
          OTEL_EXPORTER_OTLP_TIMEOUT: "300",
        })
        for (let i = 0; i < 10; i++) yield* devnet.block(4)
        yield* Devnet.reached(store, devnet.head)
        const http = yield* service.port
        const dropped = Effect.map(metricsOf(http), (text) =>
          Number(/event_ingestor_telemetry_dropped_total\{signal="metrics"\} (\d+)/.exec(text)?.[1]),
        )
        yield* Effect.repeat(Effect.delay(dropped, "100 millis"), { until: (n) => n > 0 })
        yield* devnet.block(4)
        yield* Devnet.reached(store, devnet.head)
        const since = performance.now()
        service.kill("SIGTERM")
        assert.strictEqual(yield* service.exit, 0)
        assert.isBelow(performance.now() - since, 3000)
        const warnings = service.output().match(/"metrics not delivered: [^"]*"/g)
        const reason = kind === "dead" ? "ECONNREFUSED" : "Request timed out"
        assert.deepStrictEqual(warnings, [`"metrics not delivered: ${reason}"`])
      }),
    )
  }

  test(
    "is delivered again when the collector returns",
    Effect.gen(function* () {
      const port = yield* RedisServer.freePort
      const { devnet, service, store } = yield* observed(`http://127.0.0.1:${port}`, {
        OTEL_EXPORTER_OTLP_TIMEOUT: "500",
      })
      yield* devnet.block(4)
      yield* Devnet.reached(store, devnet.head)
      yield* service.says(/following/)
      yield* service.says(/metrics not delivered: ECONNREFUSED/)
      const receiver = yield* Otlp.start(port)
      yield* receiver.until(() => receiver.metrics.length > 0)
      yield* service.says(/metrics delivered again/)
      yield* devnet.block(4)
      yield* receiver.until(() => receiver.spans.some(({ name }) => name === "push"))
    }),
  )

  test(
    "continues in the example consumer, which joins the trace",
    Effect.gen(function* () {
      const receiver = yield* Otlp.start()
      const server = yield* RedisServer.start()
      const { devnet } = yield* observed(receiver.url, { REDIS_URL: server.url, DATABASE_PATH: "" })
      yield* devnet.block(4)
      const store = yield* openRedis(standalone(server.port))
      yield* Devnet.reached(store, devnet.head)
      yield* Service.start({
        entry: "examples/consume.ts",
        args: [`events:${Devnet.chainId}`],
        env: {
          REDIS_URL: server.url,
          OTLP_URL: `${receiver.url}/v1/traces`,
          NODE_OPTIONS: `--import ${new URL("../support/otelSdk.mjs", import.meta.url).href}`,
        },
      })
      yield* devnet.block(4)
      // Entries of blocks mined before the service subscribed have no trace to join.
      const joins = ({ name, parentSpanId }: Otlp.Span) => name === "process" && parentSpanId !== undefined
      yield* receiver.until(() => receiver.spans.some(joins))
      const joined = receiver.spans.filter(joins)
      yield* receiver.until(() =>
        joined.every((one) => receiver.spans.some(({ spanId }) => spanId === one.parentSpanId)),
      )
      assert.isAbove(joined.length, 0)
    }),
  )
})
