/**
 * The configuration: typed, from the environment, with every mistake reported at once.
 *
 * A variable that no file of this folder defines does not exist. Secrets are `Redacted` and known to `redact`, which every
 * text from outside passes before it is logged or shown.
 */
import { Context, Effect, Layer, Redacted, Schema } from "effect"
import type { LogLevel } from "effect"
import { constants } from "node:buffer"
import * as ChainVariables from "./ChainConfig.ts"
import type { ChainConfig } from "./ChainConfig.ts"
import { variablePrefix } from "./Chains.ts"
import * as Codec from "./Codec.ts"
import { unreadable, withDotEnv } from "./Environment.ts"
import type { Variables } from "./Environment.ts"
import * as FleetVariables from "./FleetConfig.ts"
import type { FleetConfig } from "./FleetConfig.ts"
import * as HttpVariables from "./HttpConfig.ts"
import type { HttpConfig } from "./HttpConfig.ts"
import { makeRedactor } from "../Redactor.ts"
import type { Redactor } from "../Redactor.ts"
import * as StoreVariables from "./StoreConfig.ts"
import type { RedisConfig, SqliteConfig } from "./StoreConfig.ts"
import * as StreamVariables from "./StreamConfig.ts"
import type { Retention } from "./StreamConfig.ts"
import { readTelemetry } from "./TelemetryConfig.ts"
import type { TelemetrySettings } from "./TelemetryConfig.ts"
import * as TelemetryVariables from "./TelemetryVariables.ts"
import { unknownVariables } from "./UnknownVariables.ts"
import { Reader, variable } from "./Variable.ts"
import type { Section, Values } from "./Variable.ts"

export type { ChainConfig, EndpointConfig } from "./ChainConfig.ts"
export type { RedisConfig, SqliteConfig } from "./StoreConfig.ts"

export interface Settings extends Values<typeof behaviour> {
  readonly chains: ReadonlyArray<ChainConfig>
  readonly store: RedisConfig | SqliteConfig
  readonly streamPrefix: string
  /** How much of each stream is kept. */
  readonly retention: Retention
  readonly http: HttpConfig
  /** `undefined`: this process follows all chains. */
  readonly fleet: FleetConfig | undefined
  /** Where telemetry goes; `undefined`: nowhere. */
  readonly telemetry: TelemetrySettings | undefined
  readonly log: { readonly level: LogLevel.LogLevel; readonly format: "json" | "pretty" | "logfmt" }
  /** Logged at the start; no reason not to start. */
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
  try: () => withDotEnv(process.env, process.cwd()),
  catch: (error) => new ConfigProblems({ problems: [`.env: ${unreadable(error)}`] }),
})

export class AppConfig extends Context.Service<AppConfig, Settings>()("event-ingestor/Config") {
  /** The configuration of this process: its variables and `.env` in the working directory. */
  static readonly layer = Layer.effect(
    this,
    Effect.flatMap(processVariables, (variables) => fromVariables(variables)),
  )
}

/** A frame becomes a string, and no string is longer. */
const longestText = constants.MAX_STRING_LENGTH

const logLevel = Codec.kind("one of all, trace, debug, info, warn, error, fatal, none", (text) =>
  (["All", "Trace", "Debug", "Info", "Warn", "Error", "Fatal", "None"] as const).find(
    (level) => level.toLowerCase() === text.toLowerCase(),
  ),
)

/** Settings that are the value of one variable each. */
const behaviour = {
  stallTimeout: variable("STALL_TIMEOUT", Codec.duration, {
    default: "15s",
    meaning:
      "the shortest silence of an endpoint that counts as a stall (else three block times, a minute at most); where blocks come regularly, three block times and a second, 5 s at least",
  }),
  requestTimeout: variable("REQUEST_TIMEOUT", Codec.duration, {
    default: "10s",
    meaning: "timeout of one request to an endpoint",
  }),
  /** Requests a second and endpoint; `undefined`: 10 for endpoints without a key, no limit for the others. */
  rpcRate: variable("RPC_RATE", Codec.positive, {
    shownDefault: "`10` for endpoints without a key, else no limit",
    example: "25",
    meaning: 'calls per second to one endpoint at most; "too many requests" halves it, a quiet minute adds 1',
  }),
  audit: variable("AUDIT", Codec.either("on", "off"), {
    default: "on",
    meaning: "re-fetch finalized blocks, from a second endpoint where there is one, and compare",
  }),
  configVersion: variable("CONFIG_VERSION", Codec.count(1), {
    example: "1",
    meaning:
      "a number that you raise with each change of a filter. Without it, a filter that was replaced does not come back by itself: a process that still has it takes nothing over",
  }),
  shutdownTimeout: variable("SHUTDOWN_TIMEOUT", Codec.duration, {
    default: "10s",
    meaning: "timeout of a clean stop",
  }),
  /** Bytes. */
  wsMaxPayload: variable("WS_MAX_PAYLOAD", Codec.bytes(longestText), {
    default: "32MiB",
    meaning: "the largest frame that is accepted",
  }),
}

const log = {
  level: variable("LOG_LEVEL", logLevel, {
    default: "info",
    meaning: "`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `none`",
  }),
  format: variable("LOG_FORMAT", Codec.oneOf("json", "pretty", "logfmt"), {
    shownDefault: "`pretty` on a terminal, else `json`",
    example: "json",
    meaning: "`json`, `pretty` or `logfmt`",
  }),
}

/** Every variable there is, in the order of the README and `.env.example`. */
export const sections: ReadonlyArray<Section> = [
  ...ChainVariables.sections,
  StoreVariables.section,
  StreamVariables.section,
  FleetVariables.section,
  { title: "Behaviour", variables: Object.values(behaviour) },
  HttpVariables.section,
  { title: "Log", variables: Object.values(log) },
  TelemetryVariables.section,
]

/** Takes the secrets of a configuration out of texts. */
const redactorOf = ({
  chains,
  http,
  store,
  telemetry,
}: Pick<Settings, "chains" | "http" | "store" | "telemetry">) => {
  const urls = chains
    .flatMap(({ endpoints, rpc }) => [...endpoints, ...rpc])
    .filter(({ keyless }) => !keyless)
    .map(({ url }) => Redacted.value(url))
  const passwords = store._tag === "Redis" ? [store.password, store.sentinelPassword] : []
  const words = [http.token, ...passwords].filter((word) => word !== undefined).map(Redacted.value)
  const collectors = [telemetry?.traces, telemetry?.metrics, telemetry?.logs].filter((to) => to !== undefined)
  const headers = collectors.flatMap(({ headers }) => Object.values(Redacted.value(headers)))
  return makeRedactor({
    urls: [...urls, ...collectors.map(({ url }) => url)],
    words: [...words, ...headers],
  })
}

/**
 * Decodes a set of environment variables. Fails with every problem there is; what is set and not used (a misspelt name) is
 * in `warnings`.
 */
export const fromVariables = Effect.fnUntraced(function* (variables: Variables) {
  const reader = new Reader(variables)
  const chains = yield* ChainVariables.readChains(reader)
  const store = yield* StoreVariables.readStore(reader)
  const http = yield* HttpVariables.readHttp(reader)
  const telemetry = yield* readTelemetry(reader)
  const streams = yield* StreamVariables.readStreams(reader, store)
  const fleet = yield* FleetVariables.readFleet(reader, store)
  const values = yield* reader.all(behaviour)
  const { level, format } = yield* reader.all(log)
  const settings = {
    chains,
    store,
    http,
    fleet,
    ...streams,
    ...values,
    telemetry,
    log: { level, format: format ?? (process.stdout.isTTY ? "pretty" : "json") },
    redact: redactorOf({ chains, http, store, telemetry }),
  }
  const prefixes = chains.map((chain) => variablePrefix(chain.name))
  const unknown = unknownVariables(variables, reader.known, prefixes, ChainVariables.chainVariables)
  const warnings = [...new Set(reader.warnings), ...unknown]
  if (reader.problems.length > 0)
    return yield* new ConfigProblems({ problems: [...new Set(reader.problems)] })
  return { ...settings, warnings } satisfies Settings
})
