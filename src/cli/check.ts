/** `check`: tests the configuration, the endpoints and the store. Prints one line per finding, with a fix. */
import { Duration, Effect, Fiber, Layer, References } from "effect"
import { Command } from "effect/cli"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig, Settings } from "../config/AppConfig.ts"
import { Transport } from "../endpoint/Socket.ts"
import { exitCode } from "./Process.ts"
import { JournalStore } from "../store/JournalStore.ts"
import { evictsStreams, StoreAdmin } from "../store/StoreAdmin.ts"
import type { Refused } from "../store/StoreAdmin.ts"
import type { StoreError } from "../store/StoreError.ts"
import { jsonFlag } from "./chains.ts"
import { oneEndpoint } from "./dialect.ts"
import type { Finding } from "./dialect.ts"
import { style, writeLines } from "./Output.ts"
import { probe } from "./probe.ts"
import { sizes } from "./sizes.ts"
import type { Stream } from "./sizes.ts"
import { commandOnly, store as storeLayer } from "./service.ts"

const ok = (subject: string, detail: string): Finding => ({ subject, level: "ok", detail })

const filterOf = ({ filter }: ChainConfig): string => {
  const topics = filter.topics.flatMap((alternatives) => alternatives ?? []).length
  if (filter.addresses.length === 0 && topics === 0) return "all logs"
  return `${filter.addresses.length || "all"} addresses, ${topics || "all"} topics`
}

/** The configuration, without secrets. */
const configuration = (settings: Settings): ReadonlyArray<Finding> => {
  const { http } = settings
  const seconds = (duration: Duration.Duration) => `${Duration.toSeconds(duration)} s`
  return [
    ...settings.chains.map((chain) => {
      const http = chain.rpc.length === 0 ? "" : `, HTTP ${chain.rpc.map(({ name }) => name).join(", ")}`
      const endpoints = chain.endpoints
        .map(({ name, keyless }) => (keyless ? `${name} (public)` : name))
        .join(", ")
      const from = `from block ${chain.startBlock}, ${chain.confirmations} confirmations`
      return ok(`config ${chain.name}`, `chain ${chain.id}, ${endpoints}${http}, ${filterOf(chain)}, ${from}`)
    }),
    ...settings.chains
      .filter(({ endpoints, rpc }) => endpoints.length + rpc.length === 1)
      .map(({ name }): Finding => ({
        subject: `config ${name}`,
        level: "warning",
        detail: oneEndpoint,
        fix: "add an endpoint of another provider",
      })),
    ok(
      "config",
      `timeouts: request ${seconds(settings.requestTimeout)}, stall ${seconds(settings.stallTimeout)}, shutdown ${seconds(settings.shutdownTimeout)}`,
    ),
    ok(
      "config http",
      `${http.host}:${http.port}, ${http.token === undefined ? "no token" : "with a token"}, log ${settings.log.level.toLowerCase()} ${settings.log.format}`,
    ),
    ...settings.warnings.map((detail): Finding => ({ subject: "config", level: "warning", detail })),
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
  const admin = yield* StoreAdmin
  const found = new Map<string, Finding>()
  for (const { id } of chains) {
    for (const refused of yield* admin.refused(id)) {
      const { name, detail, lost } = refused
      if (found.has(name)) continue
      const fix = grant(refused, `~${streamPrefix}:* ~{${streamPrefix}:*`)
      found.set(
        name,
        lost === undefined
          ? {
              subject: "store access",
              level: "failure",
              detail: `${name} is refused, and nothing can be written without it: ${detail}`,
              fix: fix ?? `use a server that has ${name}`,
            }
          : {
              subject: "store access",
              level: "warning",
              detail: `no ${name}: ${lost}`,
              ...(fix !== undefined && { fix }),
            },
      )
    }
  }
  return [...found.values()]
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
  const findings: Array<Finding> = []
  const info = yield* admin.info
  findings.push(ok("store", `${info.version} at ${admin.description}`))
  if (info.persistence !== undefined) {
    const durable = !info.persistence.startsWith("snapshots")
    findings.push({
      subject: "store persistence",
      level: durable ? "ok" : "warning",
      detail: info.persistence,
      ...(!durable && {
        fix: "set appendonly yes: entries lost in a crash are pushed again, and readers see them twice",
      }),
    })
  }
  if (info.evictionPolicy !== undefined) {
    const safe = !evictsStreams(info.evictionPolicy)
    findings.push({
      subject: "store eviction",
      level: safe ? "ok" : "warning",
      detail: `maxmemory-policy is ${info.evictionPolicy}`,
      ...(!safe && { fix: "set maxmemory-policy noeviction: this policy may evict streams" }),
    })
  }
  const refused = yield* refusals(settings)
  findings.push(...refused)
  const withJournal = new Set<number>()
  if (refused.some(({ level }) => level === "failure"))
    return { findings: [...findings, ...sizes(info, settings, [])], withJournal }
  const streams: Array<Stream> = []
  for (const { name, id } of settings.chains) {
    yield* store.ping(id)
    if ((yield* store.load(id)) !== undefined) withJournal.add(id)
    streams.push({ chain: name, ...(yield* admin.stats(id, false)) })
  }
  findings.push(...sizes(info, settings, streams))
  findings.push(ok("store access", "reading and writing are allowed"))
  return { findings, withJournal }
})

/** Checks that each signal's target accepts an export. A failure is only a warning: nothing else depends on telemetry. */
const telemetry = Effect.fnUntraced(function* ({ redact, telemetry }: Settings) {
  if (telemetry === undefined) return []
  const { listen, probe } = yield* Effect.promise(() => import("../observability/Otlp.ts"))
  const warnings: Array<string> = []
  listen((text) => void warnings.push(text))
  const probed = yield* probe(telemetry)
  return [
    ...warnings.map((text): Finding => ({ subject: "telemetry", level: "warning", detail: redact(text) })),
    ...probed.map(({ signal, reason }): Finding =>
      reason === undefined
        ? ok(`telemetry ${signal}`, "accepts an empty request")
        : {
            subject: `telemetry ${signal}`,
            level: "warning",
            detail: redact(reason),
            fix: "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS: rejected telemetry is lost",
          },
    ),
  ]
})

const howToFixStore = (settings: Settings): string => {
  if (settings.store._tag === "Sqlite") return "check DATABASE_PATH and the permissions of its directory"
  const prefix = settings.streamPrefix
  return `check REDIS_URL and the server; its user needs ~${prefix}:* ~{${prefix}:* +@all -@dangerous -@admin +info`
}

const marks = { ok: ["✓", 32], warning: ["!", 33], failure: ["✗", 31] } as const

const renderText = ({ subject, level, detail, fix }: Finding): string => {
  const [mark, colour] = marks[level]
  return `${style(colour, mark)} ${subject.padEnd(28)} ${detail}${fix === undefined ? "" : style(2, `  → ${fix}`)}`
}

const print = (findings: ReadonlyArray<Finding>, json: boolean) =>
  writeLines(findings.map((finding) => (json ? JSON.stringify(finding) : renderText(finding))))

export const check = Command.make(
  "check",
  { json: jsonFlag("One JSON object per line and finding") },
  Effect.fnUntraced(
    function* ({ json }) {
      const settings = yield* AppConfig
      yield* print(configuration(settings), json)
      const sent = yield* Effect.forkChild(telemetry(settings))
      // Opened here, so that a store that cannot be opened is a finding like others.
      const storeChecked = yield* store(settings).pipe(
        Effect.provide(storeLayer),
        Effect.catchTag("StoreError", (error) =>
          Effect.succeed<Checked>({
            findings: [
              { subject: "store", level: "failure", detail: error.message, fix: howToFixStore(settings) },
            ],
            withJournal: new Set(),
          }),
        ),
        Effect.forkChild,
      )
      const hasJournal = ({ id }: ChainConfig) =>
        Effect.map(Fiber.join(storeChecked), ({ withJournal }) => withJournal.has(id))
      const endpoints = yield* Effect.forEach(
        settings.chains.flatMap((chain) => [
          ...chain.endpoints.map((endpoint) => probe(chain, endpoint, "heads", settings, hasJournal(chain))),
          ...chain.rpc.map((endpoint) => probe(chain, endpoint, "ranges", settings, hasJournal(chain))),
        ]),
        Effect.tap((findings) => print(findings, json)),
        // All at once, as in the service: each may wait for a head.
        { concurrency: "unbounded" },
      )
      const { findings: stored } = yield* Fiber.join(storeChecked)
      yield* print(stored, json)
      yield* print(yield* Fiber.join(sent), json)
      const failed = [...endpoints.flat(), ...stored].some(({ level }) => level === "failure")
      if (failed) process.exitCode = exitCode.unreachable
    },
    Effect.provide(
      Layer.mergeAll(commandOnly, Transport.layerNetwork, Layer.succeed(References.MinimumLogLevel, "None")),
    ),
  ),
).pipe(
  Command.withDescription("Check the configuration, the endpoints, the store and the telemetry targets"),
  Command.withExamples([
    { command: "event-ingestor check", description: "One line per finding, with a fix" },
    {
      command: "event-ingestor check --json | jq 'select(.level != \"ok\")'",
      description: "Only warnings and failures",
    },
  ]),
)
