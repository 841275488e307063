/**
 * The configuration: typed, from the environment, with every mistake reported at once.
 *
 * One place: a variable that is not read here does not exist. Secrets are `Redacted` and known to `redact`, which every
 * text from outside passes before it is logged or shown.
 */
import { Context, Duration, Effect, Layer, Redacted, Schema } from "effect"
import { constants } from "node:buffer"
import type { LogLevel } from "effect"
import {
  defaultChains,
  defaultFinalityDepth,
  defaultPollInterval,
  knownChains,
  variablePrefix,
} from "./Chains.ts"
import type { ChainId, Filter, Hex } from "../Domain.ts"
import * as Env from "./Environment.ts"
import { makeRedactor } from "../Redactor.ts"
import type { Redactor } from "../Redactor.ts"
import { unknownChain, unknownVariables } from "./UnknownVariables.ts"
import type { Retention } from "../store/Retention.ts"
import { readRetention, readStore } from "./StoreConfig.ts"
import type { RedisConfig, SqliteConfig } from "./StoreConfig.ts"
import { readTelemetry } from "./TelemetryConfig.ts"
import type { TelemetrySettings } from "./TelemetryConfig.ts"

/** A provider of one chain. `name` is what may be shown; the URL often carries a key and never is. */
export interface EndpointConfig {
  readonly name: string
  readonly url: Redacted.Redacted<string>
  /** A public endpoint nobody configured: it has no key and gets fewer requests. */
  readonly keyless: boolean
}

export interface ChainConfig {
  readonly name: string
  readonly id: ChainId
  /** Endpoints that heads come from, in order of preference: WebSocket ones, or HTTP ones that are polled. */
  readonly endpoints: ReadonlyArray<EndpointConfig>
  /** HTTP endpoints for ranges. */
  readonly rpc: ReadonlyArray<EndpointConfig>
  readonly filter: Filter
  readonly startBlock: "latest" | number
  readonly confirmations: "finalized" | number
  /** Whether a header's `logsBloom` may prove that a block has no matching log. */
  readonly logsBloom: "trust" | "ignore"
  /** Whether the `finalized` tag is asked for; `depth` is for nodes whose tag means nothing. */
  readonly finality: "tag" | "depth"
  readonly finalityDepth: number
  /** Whether sockets are asked for heads by a subscription, or by polling. */
  readonly heads: "subscribe" | "poll"
  /** How often heads are polled where they are. */
  readonly pollInterval: Duration.Duration
}

export type { RedisConfig, SqliteConfig } from "./StoreConfig.ts"

export interface Settings {
  readonly chains: ReadonlyArray<ChainConfig>
  readonly store: RedisConfig | SqliteConfig
  readonly streamPrefix: string
  /** How much of each stream is kept. */
  readonly retention: Retention
  /** The least silence that is suspicious, whatever the block time. */
  readonly stallTimeout: Duration.Duration
  readonly requestTimeout: Duration.Duration
  readonly shutdownTimeout: Duration.Duration
  readonly wsMaxPayload: number
  /** Requests a second and endpoint; `undefined`: 10 for endpoints without a key, no limit for the others. */
  readonly rpcRate: number | undefined
  /** Whether blocks are fetched again and compared when they become final. */
  readonly audit: boolean
  readonly http: {
    readonly host: string
    readonly port: number
    readonly token: Redacted.Redacted<string> | undefined
  }
  /** Where telemetry goes; `undefined`: nowhere. */
  readonly telemetry: TelemetrySettings | undefined
  readonly log: { readonly level: LogLevel.LogLevel; readonly format: "json" | "pretty" | "logfmt" }
  /** Worth saying at the start, but no reason not to start. */
  readonly warnings: ReadonlyArray<string>
  /** Takes every known secret out of a text. */
  readonly redact: Redactor
}

/** All that is wrong with the configuration, one line a problem, each starting with its variable. */
export class ConfigProblems extends Schema.TaggedError<ConfigProblems>()("ConfigProblems", {
  problems: Schema.Array(Schema.String),
}) {
  override get message() {
    const n = this.problems.length
    return `the configuration has ${n} problem${n === 1 ? "" : "s"}:\n${this.problems.map((line) => `  ${line}`).join("\n")}`
  }
}

/** The variables of this process, and of `.env` in the working directory. */
export const processVariables = Effect.try({
  try: () => Env.withDotEnv(process.env, process.cwd()),
  catch: (error) =>
    new ConfigProblems({
      problems: [`.env: expected a readable file, got ${Env.fileProblem(error)}`],
    }),
})

export class AppConfig extends Context.Service<AppConfig, Settings>()("event-ingestor/Config") {
  /** The configuration of this process: its variables and `.env` in the working directory. */
  static readonly layer = Layer.effect(
    this,
    Effect.flatMap(processVariables, (variables) => fromVariables(variables)),
  )
}

const hexOf = (bytes: number, what: string): Env.Codec<Hex> =>
  Env.kind(`${what} (0x and ${bytes * 2} hex digits)`, (text) =>
    text.length === 2 + bytes * 2 && /^0x[0-9a-fA-F]+$/.test(text) ? (text.toLowerCase() as Hex) : undefined,
  )

const address = hexOf(20, "a contract address")
const topic = hexOf(32, "a topic")

/** `a,b` lists what topic0 may be; as soon as there is a `|` or an empty place, commas separate positions: `a|b,,c`. */
const topics: Env.Codec<Filter["topics"]> = Env.kind(
  "topics: `topic0,topic0` or by position `topic0|topic0,,topic2`",
  (text) => {
    const parts = text.split(",").map((part) => part.trim())
    const byPosition = text.includes("|") || parts.includes("")
    const positions = byPosition ? parts.map((part) => part.split("|")) : [parts]
    const parsed = positions.map((alternatives) =>
      alternatives.length === 1 && alternatives[0] === ""
        ? null
        : alternatives.flatMap((alternative) => topic.parse(alternative.trim()) ?? []),
    )
    const complete = parsed.every((found, i) => found === null || found.length === positions[i]!.length)
    if (!complete || parsed.length > 4) return undefined
    // Whether an empty place at the end asks for a topic to be there is understood in both ways: geth's and reth's.
    return parsed.slice(0, parsed.findLastIndex((found) => found !== null) + 1)
  },
)

const orWord = <const Word extends string>(word: Word, kind: Env.Codec<number>): Env.Codec<Word | number> =>
  Env.kind(`\`${word}\` or ${kind.expected}`, (text) =>
    text.toLowerCase() === word ? word : kind.parse(text),
  )

const defaultPorts: Readonly<Record<string, string>> = {
  "ws:": "80",
  "wss:": "443",
  "http:": "80",
  "https:": "443",
}

/** The last two labels of the host, or host:port for an address: what an endpoint may be called in public. */
const publicName = (url: URL): string => {
  const labels = url.hostname.split(".")
  const isAddress = url.hostname.startsWith("[") || /^[\d.]+$/.test(url.hostname) || labels.length === 1
  return isAddress ? `${url.hostname}:${url.port || defaultPorts[url.protocol]}` : labels.slice(-2).join(".")
}

/** `seen` counts the names of all endpoints of a chain, so that none is given twice. */
const named = (
  urls: ReadonlyArray<URL>,
  keyless: boolean,
  seen: Map<string, number>,
): ReadonlyArray<EndpointConfig> =>
  urls.map((url) => {
    const name = publicName(url)
    const times = (seen.get(name) ?? 0) + 1
    seen.set(name, times)
    return { name: times === 1 ? name : `${name}-${times}`, url: Redacted.make(url.href), keyless }
  })

const chainName = Env.kind("a chain's name or id", (text) =>
  /^[a-z0-9]+(-[a-z0-9]+)*$/.test(text.toLowerCase()) ? text.toLowerCase() : undefined,
)

const readChain = Effect.fnUntraced(function* (reader: Env.Reader, given: string) {
  const id = /^\d+$/.test(given) ? Number(given) : undefined
  const knownChain = knownChains.find((chain) => (id === undefined ? chain.name === given : chain.id === id))
  const name = knownChain?.name ?? (id === undefined ? given : `chain-${id}`)
  const prefix = variablePrefix(name)
  const own = <A>(suffix: string, kind: Env.Codec<A>) =>
    Effect.zipWith(
      reader.read(`${prefix}_${suffix}`, kind),
      reader.read(suffix, kind),
      (mine, everywhere) => mine ?? everywhere,
    )

  const configuredId = yield* reader.read(`${prefix}_CHAIN_ID`, Env.count(1))
  const chainId = knownChain?.id ?? id ?? configuredId
  if (chainId === undefined && !reader.isSet(`${prefix}_CHAIN_ID`)) {
    reader.problem(`${prefix}_CHAIN_ID`, `expected the chain id of ${name}, ${unknownChain(name)}`)
  }
  if (chainId !== undefined && configuredId !== undefined && configuredId !== chainId) {
    reader.problem(`${prefix}_CHAIN_ID`, `expected ${chainId}, the id of ${name}, got ${configuredId}`)
  }

  const wsUrls = yield* reader.secret(
    `${prefix}_WS_URL`,
    Env.list(Env.urlOf("ws:", "wss:", "http:", "https:")),
  )
  const publicUrls = knownChain?.publicEndpoints ?? []
  if (!reader.isSet(`${prefix}_WS_URL`) && publicUrls.length === 0) {
    reader.problem(
      `${prefix}_WS_URL`,
      `expected a WebSocket or HTTP URL of ${name}, which has no public default`,
    )
  }
  const rpcUrls = yield* reader.secret(`${prefix}_RPC_URL`, Env.list(Env.urlOf("http:", "https:")))

  const names = new Map<string, number>()
  return {
    name,
    id: chainId ?? 0,
    endpoints: wsUrls
      ? named(wsUrls, false, names)
      : named(
          publicUrls.map((url) => new URL(url)),
          true,
          names,
        ),
    rpc: named(rpcUrls ?? [], false, names),
    filter: {
      addresses: [...new Set((yield* own("ADDRESSES", Env.list(address))) ?? [])].sort(),
      topics: (yield* own("TOPICS", topics)) ?? [],
    },
    startBlock: (yield* own("START_BLOCK", orWord("latest", Env.count()))) ?? "latest",
    confirmations: (yield* own("CONFIRMATIONS", orWord("finalized", Env.count()))) ?? 0,
    logsBloom: (yield* own("LOGS_BLOOM", Env.oneOf("trust", "ignore"))) ?? "trust",
    finality: (yield* own("FINALITY", Env.oneOf("tag", "depth"))) ?? "tag",
    finalityDepth:
      (yield* own("FINALITY_DEPTH", Env.count(1))) ?? knownChain?.finalityDepth ?? defaultFinalityDepth,
    heads: (yield* own("HEADS", Env.oneOf("subscribe", "poll"))) ?? "subscribe",
    pollInterval:
      (yield* own("POLL_INTERVAL", Env.duration)) ??
      Duration.millis(defaultPollInterval(knownChain?.blockTime)),
  } satisfies ChainConfig
})

const readChains = Effect.fnUntraced(function* (reader: Env.Reader) {
  const given = (yield* reader.read("CHAINS", Env.list(chainName))) ?? defaultChains.split(",")
  const chains = yield* Effect.forEach([...new Set(given)], (chain) => readChain(reader, chain))
  for (const [i, chain] of chains.entries()) {
    const other = chains.slice(0, i).find((earlier) => earlier.id === chain.id && chain.id !== 0)
    if (other) reader.problem("CHAINS", `${other.name} and ${chain.name} are both chain ${chain.id}`)
  }
  return chains
})

/** A frame becomes a string, and no string is longer. */
const longestText = constants.MAX_STRING_LENGTH

const prefix = Env.kind("letters, digits and any of : . _ -", (text) =>
  /^[\w:.-]+$/.test(text) ? text : undefined,
)

const logLevel = Env.kind("one of all, trace, debug, info, warn, error, fatal, none", (text) =>
  (["All", "Trace", "Debug", "Info", "Warn", "Error", "Fatal", "None"] as const).find(
    (level) => level.toLowerCase() === text.toLowerCase(),
  ),
)

const readHttp = Effect.fnUntraced(function* (reader: Env.Reader) {
  const token = yield* reader.secret("METRICS_TOKEN", Env.text)
  const port = yield* reader.read("HTTP_PORT", Env.listenPort)
  const alias = yield* reader.read("METRICS_PORT", Env.listenPort)
  if (port !== undefined && alias !== undefined && port !== alias) {
    reader.problem("METRICS_PORT", "is another name for HTTP_PORT and says something else")
  }
  return {
    host: (yield* reader.read("HTTP_HOST", Env.text)) ?? "127.0.0.1",
    port: port ?? alias ?? 9090,
    token: token === undefined ? undefined : Redacted.make(token),
  }
})

/**
 * Decodes a set of environment variables. Fails with every problem there is; what is merely odd (a misspelt name) is
 * in `warnings`.
 */
export const fromVariables = Effect.fnUntraced(function* (variables: Env.Variables) {
  const reader = new Env.Reader(variables)
  const chains = yield* readChains(reader)
  const store = yield* readStore(reader)
  const http = yield* readHttp(reader)
  const audit = yield* reader.read("AUDIT", Env.oneOf("on", "off"))
  const telemetry = yield* readTelemetry(reader)
  const format = yield* reader.read("LOG_FORMAT", Env.oneOf("json", "pretty", "logfmt"))
  const settings = {
    chains,
    store,
    http,
    streamPrefix: (yield* reader.read("STREAM_PREFIX", prefix)) ?? "events",
    retention: yield* readRetention(reader, store),
    stallTimeout: (yield* reader.read("STALL_TIMEOUT", Env.duration)) ?? Duration.seconds(15),
    requestTimeout: (yield* reader.read("REQUEST_TIMEOUT", Env.duration)) ?? Duration.seconds(10),
    shutdownTimeout: (yield* reader.read("SHUTDOWN_TIMEOUT", Env.duration)) ?? Duration.seconds(10),
    wsMaxPayload: (yield* reader.read("WS_MAX_PAYLOAD", Env.bytes(longestText))) ?? 32 * 1024 * 1024,
    rpcRate: yield* reader.read("RPC_RATE", Env.positive),
    audit: audit !== "off",
    telemetry,
    log: {
      level: (yield* reader.read("LOG_LEVEL", logLevel)) ?? "Info",
      format: format ?? (process.stdout.isTTY ? "pretty" : "json"),
    },
    warnings: [
      ...new Set(reader.warnings),
      ...unknownVariables(
        variables,
        reader.known,
        chains.map((chain) => variablePrefix(chain.name)),
      ),
    ],
  }
  if (reader.problems.length > 0)
    return yield* new ConfigProblems({ problems: [...new Set(reader.problems)] })

  const urls = chains.flatMap((chain) =>
    [...chain.endpoints, ...chain.rpc].filter((endpoint) => !endpoint.keyless),
  )
  const words = [
    http.token,
    ...(store._tag === "Redis" ? [store.password, store.sentinelPassword] : []),
  ].flatMap((word) => (word === undefined ? [] : [Redacted.value(word)]))
  const collectors = [telemetry?.traces, telemetry?.metrics, telemetry?.logs].filter((to) => to !== undefined)
  const headers = collectors.flatMap(({ headers }) => Object.values(Redacted.value(headers)))
  return {
    ...settings,
    redact: makeRedactor({
      urls: [...urls.map((endpoint) => Redacted.value(endpoint.url)), ...collectors.map(({ url }) => url)],
      words: [...words, ...headers],
    }),
  } satisfies Settings
})
