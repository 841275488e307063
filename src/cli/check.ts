/** `check`: tests the configuration, the endpoints and the store. Prints one line per finding, with a fix. */
import { Array as Arr, Clock, Duration, Effect, Fiber, Layer } from "effect"
import { Command } from "effect/cli"
import { textOf } from "../abi/EventAbi.ts"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig, Settings } from "../config/AppConfig.ts"
import { JournalStore } from "../store/JournalStore.ts"
import { oneEndpoint } from "./dialect.ts"
import { fleetFindings } from "./fleet.ts"
import { about, failure, ok, renderText, warning } from "./Finding.ts"
import type { Finding } from "./Finding.ts"
import { jsonFlag, withExamples } from "./Flags.ts"
import { commandOnly, endpointsOnly } from "./Layers.ts"
import { writeRecords } from "./Output.ts"
import { probe } from "./probe.ts"
import { exitCode } from "./Process.ts"
import { sizes } from "./sizes.ts"
import type { Stream } from "./sizes.ts"
import { evictsStreams, StoreAdmin } from "../store/StoreAdmin.ts"
import type { Refused } from "../store/StoreAdmin.ts"
import * as StoreLayer from "../store/StoreLayer.ts"
import type { StoreError } from "../store/StoreError.ts"

const filterOf = ({ filter, events }: ChainConfig): string => {
  const topics = filter.topics.flatMap((alternatives) => alternatives ?? []).length
  if (filter.addresses.length === 0 && topics === 0) return "all logs"
  const addresses = `${filter.addresses.length || "all"} addresses`
  return events === undefined
    ? `${addresses}, ${topics || "all"} topics`
    : `${addresses}, events ${events.events.map(textOf).join("; ")}`
}

/** The configuration, without secrets. */
const configuration = (settings: Settings): ReadonlyArray<Finding> => {
  const { chains, http, log, requestTimeout, shutdownTimeout, stallTimeout, warnings } = settings
  const seconds = (duration: Duration.Duration) => `${Duration.toSeconds(duration)} s`
  return [
    ...chains.map((chain) => {
      const http = chain.rpc.length === 0 ? "" : `, HTTP ${chain.rpc.map(({ name }) => name).join(", ")}`
      const endpoints = chain.endpoints
        .map(({ name, keyless }) => (keyless ? `${name} (public)` : name))
        .join(", ")
      const from = `from block ${chain.startBlock}, ${chain.confirmations} confirmations`
      const detail = `chain ${chain.id}, ${endpoints}${http}, ${filterOf(chain)}, ${from}`
      return about(`config ${chain.name}`, ok(detail))
    }),
    ...chains
      .filter(({ endpoints, rpc }) => endpoints.length + rpc.length === 1)
      .map(({ name }) =>
        about(`config ${name}`, warning(oneEndpoint, "add an endpoint of another provider")),
      ),
    about(
      "config",
      ok(
        `timeouts: request ${seconds(requestTimeout)}, stall ${seconds(stallTimeout)}, shutdown ${seconds(shutdownTimeout)}`,
      ),
    ),
    about(
      "config http",
      ok(
        `${http.host}:${http.port}, ${http.token === undefined ? "no token" : "with a token"}, log ${log.level.toLowerCase()} ${log.format}`,
      ),
    ),
    ...warnings.map((text) => about("config", warning(text))),
  ]
}

/** The fix for a command that the ACL of Redis denies. */
const grant = ({ name, detail }: Refused, keys: string): string | undefined => {
  if (!/NOPERM|ACL failure|user executing the script can't/.test(detail)) return undefined
  if (/\bkeys?\b/.test(detail)) return `give its user the keys ${keys}`
  return `give its user +${name.split(" ")[0]!.toLowerCase()}`
}

/** One finding per denied command: most chains have the same. */
const refusals = Effect.fnUntraced(function* ({ chains, streamPrefix }: Settings) {
  const store = yield* StoreAdmin
  const refused = (yield* Effect.forEach(chains, ({ id }) => store.refused(id))).flat()
  return Arr.dedupeWith(refused, (one, other) => one.name === other.name).map((one) => {
    const { name, detail, lost } = one
    const fix = grant(one, `~${streamPrefix}:* ~{${streamPrefix}:*`)
    const trait =
      lost === undefined
        ? failure(
            `${name} is refused, and nothing can be written without it: ${detail}`,
            fix ?? `use a server that has ${name}`,
          )
        : warning(`no ${name}: ${lost}`, fix)
    return about("store access", trait)
  })
})

interface Checked {
  readonly findings: ReadonlyArray<Finding>
  /** The ids of chains that have a journal: they resume from it and ignore START_BLOCK. */
  readonly withJournal: ReadonlySet<number>
}

/** Checks version, persistence and eviction policy, then reading and writing. */
const store = Effect.fnUntraced(function* (
  settings: Settings,
): Effect.fn.Return<Checked, StoreError, JournalStore | StoreAdmin> {
  const store = yield* JournalStore
  const admin = yield* StoreAdmin
  const info = yield* admin.info
  const now = (yield* Clock.currentTimeMillis) / 1000
  const findings = [about("store", ok(`${info.version} at ${admin.description}`))]
  const { evictionPolicy, persistence } = info
  if (persistence !== undefined) {
    const fix = "set appendonly yes: entries lost in a crash are pushed again, and readers see them twice"
    const isDurable = !persistence.startsWith("snapshots")
    findings.push(about("store persistence", isDurable ? ok(persistence) : warning(persistence, fix)))
  }
  if (evictionPolicy !== undefined) {
    const detail = `maxmemory-policy is ${evictionPolicy}`
    const fix = "set maxmemory-policy noeviction: this policy may evict streams"
    findings.push(about("store eviction", evictsStreams(evictionPolicy) ? warning(detail, fix) : ok(detail)))
  }
  const refused = yield* refusals(settings)
  findings.push(...refused)
  const withJournal = new Set<number>()
  if (refused.some(({ level }) => level === "failure"))
    return { findings: [...findings, ...sizes(info, settings, [], now)], withJournal }
  const streams: Array<Stream> = []
  for (const { name, id } of settings.chains) {
    yield* store.ping(id)
    if ((yield* store.load(id)) !== undefined) withJournal.add(id)
    streams.push({ chain: name, ...(yield* admin.stats(id, false)) })
  }
  findings.push(...sizes(info, settings, streams, now))
  findings.push(about("store access", ok("reading and writing are allowed")))
  findings.push(...(yield* fleetFindings(settings)))
  return { findings, withJournal }
})

/** Checks that each signal's target accepts an export. A failure is only a warning: nothing else depends on telemetry. */
const telemetry = Effect.fnUntraced(function* ({ redact, telemetry }: Settings) {
  if (telemetry === undefined) return []
  const { listen, probe } = yield* Effect.promise(() => import("../observability/Otlp.ts"))
  const warnings: Array<string> = []
  listen((text) => void warnings.push(text))
  const probed = yield* probe(telemetry)
  const fix = "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS: rejected telemetry is lost"
  return [
    ...warnings.map((text) => about("telemetry", warning(redact(text)))),
    ...probed.map(({ signal, reason }) =>
      about(
        `telemetry ${signal}`,
        reason === undefined ? ok("accepts an empty request") : warning(redact(reason), fix),
      ),
    ),
  ]
})

const howToFixStore = (settings: Settings): string => {
  if (settings.store._tag === "Sqlite") return "check DATABASE_PATH and the permissions of its directory"
  const prefix = settings.streamPrefix
  return `check REDIS_URL and the server; its user needs ~${prefix}:* ~{${prefix}:* +@all -@dangerous -@admin +info`
}

export const check = Command.make(
  "check",
  { json: jsonFlag("One JSON object per line and finding") },
  Effect.fnUntraced(
    function* ({ json }) {
      const settings = yield* AppConfig
      const print = (findings: ReadonlyArray<Finding>) => writeRecords(findings, json, renderText)
      yield* print(configuration(settings))
      const sent = yield* Effect.forkChild(telemetry(settings))
      // Opened here, so that a store that cannot be opened is a finding like others.
      const storeChecked = yield* store(settings).pipe(
        Effect.provide(StoreLayer.layer),
        Effect.catchTag("StoreError", ({ message }) =>
          Effect.succeed<Checked>({
            findings: [about("store", failure(message, howToFixStore(settings)))],
            withJournal: new Set(),
          }),
        ),
        Effect.forkChild,
      )
      const hasJournal = ({ id }: ChainConfig) =>
        Effect.map(Fiber.join(storeChecked), ({ withJournal }) => withJournal.has(id))
      const endpoints = yield* Effect.forEach(
        settings.chains.flatMap((chain) =>
          [...chain.endpoints, ...chain.rpc].map((endpoint) =>
            probe(chain, endpoint, settings, hasJournal(chain)),
          ),
        ),
        Effect.tap(print),
        // All at once, as in the service: each may wait for a head.
        { concurrency: "unbounded" },
      )
      const { findings: stored } = yield* Fiber.join(storeChecked)
      yield* print(stored)
      yield* print(yield* Fiber.join(sent))
      const failed = [...endpoints.flat(), ...stored].some(({ level }) => level === "failure")
      if (failed) process.exitCode = exitCode.unreachable
    },
    Effect.provide(Layer.merge(commandOnly, endpointsOnly)),
  ),
).pipe(
  Command.withDescription("Check the configuration, the endpoints, the store and the telemetry targets"),
  withExamples({
    "event-ingestor check": "One line per finding, with a fix",
    "event-ingestor check --json | jq 'select(.level != \"ok\")'": "Only warnings and failures",
  }),
)
