import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted } from "effect"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { fromVariables } from "../../../src/config/AppConfig.ts"
import type { Settings } from "../../../src/config/AppConfig.ts"
import { withDotEnv } from "../../../src/config/Environment.ts"

type Variables = Readonly<Record<string, string>>

const devnet: Variables = { CHAINS: "devnet", DEVNET_CHAIN_ID: "31337", DEVNET_WS_URL: "ws://127.0.0.1:8545" }

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/tls/${name}`, import.meta.url))

/** Certificates are read at the start: these are real ones. */
const [caFile, certFile, keyFile] = [fixture("ca.crt"), fixture("server.crt"), fixture("server.key")]

const redis = (settings: Settings) => (settings.store._tag === "Redis" ? settings.store : undefined)

const collector: Variables = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" }

/** Where traces, metrics and logs go. */
const urls = ({ telemetry }: Settings) => [
  telemetry?.traces?.url,
  telemetry?.metrics?.url,
  telemetry?.logs?.url,
]

const headers = ({ telemetry }: Settings, signal: "traces" | "metrics" = "traces") =>
  telemetry?.[signal] && Redacted.value(telemetry[signal].headers)

const topicA = `0x${"aa".repeat(32)}`
const topicB = `0x${"bb".repeat(32)}`
const address = `0x${"12".repeat(20)}`

/** What a variable makes of the settings; the rest of the environment is one devnet. */
const good: ReadonlyArray<
  readonly [title: string, variables: Variables, pick: (s: Settings) => unknown, value: unknown]
> = [
  ["no store variables mean SQLite", {}, (s) => s.store, { _tag: "Sqlite", path: "./data/events.db" }],
  ["DATABASE_PATH", { DATABASE_PATH: "/x.db" }, (s) => s.store, { _tag: "Sqlite", path: "/x.db" }],
  ["an empty variable is unset", { HTTP_PORT: "", DATABASE_PATH: " " }, (s) => s.http.port, 9090],
  ["HTTP_PORT", { HTTP_PORT: "8080" }, (s) => s.http.port, 8080],
  ["METRICS_PORT is another name", { METRICS_PORT: "8081" }, (s) => s.http.port, 8081],
  ["both names may agree", { METRICS_PORT: "8081", HTTP_PORT: "8081" }, (s) => s.http.port, 8081],
  ["any HTTP_PORT", { HTTP_PORT: "0" }, (s) => s.http.port, 0],
  ["HTTP_HOST", { HTTP_HOST: "0.0.0.0" }, (s) => s.http.host, "0.0.0.0"],
  ["METRICS_TOKEN", { METRICS_TOKEN: "t0ken" }, (s) => s.http.token && Redacted.value(s.http.token), "t0ken"],
  ["STREAM_PREFIX", { STREAM_PREFIX: "logs:v1" }, (s) => s.streamPrefix, "logs:v1"],
  ["STREAM_MAXLEN of 0 keeps all", { STREAM_MAXLEN: "0" }, (s) => s.retention.maxLength, 0],
  ["a duration in short", { REQUEST_TIMEOUT: "1500ms" }, (s) => Duration.toMillis(s.requestTimeout), 1500],
  ["a duration in words", { STALL_TIMEOUT: "2 minutes" }, (s) => Duration.toSeconds(s.stallTimeout), 120],
  ["CONFIG_VERSION", { CONFIG_VERSION: "7" }, (s) => s.configVersion, 7],
  ["no fleet", {}, (s) => s.fleet, undefined],
  [
    "FLEET",
    { FLEET: "main", REDIS_HOST: "redis" },
    (s) => [s.fleet?.name, s.fleet && Duration.toMillis(s.fleet.heartbeat)],
    ["main", 500],
  ],
  [
    "FLEET_HEARTBEAT",
    { FLEET: "main", REDIS_HOST: "redis", FLEET_HEARTBEAT: "2s" },
    (s) => s.fleet && Duration.toMillis(s.fleet.heartbeat),
    2000,
  ],
  ["SHUTDOWN_TIMEOUT", { SHUTDOWN_TIMEOUT: "3s" }, (s) => Duration.toSeconds(s.shutdownTimeout), 3],
  ["bytes as a number", { WS_MAX_PAYLOAD: "1000" }, (s) => s.wsMaxPayload, 1000],
  ["bytes with a unit", { WS_MAX_PAYLOAD: "64MiB" }, (s) => s.wsMaxPayload, 67_108_864],
  ["RPC_RATE", { RPC_RATE: "2.5" }, (s) => s.rpcRate, 2.5],
  ["AUDIT", { AUDIT: "off" }, (s) => s.audit, false],
  ["LOG_LEVEL in any case", { LOG_LEVEL: "WARN" }, (s) => s.log.level, "Warn"],
  ["LOG_FORMAT", { LOG_FORMAT: "logfmt" }, (s) => s.log.format, "logfmt"],
  ["the start is latest", {}, (s) => s.chains[0]!.startBlock, "latest"],
  ["a start for all chains", { START_BLOCK: "5" }, (s) => s.chains[0]!.startBlock, 5],
  [
    "a chain's own start wins",
    { START_BLOCK: "5", DEVNET_START_BLOCK: "7" },
    (s) => s.chains[0]!.startBlock,
    7,
  ],
  [
    "a chain's own start may be latest",
    { START_BLOCK: "5", DEVNET_START_BLOCK: "latest" },
    (s) => s.chains[0]!.startBlock,
    "latest",
  ],
  [
    "no filter from a `_FILE` variable, which is not read",
    { ADDRESSES: address, DEVNET_ADDRESSES_FILE: "/x" },
    (s) => s.chains[0]!.filter.addresses,
    [address],
  ],
  [
    "an IPv6 address of Redis",
    { REDIS_URL: "redis://[::1]:6380" },
    (s) => s.store._tag === "Redis" && s.store.nodes,
    [{ host: "::1", port: 6380 }],
  ],
  [
    "empty places at the end of topics mean nothing",
    { TOPICS: `,${topicA},,` },
    (s) => s.chains[0]!.filter.topics,
    [null, [topicA]],
  ],
  ["CONFIRMATIONS", { DEVNET_CONFIRMATIONS: "3" }, (s) => s.chains[0]!.confirmations, 3],
  [
    "CONFIRMATIONS until final",
    { CONFIRMATIONS: "finalized" },
    (s) => s.chains[0]!.confirmations,
    "finalized",
  ],
  ["LOGS_BLOOM", { DEVNET_LOGS_BLOOM: "ignore" }, (s) => s.chains[0]!.logsBloom, "ignore"],
  ["FINALITY", { FINALITY: "depth", DEVNET_FINALITY: "" }, (s) => s.chains[0]!.finality, "depth"],
  ["FINALITY unset", { DEVNET_FINALITY: "" }, (s) => s.chains[0]!.finality, "tag"],
  ["HEADS", { DEVNET_HEADS: "poll" }, (s) => s.chains[0]!.heads, "poll"],
  ["HEADS unset", { HEADS: "" }, (s) => s.chains[0]!.heads, "subscribe"],
  [
    "POLL_INTERVAL",
    { POLL_INTERVAL: "10s", DEVNET_POLL_INTERVAL: "500ms" },
    (s) => Duration.toMillis(s.chains[0]!.pollInterval),
    500,
  ],
  [
    "POLL_INTERVAL of a chain that is not built in",
    { POLL_INTERVAL: "" },
    (s) => Duration.toMillis(s.chains[0]!.pollInterval),
    1000,
  ],
  [
    "POLL_INTERVAL is the block time, at least a second",
    { CHAINS: "ethereum,arbitrum" },
    (s) => s.chains.map(({ pollInterval }) => Duration.toMillis(pollInterval)),
    [12_000, 1000],
  ],
  [
    "an HTTP endpoint that is polled for heads",
    { DEVNET_WS_URL: "wss://a.example.com,https://b.example.org/key" },
    (s) => s.chains[0]!.endpoints.map(({ name }) => name),
    ["example.com", "example.org"],
  ],
  ["FINALITY_DEPTH", { DEVNET_FINALITY_DEPTH: "9" }, (s) => s.chains[0]!.finalityDepth, 9],
  [
    "addresses are lower-cased, sorted and without repeats",
    { DEVNET_ADDRESSES: `${address.toUpperCase().replace("0X", "0x")}, ${address}` },
    (s) => s.chains[0]!.filter.addresses,
    [address],
  ],
  [
    "a list of topics is about topic0",
    { TOPICS: `${topicA},${topicB}` },
    (s) => s.chains[0]!.filter.topics,
    [[topicA, topicB]],
  ],
  [
    "topics by position",
    { TOPICS: `${topicA}|${topicB},,${topicA}` },
    (s) => s.chains[0]!.filter.topics,
    [[topicA, topicB], null, [topicA]],
  ],
  [
    "endpoints are named by the last labels of their hosts, and numbered",
    {
      DEVNET_WS_URL:
        "wss://eth.alchemy.com/v2/abcdefghijkl, wss://eu.alchemy.com,ws://10.0.0.1,ws://node:8546,ws://[::1]:1",
    },
    (s) => s.chains[0]!.endpoints.map(({ name }) => name),
    ["alchemy.com", "alchemy.com-2", "10.0.0.1:80", "node:8546", "[::1]:1"],
  ],
  [
    "RPC_URL",
    { DEVNET_RPC_URL: "https://a.example.com/key12345" },
    (s) => s.chains[0]!.rpc.map(({ name }) => name),
    ["example.com"],
  ],
  [
    "REDIS_URL",
    { REDIS_URL: "rediss://me:p%40ss@redis.example.com:6380/2", REDIS_CA_FILE: caFile },
    (s) =>
      s.store._tag === "Redis" && {
        ...s.store,
        password: s.store.password && Redacted.value(s.store.password),
      },
    {
      _tag: "Redis",
      mode: "standalone",
      nodes: [{ host: "redis.example.com", port: 6380 }],
      tls: true,
      caFile,
      certFile: undefined,
      keyFile: undefined,
      username: "me",
      password: "p@ss",
      database: 2,
      sentinelMaster: undefined,
      sentinelUsername: undefined,
      sentinelPassword: undefined,
      renewed: undefined,
    },
  ],
  [
    "a certificate of our own for Redis",
    { REDIS_URL: "rediss://a", REDIS_CERT_FILE: certFile, REDIS_KEY_FILE: keyFile },
    (s) => [redis(s)?.certFile, redis(s)?.keyFile],
    [certFile, keyFile],
  ],
  ["the database in a query", { REDIS_URL: "redis://a?db=3" }, (s) => redis(s)?.database, 3],
  ["the database twice", { REDIS_URL: "redis://a/3?db=3" }, (s) => redis(s)?.database, 3],
  [
    "sentinels with a user and a password of their own",
    {
      REDIS_URL: "redis://:master@a",
      REDIS_SENTINEL_MASTER: "main",
      REDIS_SENTINEL_USERNAME: "watcher",
      REDIS_SENTINEL_PASSWORD: "other",
    },
    (s) => {
      const store = redis(s)
      return [store?.password, store?.sentinelPassword]
        .map((word) => word && Redacted.value(word))
        .concat(store?.sentinelUsername)
    },
    ["master", "other", "watcher"],
  ],
  [
    "service links of services called redis, http and metrics are no ports, with SQLite",
    {
      REDIS_PORT: "tcp://10.0.0.1:6379",
      HTTP_PORT: "tcp://10.0.0.2:80",
      METRICS_PORT: "udp://10.0.0.3:80",
      HTTP_HOST: "0.0.0.0",
    },
    (s) => [s.store._tag, s.http, s.warnings],
    [
      "Sqlite",
      { host: "0.0.0.0", port: 9090, token: undefined },
      [
        "REDIS_PORT is not used: tcp://10.0.0.1:6379 is a service link of Kubernetes",
        "HTTP_PORT is not used: tcp://10.0.0.2:80 is a service link of Kubernetes",
        "METRICS_PORT is not used: udp://10.0.0.3:80 is a service link of Kubernetes",
      ],
    ],
  ],
  [
    "a service link beside REDIS_HOST is no port, and another name for a port still counts",
    {
      REDIS_HOST: "r",
      REDIS_PORT: "tcp://10.0.0.1:7000",
      HTTP_PORT: "tcp://10.0.0.2:80",
      METRICS_PORT: "81",
    },
    (s) => [redis(s)?.nodes, s.http.port, s.warnings.length],
    [[{ host: "r", port: 6379 }], 81, 2],
  ],
  [
    "service links of services called like our variables are not taken for misspelt",
    Object.fromEntries(
      [
        "REDIS",
        "HTTP",
        "HTTPS",
        "METRICS",
        "HTTP_PORT",
        "REDIS_HOST",
        "REDIS_URL",
        "BASE_WS_URL",
        "CHAINS",
      ].flatMap((name) => [
        ...(name === "HTTP" || name === "METRICS" || name === "REDIS"
          ? []
          : [[`${name}_PORT`, "tcp://10.0.0.1:80"]]),
        [`${name}_SERVICE_HOST`, "10.0.0.1"],
        [`${name}_SERVICE_PORT`, "80"],
        [`${name}_SERVICE_PORT_WS_URL`, "80"],
        [`${name}_PORT_80_TCP`, "tcp://10.0.0.1:80"],
        [`${name}_PORT_80_TCP_PROTO`, "tcp"],
        [`${name}_PORT_80_TCP_PORT`, "80"],
        [`${name}_PORT_80_TCP_ADDR`, "10.0.0.1"],
      ]),
    ),
    (s) => s.warnings,
    [],
  ],
  [
    "REDIS_HOST, REDIS_PORT and REDIS_PASSWORD",
    { REDIS_HOST: "r", REDIS_PORT: "7000", REDIS_PASSWORD: "pw" },
    (s) => s.store._tag === "Redis" && [s.store.nodes, s.store.password && Redacted.value(s.store.password)],
    [[{ host: "r", port: 7000 }], "pw"],
  ],
  [
    "sentinels",
    { REDIS_URL: "redis://a,redis://b:5000", REDIS_SENTINEL_MASTER: "main" },
    (s) => s.store._tag === "Redis" && [s.store.mode, s.store.nodes.map(({ port }) => port)],
    ["sentinel", [26379, 5000]],
  ],
  [
    "a cluster",
    { REDIS_URL: "redis://a,redis://b", REDIS_CLUSTER: "true" },
    (s) => s.store._tag === "Redis" && [s.store.mode, s.store.nodes.length],
    ["cluster", 2],
  ],
  ["no telemetry", { OTEL_SERVICE_NAME: "mine" }, (s) => s.telemetry, undefined],
  [
    "telemetry to one collector, without logs",
    { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318/" },
    (s) => [...urls(s), s.warnings],
    ["http://collector:4318/v1/traces", "http://collector:4318/v1/metrics", undefined, []],
  ],
  [
    "telemetry below a base with a path and a query",
    { OTEL_EXPORTER_OTLP_ENDPOINT: "https://collector/otlp/?tenant=a" },
    (s) => s.telemetry?.traces?.url,
    "https://collector/otlp/v1/traces?tenant=a",
  ],
  [
    "telemetry signal by signal",
    {
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://tempo/otlp",
      OTEL_METRICS_EXPORTER: "none",
      OTEL_LOGS_EXPORTER: "otlp",
    },
    urls,
    ["https://tempo/otlp", undefined, "http://collector:4318/v1/logs"],
  ],
  [
    "telemetry that is disabled, whatever else is set",
    {
      OTEL_SDK_DISABLED: "True",
      OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4317",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "grpc://collector",
      OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
      OTEL_EXPORTER_OTLP_HEADERS: "none",
      OTEL_EXPORTER_OTLP_HEADERS_FILE: "/nowhere",
      OTEL_TRACES_EXPORTER: "console",
      OTEL_TRACES_SAMPLER: "xray",
    },
    (s) => [s.telemetry, s.warnings],
    [undefined, []],
  ],
  [
    "a sampler, headers, attributes",
    {
      ...collector,
      OTEL_TRACES_SAMPLER: "TraceIdRatio",
      OTEL_TRACES_SAMPLER_ARG: "2.5e-1",
      OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20abc, x = y z,",
      OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=prod,service.name=mine",
    },
    (s) =>
      s.telemetry && [
        s.telemetry.sampler,
        s.telemetry.ratio,
        headers(s),
        s.telemetry.attributes,
        s.telemetry.serviceName,
        s.warnings,
      ],
    [
      "traceidratio",
      0.25,
      { authorization: "Bearer abc", x: "y z" },
      { "deployment.environment.name": "prod", "service.name": "mine" },
      "mine",
      [],
    ],
  ],
  [
    "headers and a timeout of one signal, instead of those of all",
    {
      ...collector,
      OTEL_EXPORTER_OTLP_HEADERS: "authorization=a",
      OTEL_EXPORTER_OTLP_TRACES_HEADERS: "x-key=b",
      OTEL_EXPORTER_OTLP_TIMEOUT: "500",
      OTEL_EXPORTER_OTLP_METRICS_TIMEOUT: "0",
    },
    (s) => [
      headers(s),
      headers(s, "metrics"),
      s.telemetry?.traces?.timeout,
      s.telemetry?.metrics?.timeout,
      s.redact("a b"),
    ],
    [{ "x-key": "b" }, { authorization: "a" }, 500, 2 ** 31 - 1, "*** ***"],
  ],
  [
    "gRPC for what goes nowhere",
    {
      OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http/json",
      OTEL_METRICS_EXPORTER: "none",
      ...collector,
    },
    (s) => [...urls(s), s.warnings],
    ["http://collector:4318/v1/traces", undefined, undefined, []],
  ],
  [
    "gRPC and nowhere to send to",
    { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" },
    (s) => [s.telemetry, s.warnings],
    [undefined, []],
  ],
  [
    "no URL for a signal that is not sent",
    { ...collector, OTEL_LOGS_EXPORTER: "none", OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: "collector:4317" },
    (s) => s.telemetry?.logs,
    undefined,
  ],
]

/** Values that the specification defines, or unknown ones: the warning, and the value that is used. */
const ignored: ReadonlyArray<
  readonly [variables: Variables, warning: RegExp, pick: (s: Settings) => unknown, value: unknown]
> = [
  ...["console", "prometheus", "logging", "zipkin", "otlp/stdout", "console,zipkin"].flatMap((value) =>
    [
      ["OTEL_TRACES_EXPORTER", "otlp", "http://collector:4318/v1/traces"],
      ["OTEL_METRICS_EXPORTER", "otlp", "http://collector:4318/v1/metrics"],
      ["OTEL_LOGS_EXPORTER", "none", undefined],
    ].map(
      ([name, used, url], i) =>
        [
          { [name!]: value },
          new RegExp(`^${name} is not used: expected otlp or none, got "${value}"; ${used} is used$`),
          (s: Settings) => urls(s)[i],
          url,
        ] as const,
    ),
  ),
  [
    { OTEL_LOGS_EXPORTER: "OTLP,console" },
    /^OTEL_LOGS_EXPORTER: of "OTLP,console" only otlp is used$/,
    (s) => urls(s)[2],
    "http://collector:4318/v1/logs",
  ],
  [
    { OTEL_TRACES_EXPORTER: "otlp, none" },
    /^OTEL_TRACES_EXPORTER: of "otlp, none" only none is used$/,
    (s) => urls(s)[0],
    undefined,
  ],
  [
    { OTEL_SDK_DISABLED: "yes" },
    /^OTEL_SDK_DISABLED is not used: expected one of true, false, got "yes"; false is used$/,
    (s) => urls(s)[0],
    "http://collector:4318/v1/traces",
  ],
  ...["jaeger_remote", "parentbased_jaeger_remote", "xray", "sometimes"].map(
    (value) =>
      [
        { OTEL_TRACES_SAMPLER: value },
        /^OTEL_TRACES_SAMPLER is not used: expected one of always_on, .*; parentbased_always_on is used$/,
        (s: Settings) => s.telemetry?.sampler,
        "parentbased_always_on",
      ] as const,
  ),
  ...["0.1", "endpoint=http://localhost:14250,initialSamplingRate=0.25"].map(
    (value) =>
      [
        { OTEL_TRACES_SAMPLER_ARG: value },
        /^OTEL_TRACES_SAMPLER_ARG is not used: parentbased_always_on is used, which has no argument$/,
        (s: Settings) => s.telemetry?.ratio,
        1,
      ] as const,
  ),
  ...["2", "-0.5", "half", "0x1", "50%"].map(
    (value) =>
      [
        { OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: value },
        /^OTEL_TRACES_SAMPLER_ARG is not used: expected a number from 0 to 1, got ".*"; 1 is used$/,
        (s: Settings) => s.telemetry?.ratio,
        1,
      ] as const,
  ),
  [
    { OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf" },
    /^OTEL_EXPORTER_OTLP_PROTOCOL is not used: http\/json is sent, to the same port and paths$/,
    urls,
    ["http://collector:4318/v1/traces", "http://collector:4318/v1/metrics", undefined],
  ],
  [
    { OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: "http" },
    /^OTEL_EXPORTER_OTLP_METRICS_PROTOCOL is not used: expected one of .*, got "http"; http\/json is used$/,
    (s) => urls(s)[1],
    "http://collector:4318/v1/metrics",
  ],
  ...["10s", "-1", "1.5", "9999999999"].flatMap(
    (value) =>
      [
        [
          { OTEL_EXPORTER_OTLP_TIMEOUT: value },
          /^OTEL_EXPORTER_OTLP_TIMEOUT is not used: expected milliseconds from 1 to 2147483647, or 0 for no limit, got .*; 10000 is used$/,
          (s: Settings) => s.telemetry?.traces?.timeout,
          10_000,
        ],
        [
          { OTEL_METRIC_EXPORT_INTERVAL: value },
          /^OTEL_METRIC_EXPORT_INTERVAL is not used: expected milliseconds from 1 to 2147483647, got .*; 15000 is used$/,
          (s: Settings) => s.telemetry?.metricInterval,
          15_000,
        ],
        [
          { OTEL_BSP_SCHEDULE_DELAY: value },
          /^OTEL_BSP_SCHEDULE_DELAY is not used: .*; 5000 is used$/,
          (s: Settings) => s.telemetry?.spanBatches.delay,
          5000,
        ],
      ] as const,
  ),
  [
    { OTEL_METRIC_EXPORT_INTERVAL: "0" },
    /^OTEL_METRIC_EXPORT_INTERVAL is not used: .*, got "0"; 15000 is used$/,
    (s) => s.telemetry?.metricInterval,
    15_000,
  ],
  [
    { OTEL_BLRP_MAX_EXPORT_BATCH_SIZE: "0" },
    /^OTEL_BLRP_MAX_EXPORT_BATCH_SIZE is not used: expected a whole number from 1 to 2048, got "0"; 512 is used$/,
    (s) => s.telemetry?.logBatches.size,
    512,
  ],
  [
    { OTEL_EXPORTER_OTLP_HEADERS: "Authorization: Bearer secret,x=y" },
    /^OTEL_EXPORTER_OTLP_HEADERS: 1 of its headers cannot be sent and is not used: expected pairs such as /,
    headers,
    { x: "y" },
  ],
  [
    { OTEL_EXPORTER_OTLP_TRACES_HEADERS: "a secret=b,c=secret%0a,d=%zz,=e,x=y" },
    /^OTEL_EXPORTER_OTLP_TRACES_HEADERS: 4 of its headers cannot be sent and are not used: /,
    headers,
    { x: "y" },
  ],
  [
    { OTEL_RESOURCE_ATTRIBUTES: "a=b,c" },
    /^OTEL_RESOURCE_ATTRIBUTES is not used: expected pairs .*; no attributes are used$/,
    (s) => s.telemetry?.attributes,
    {},
  ],
]

/** Each line that must be among the problems, as a pattern. */
const bad: ReadonlyArray<readonly [title: string, variables: Variables, problems: ReadonlyArray<RegExp>]> = [
  [
    "a port",
    { ...devnet, HTTP_PORT: "65536" },
    [/^HTTP_PORT: expected a port from 1 to 65535, or 0 for any, got "65536"$/],
  ],
  ["a port that is no number", { ...devnet, HTTP_PORT: "http" }, [/^HTTP_PORT: .*got "http"$/]],
  [
    "two ports",
    { ...devnet, HTTP_PORT: "1", METRICS_PORT: "2" },
    [/^METRICS_PORT: is another name for HTTP_PORT/],
  ],
  [
    "a duration without a unit",
    { ...devnet, REQUEST_TIMEOUT: "10" },
    [/^REQUEST_TIMEOUT: expected a duration such as/],
  ],
  ["no time at all", { ...devnet, STALL_TIMEOUT: "0s" }, [/^STALL_TIMEOUT: expected a duration/]],
  ["bytes", { ...devnet, WS_MAX_PAYLOAD: "big" }, [/^WS_MAX_PAYLOAD: expected a size in bytes/]],
  [
    "more bytes than a string has",
    { ...devnet, WS_MAX_PAYLOAD: "512MiB" },
    [/^WS_MAX_PAYLOAD: .*, 536870888 at most, got "512MiB"$/],
  ],
  ["a version", { ...devnet, CONFIG_VERSION: "v1" }, [/^CONFIG_VERSION: expected a whole number from 1/]],
  ["a fleet on SQLite", { ...devnet, FLEET: "main" }, [/^FLEET: replicas share the chains through Redis/]],
  [
    "a fleet's name",
    { ...devnet, REDIS_HOST: "redis", FLEET: "{a}" },
    [/^FLEET: expected letters, digits and any of \. _ -/],
  ],
  [
    "heartbeats that are too rare",
    { ...devnet, REDIS_HOST: "redis", FLEET: "main", FLEET_HEARTBEAT: "3s" },
    [/^FLEET_HEARTBEAT: expected at most 2s/],
  ],
  ["a rate of nothing", { ...devnet, RPC_RATE: "0" }, [/^RPC_RATE: expected a number above 0/]],
  ["a length", { ...devnet, STREAM_MAXLEN: "-1" }, [/^STREAM_MAXLEN: expected a whole number from 0/]],
  ["a prefix with braces", { ...devnet, STREAM_PREFIX: "{a}" }, [/^STREAM_PREFIX: expected letters/]],
  ["a switch", { ...devnet, AUDIT: "maybe" }, [/^AUDIT: expected one of on, off, got "maybe"$/]],
  ["a log format", { ...devnet, LOG_FORMAT: "xml" }, [/^LOG_FORMAT: expected one of json, pretty, logfmt/]],
  ["a log level", { ...devnet, LOG_LEVEL: "loud" }, [/^LOG_LEVEL: expected one of all, trace/]],
  ["a chain name", { CHAINS: "my chain" }, [/^CHAINS: expected a chain's name or id/]],
  [
    "an unknown chain",
    { CHAINS: "foo" },
    [/^FOO_CHAIN_ID: expected the chain id of foo/, /^FOO_WS_URL: expected a WebSocket or HTTP URL of foo/],
  ],
  [
    "a misspelt chain",
    { CHAINS: "etherium", ETHERIUM_WS_URL: "wss://node" },
    [
      /^ETHERIUM_CHAIN_ID: expected the chain id of etherium, which is not built in; did you mean ethereum\? \(built in: ethereum, .*, sepolia\)$/,
    ],
  ],
  ["an unknown id", { CHAINS: "12345" }, [/^CHAIN_12345_WS_URL: expected a WebSocket or HTTP URL/]],
  [
    "a wrong id",
    { ...devnet, DEVNET_CHAIN_ID: "x" },
    [/^DEVNET_CHAIN_ID: expected a whole number from 1, got "x"$/],
  ],
  [
    "the id of another chain",
    { CHAINS: "base", BASE_CHAIN_ID: "1" },
    [/^BASE_CHAIN_ID: expected 8453, the id of base, got 1$/],
  ],
  [
    "one chain twice",
    { ...devnet, CHAINS: "devnet,31337", CHAIN_31337_WS_URL: "ws://a" },
    [/^CHAINS: devnet and chain-31337 are both chain 31337$/],
  ],
  [
    "a protocol that no endpoint speaks",
    { ...devnet, DEVNET_WS_URL: "ftp://u:secret@a" },
    [
      /^DEVNET_WS_URL: expected a URL that starts with ws:\/\/ or wss:\/\/ or http:\/\/ or https:\/\/ and has no # and no space; several with commas between them$/,
    ],
  ],
  [
    "a fragment, which no WebSocket URL may have",
    { ...devnet, DEVNET_WS_URL: "ws://a/#secretpart" },
    [/^DEVNET_WS_URL: expected a URL that starts with .* and has no #/],
  ],
  [
    "a list of lines",
    { ...devnet, DEVNET_WS_URL: "ws://a\nws://b" },
    [/^DEVNET_WS_URL: expected .* no space; several with commas/],
  ],
  ["an empty place in a list", { ...devnet, DEVNET_WS_URL: "ws://a,,ws://b" }, [/^DEVNET_WS_URL: expected/]],
  [
    "a WebSocket URL for HTTP",
    { ...devnet, DEVNET_RPC_URL: "ws://a" },
    [/^DEVNET_RPC_URL: expected a URL that starts with http/],
  ],
  ["an address", { ...devnet, ADDRESSES: "0x12" }, [/^ADDRESSES: expected a contract address/]],
  ["a topic", { ...devnet, DEVNET_TOPICS: "0x12" }, [/^DEVNET_TOPICS: expected topics/]],
  ["five positions", { ...devnet, TOPICS: `${topicA},,,,${topicB}` }, [/^TOPICS: expected topics/]],
  [
    "a start",
    { ...devnet, START_BLOCK: "soon" },
    [/^START_BLOCK: expected `latest` or a whole number from 0, got "soon"$/],
  ],
  ["confirmations", { ...devnet, CONFIRMATIONS: "1.5" }, [/^CONFIRMATIONS: expected `finalized` or/]],
  ["how finality is known", { ...devnet, FINALITY: "none" }, [/^FINALITY: expected one of tag, depth/]],
  ["how heads come", { ...devnet, DEVNET_HEADS: "push" }, [/^DEVNET_HEADS: expected one of subscribe, poll/]],
  ["a poll interval", { ...devnet, POLL_INTERVAL: "5" }, [/^POLL_INTERVAL: expected a duration/]],
  [
    "a finality depth",
    { ...devnet, FINALITY_DEPTH: "0" },
    [/^FINALITY_DEPTH: expected a whole number from 1/],
  ],
  [
    "telemetry to what is no URL",
    {
      ...devnet,
      OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "grpc://collector:4317",
    },
    [
      /^OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL that starts with http/,
      /^OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: expected a URL that starts with http/,
    ],
  ],
  [
    "telemetry by gRPC",
    { ...devnet, ...collector, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" },
    [
      /^OTEL_EXPORTER_OTLP_PROTOCOL: grpc is not supported: set OTEL_EXPORTER_OTLP_PROTOCOL=http\/json, and OTEL_EXPORTER_OTLP_ENDPOINT to the port of OTLP over HTTP \(4318, not 4317\)$/,
    ],
  ],
  [
    "one signal by gRPC",
    { ...devnet, ...collector, OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: "GRPC" },
    [
      /^OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: grpc is not supported: set OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http\/json, and OTEL_EXPORTER_OTLP_METRICS_ENDPOINT /,
    ],
  ],
  [
    "two ways to Redis",
    { ...devnet, REDIS_URL: "redis://a", REDIS_HOST: "b" },
    [/^REDIS_HOST: set either REDIS_URL or REDIS_HOST, not both$/],
  ],
  [
    "a Redis URL",
    { ...devnet, REDIS_URL: "http://:pw@a" },
    [
      /^REDIS_URL: expected a URL that starts with redis:\/\/ or rediss:\/\/ and has no # and no space; several with commas between them$/,
    ],
  ],
  [
    "several nodes of one Redis",
    { ...devnet, REDIS_URL: "redis://a,redis://b" },
    [/^REDIS_URL: several need REDIS_SENTINEL_MASTER or REDIS_CLUSTER beside them$/],
  ],
  [
    "an unknown query, without its value",
    { ...devnet, REDIS_URL: "redis://a/2?ssl_cert_reqs=secret&db=2" },
    [/^REDIS_URL: no query but \?db= is known, got "ssl_cert_reqs"$/],
  ],
  [
    "two Redis databases",
    { ...devnet, REDIS_URL: "redis://a/1?db=2" },
    [/^REDIS_URL: names several databases: 1, 2$/],
  ],
  ["a negative database", { ...devnet, REDIS_URL: "redis://a/-1" }, [/^REDIS_URL: expected a database/]],
  [
    "a path below the database",
    { ...devnet, REDIS_URL: "redis://a/1/2" },
    [/^REDIS_URL: expected a database/],
  ],
  [
    "an empty query of a database",
    { ...devnet, REDIS_URL: "redis://a?db=x" },
    [/^REDIS_URL: expected a database/],
  ],
  [
    "nodes that differ in more than their hosts",
    { ...devnet, REDIS_CLUSTER: "true", REDIS_URL: "redis://u:secret@a,rediss://v:pw@b/1" },
    [
      /^REDIS_URL: expected the same protocol for all nodes$/,
      /^REDIS_URL: expected the same user for all nodes$/,
      /^REDIS_URL: expected the same password for all nodes$/,
      /^REDIS_URL: expected the same database for all nodes$/,
    ],
  ],
  [
    "two passwords of Redis",
    { ...devnet, REDIS_URL: "redis://:pw@a", REDIS_PASSWORD: "secret" },
    [/^REDIS_PASSWORD: REDIS_URL has another password: set one of them$/],
  ],
  [
    "certificate files that are not there",
    {
      ...devnet,
      REDIS_URL: "rediss://a",
      REDIS_CA_FILE: "/nowhere/ca",
      REDIS_CERT_FILE: "/nowhere/cert",
      REDIS_KEY_FILE: fixture("."),
    },
    [
      /^REDIS_CA_FILE: expected a readable file, got ENOENT for \/nowhere\/ca$/,
      /^REDIS_CERT_FILE: expected a readable file, got ENOENT for \/nowhere\/cert$/,
      /^REDIS_KEY_FILE: expected a readable file, got EISDIR for /,
    ],
  ],
  [
    "files with something else in them",
    {
      ...devnet,
      REDIS_URL: "rediss://a",
      REDIS_CA_FILE: keyFile,
      REDIS_CERT_FILE: keyFile,
      REDIS_KEY_FILE: certFile,
    },
    [
      /^REDIS_CA_FILE: expected a certificate in PEM, got something else in /,
      /^REDIS_CERT_FILE: expected a certificate in PEM, got something else in /,
      /^REDIS_KEY_FILE: expected a private key in PEM without a passphrase, got something else in /,
    ],
  ],
  [
    "the key of another certificate",
    { ...devnet, REDIS_URL: "rediss://a", REDIS_CERT_FILE: caFile, REDIS_KEY_FILE: keyFile },
    [/^REDIS_KEY_FILE: expected the key of the certificate in REDIS_CERT_FILE, got another$/],
  ],
  [
    "a certificate without its key",
    { ...devnet, REDIS_URL: "rediss://a", REDIS_CERT_FILE: certFile },
    [/^REDIS_CERT_FILE: expected REDIS_KEY_FILE beside it$/],
  ],
  [
    "a key without its certificate",
    { ...devnet, REDIS_URL: "rediss://a", REDIS_KEY_FILE: keyFile },
    [/^REDIS_KEY_FILE: expected REDIS_CERT_FILE beside it$/],
  ],
  [
    "certificates without TLS",
    { ...devnet, REDIS_HOST: "a", REDIS_CA_FILE: caFile, REDIS_CERT_FILE: certFile, REDIS_KEY_FILE: keyFile },
    [
      /^REDIS_CA_FILE: expected a REDIS_URL that starts with rediss:/,
      /^REDIS_CERT_FILE: expected a REDIS_URL that starts with rediss:/,
      /^REDIS_KEY_FILE: expected a REDIS_URL that starts with rediss:/,
    ],
  ],
  [
    "a password of sentinels without sentinels",
    { ...devnet, REDIS_URL: "redis://a", REDIS_SENTINEL_PASSWORD: "pw" },
    [/^REDIS_SENTINEL_PASSWORD: expected REDIS_SENTINEL_MASTER beside it$/],
  ],
  [
    "a user of sentinels without a password",
    { ...devnet, REDIS_URL: "redis://a", REDIS_SENTINEL_MASTER: "m", REDIS_SENTINEL_USERNAME: "u" },
    [/^REDIS_SENTINEL_USERNAME: expected REDIS_SENTINEL_PASSWORD beside it$/],
  ],
  [
    "what is for Redis, without Redis",
    { ...devnet, REDIS_CA_FILE: caFile, REDIS_SENTINEL_PASSWORD: "pw" },
    [
      /^REDIS_SENTINEL_PASSWORD: expected REDIS_URL or REDIS_HOST beside it$/,
      /^REDIS_CA_FILE: expected REDIS_URL or REDIS_HOST beside it$/,
    ],
  ],
  [
    "a port in words",
    { ...devnet, REDIS_HOST: "a", REDIS_PORT: "http://a" },
    [/^REDIS_PORT: expected a port/],
  ],
  ["a Redis database", { ...devnet, REDIS_URL: "redis://a/x" }, [/^REDIS_URL: expected a database number/]],
  [
    "a password without Redis",
    { ...devnet, REDIS_PASSWORD: "pw" },
    [/^REDIS_PASSWORD: expected REDIS_URL or REDIS_HOST beside it$/],
  ],
  [
    "sentinels and a cluster",
    { ...devnet, REDIS_URL: "redis://a", REDIS_CLUSTER: "true", REDIS_SENTINEL_MASTER: "m" },
    [/^REDIS_CLUSTER: set either/],
  ],
  [
    "a secret's file that is not there",
    { ...devnet, METRICS_TOKEN_FILE: "/nowhere/token" },
    [/^METRICS_TOKEN_FILE: expected a readable file, got ENOENT for \/nowhere\/token$/],
  ],
  [
    "a secret twice",
    { ...devnet, METRICS_TOKEN: "a", METRICS_TOKEN_FILE: "/b" },
    [/^METRICS_TOKEN: set either METRICS_TOKEN or METRICS_TOKEN_FILE, not both$/],
  ],
]

describe("the configuration", () => {
  for (const [title, variables, pick, value] of good) {
    it.effect(`decodes ${title}`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(pick(yield* fromVariables({ ...devnet, ...variables })), value)
      }),
    )
  }

  it.effect("ignores unknown values of telemetry variables, and warns which value it uses instead", () =>
    Effect.gen(function* () {
      for (const [variables, warning, pick, value] of ignored) {
        const settings = yield* fromVariables({ ...devnet, ...collector, ...variables })
        const what = JSON.stringify(variables)
        assert.deepStrictEqual(pick(settings), value, what)
        assert.strictEqual(settings.warnings.length, 1, what)
        assert.match(settings.warnings[0]!, warning)
        assert.notInclude(settings.warnings[0]!, "secret")
      }
    }),
  )

  it.effect("follows the four default chains on public endpoints into SQLite when nothing is set", () =>
    Effect.gen(function* () {
      const settings = yield* fromVariables({})
      assert.deepStrictEqual(
        settings.chains.map(({ name, id, endpoints }) => [name, id, endpoints.map(({ name }) => name)]),
        [
          ["ethereum", 1, ["publicnode.com", "drpc.org"]],
          ["arbitrum", 42161, ["publicnode.com", "drpc.org"]],
          ["optimism", 10, ["publicnode.com", "drpc.org"]],
          ["base", 8453, ["publicnode.com", "drpc.org"]],
        ],
      )
      assert.isTrue(settings.chains.every(({ endpoints }) => endpoints.every(({ keyless }) => keyless)))
      assert.deepStrictEqual(settings.warnings, [])
    }),
  )

  it.effect("accepts a chain by its id", () =>
    Effect.gen(function* () {
      const { chains } = yield* fromVariables({
        CHAINS: "8453,31337",
        CHAIN_31337_WS_URL: "ws://127.0.0.1:8545",
      })
      assert.deepStrictEqual(
        chains.map(({ name, id }) => [name, id]),
        [
          ["base", 8453],
          ["chain-31337", 31337],
        ],
      )
    }),
  )

  it.effect("reads a dash in a chain's name as an underscore in its variables", () =>
    Effect.gen(function* () {
      const { chains } = yield* fromVariables({
        CHAINS: "my-net",
        MY_NET_CHAIN_ID: "7",
        MY_NET_WS_URL: "ws://a",
      })
      assert.deepStrictEqual(
        chains.map(({ name, id }) => [name, id]),
        [["my-net", 7]],
      )
    }),
  )

  it.effect("reads a secret from the file of its _FILE variable", () =>
    Effect.gen(function* () {
      const directory = mkdtempSync(join(tmpdir(), "event-ingestor-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true })))
      writeFileSync(join(directory, "url"), "ws://127.0.0.1:8545/secretkey1\n")
      writeFileSync(join(directory, "empty"), "\n")
      const base = { CHAINS: "devnet", DEVNET_CHAIN_ID: "1337" }
      const { chains } = yield* fromVariables({ ...base, DEVNET_WS_URL_FILE: join(directory, "url") })
      assert.strictEqual(Redacted.value(chains[0]!.endpoints[0]!.url), "ws://127.0.0.1:8545/secretkey1")
      const error = yield* Effect.flip(
        fromVariables({ ...base, DEVNET_WS_URL_FILE: join(directory, "empty") }),
      )
      assert.match(error.problems[0]!, /^DEVNET_WS_URL_FILE: expected a file with .* got an empty one$/)
      writeFileSync(join(directory, "large"), "x".repeat(100_000))
      const tooLarge = yield* Effect.flip(
        fromVariables({ ...base, DEVNET_WS_URL_FILE: join(directory, "large") }),
      )
      assert.match(tooLarge.problems[0]!, /^DEVNET_WS_URL_FILE: expected a file of at most 65536 bytes/)
    }),
  )

  for (const [title, variables, problems] of bad) {
    it.effect(`reports ${title} [G-175]`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(fromVariables(variables))
        for (const problem of problems)
          assert.isDefined(
            error.problems.find((line) => problem.test(line)),
            String(problem),
          )
        assert.strictEqual(error.problems.length, problems.length, error.message)
        assert.notMatch(error.message, /secret|pw/)
      }),
    )
  }

  it.effect("reports all problems together, each once", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        fromVariables({
          CHAINS: "ethereum,base,foo",
          HTTP_PORT: "x",
          TOPICS: "0x1",
          LOG_LEVEL: "loud",
          REDIS_URL: "x",
        }),
      )
      const names = error.problems.map((line) => line.split(":")[0])
      assert.sameMembers(names, [
        "HTTP_PORT",
        "TOPICS",
        "LOG_LEVEL",
        "REDIS_URL",
        "FOO_CHAIN_ID",
        "FOO_WS_URL",
      ])
      assert.match(error.message, /^the configuration has 6 problems:\n {2}TOPICS/)
    }),
  )

  it.effect("warns about names that are probably misspelt variables", () =>
    Effect.gen(function* () {
      const { warnings } = yield* fromVariables({
        ...devnet,
        DEVNT_WS_URL: "ws://x",
        DEVNET_WS_ULR: "ws://x",
        BASE_WS_URL: "ws://x",
        DEVNET_ADDRESSES_FILE: "/x",
        MOONBEAM_RPC_URL: "x",
        HTTP_PROT: "1",
        PATH: "/bin",
        HOME: "/root",
        DEVNET_UNRELATED_THING: "x",
        npm_config_ws_url: "x",
      })
      assert.deepStrictEqual(warnings, [
        "BASE_WS_URL is not used: base is not in CHAINS",
        "DEVNET_ADDRESSES_FILE is not used: only a secret or a URL can be in a file",
        "DEVNET_WS_ULR is not used; did you mean DEVNET_WS_URL?",
        "DEVNT_WS_URL is not used; did you mean DEVNET_WS_URL?",
        "HTTP_PROT is not used; did you mean HTTP_PORT?",
        "MOONBEAM_RPC_URL is not used: no such chain in CHAINS",
      ])
    }),
  )

  it("prefers process variables to those of .env, unless they are empty", () => {
    const directory = mkdtempSync(join(tmpdir(), "event-ingestor-"))
    writeFileSync(join(directory, ".env"), 'A=file\nB="two words" # comment\nC=file\nD=file\n')
    assert.deepStrictEqual(withDotEnv({ A: "process", C: "", E: "process" }, directory), {
      A: "process",
      B: "two words",
      C: "file",
      D: "file",
      E: "process",
    })
    rmSync(join(directory, ".env"))
    mkdirSync(join(directory, ".env"))
    assert.throws(() => withDotEnv({ A: "x" }, directory), /EISDIR/)
    rmSync(directory, { recursive: true })
    assert.deepStrictEqual(withDotEnv({ A: "x" }, directory), { A: "x" })
  })

  it("keeps every variable of a .env that begins with a byte order mark or is UTF-16, and refuses other bytes [G-172]", () => {
    const directory = mkdtempSync(join(tmpdir(), "event-ingestor-"))
    const file = join(directory, ".env")
    const utf16 = Buffer.from("\uFEFFA=é\r\nB=2\r\n", "utf16le")
    for (const bytes of [Buffer.from("\uFEFFA=é\nB=2\n"), utf16, Buffer.from(utf16).swap16()]) {
      writeFileSync(file, bytes)
      assert.deepStrictEqual(withDotEnv({}, directory), { A: "é", B: "2" })
    }
    for (const bytes of [
      utf16.subarray(2),
      Buffer.from(utf16.subarray(2)).swap16(),
      Buffer.from("A=é\n", "latin1"),
    ]) {
      writeFileSync(file, bytes)
      assert.throws(() => withDotEnv({}, directory), `save ${file} as UTF-8`)
    }
    rmSync(directory, { recursive: true })
  })

  it.effect("reads a secret from a file that is UTF-16, and names one that cannot be read", () =>
    Effect.gen(function* () {
      const directory = mkdtempSync(join(tmpdir(), "event-ingestor-"))
      const file = join(directory, "token")
      writeFileSync(file, Buffer.from("\uFEFFt0ken\r\n", "utf16le"))
      const { http } = yield* fromVariables({ ...devnet, METRICS_TOKEN_FILE: file })
      assert.strictEqual(Redacted.value(http.token!), "t0ken")
      writeFileSync(file, Buffer.from("t0ken\r\n", "utf16le"))
      const { problems } = yield* Effect.flip(fromVariables({ ...devnet, METRICS_TOKEN_FILE: file }))
      assert.include(problems[0]!, `METRICS_TOKEN_FILE: expected a readable file`)
      assert.include(problems[0]!, `save ${file} as UTF-8`)
      rmSync(directory, { recursive: true })
    }),
  )

  it("removes the quotes that docker's --env-file keeps, and no others [G-173]", () => {
    const place = join(tmpdir(), "no such directory")
    const kept = { A: '"ws://x"', B: "'two words' ", C: '"', D: `"a' `, E: 'a "b"' }
    assert.deepStrictEqual(withDotEnv({ ...kept, F: '""' }, place), {
      ...kept,
      A: "ws://x",
      B: "two words",
    })
  })

  it.effect("removes every configured secret from a text", () =>
    Effect.gen(function* () {
      const { redact } = yield* fromVariables({
        CHAINS: "devnet",
        DEVNET_CHAIN_ID: "31337",
        DEVNET_WS_URL: "wss://user:hunter2@mainnet.example.com/v2/AbCdEfGh1234?apikey=QUERYKEY99",
        DEVNET_RPC_URL: "https://rpc.example.com/HTTPKEY12345",
        REDIS_URL: "redis://:r%40dispw@cache/0",
        METRICS_TOKEN: "tok3n",
      })
      const said = redact(
        "wss://user:hunter2@mainnet.example.com/v2/AbCdEfGh1234?apikey=QUERYKEY99 AbCdEfGh1234 QUERYKEY99 hunter2 HTTPKEY12345 r@dispw tok3n",
      )
      assert.notMatch(said, /hunter2|AbCdEfGh1234|QUERYKEY99|HTTPKEY12345|r@dispw|tok3n/)
      assert.strictEqual(redact("ENOTFOUND mainnet.example.com, example.com"), "ENOTFOUND ***, example.com")
      assert.strictEqual(redact("line\n\u001b[31mred\u0007\u2028end"), "line [31mred end")
      assert.strictEqual(redact("x".repeat(500)), `${"x".repeat(200)}…`)
      assert.strictEqual(redact("mainnet says v2"), "mainnet says v2")
    }),
  )
})
