/**
 * The events of the log and their rate limits. Every line except debug lines has a stable `event` code and typed fields;
 * its text may change. docs/LOGS.md lists them.
 */
import { Effect, References } from "effect"
import * as Monotonic from "../Monotonic.ts"
import { CurrentLogLimits } from "./LogLimits.ts"

type Level = "Info" | "Warn" | "Error" | "Fatal"

type Type = "number" | "string"

interface Definition {
  readonly level: Level
  readonly fields: Readonly<Record<string, Type>>
  /** Seconds between two lines of this event about the same subject; lines in between are counted, not written. */
  readonly every?: number
  /** Writes the last suppressed line when the interval ends: without it the log would end with an outdated state. */
  readonly trailing?: boolean
}

/** A state that may change back and forth. */
const flapping = { every: 10, trailing: true }

/** A state that lasts: repeated once a minute while it does. */
const lasting = { every: 60 }

export const events = {
  // The process.
  start: { level: "Info", fields: { chains: "number", store: "string" } },
  configuration: { level: "Warn", fields: {} },
  http: { level: "Info", fields: { url: "string" } },
  http_unprotected: { level: "Warn", fields: {} },
  stopped: { level: "Info", fields: { seconds: "number" } },
  telemetry_failed: { level: "Warn", fields: {} },
  telemetry_back: { level: "Info", fields: {} },
  defect: { level: "Error", fields: {} },
  // The position of a chain.
  begin: { level: "Info", fields: { block: "number", filter: "string" } },
  resume: { level: "Info", fields: { block: "number", stored: "number", final: "number", filter: "string" } },
  filter_changed: { level: "Warn", fields: { block: "number", filter: "string" } },
  backfill: {
    level: "Info",
    fields: {
      block: "number",
      target: "number",
      behind: "number",
      blocks_per_second: "number",
      logs_per_second: "number",
      seconds_left: "number",
      chains: "number",
      slowest: "string",
      reason: "string",
    },
  },
  live: { level: "Info", fields: { block: "number" }, ...flapping },
  reorg: {
    level: "Info",
    fields: { depth: "number", block: "number", retracted_blocks: "number", retracted_entries: "number" },
    ...flapping,
  },
  chain_failed: { level: "Error", fields: {}, ...lasting },
  // Its endpoints.
  connected: { level: "Info", fields: {}, ...flapping },
  disconnected: {
    level: "Warn",
    fields: { error_type: "string", reason: "string", seconds: "number" },
    ...flapping,
  },
  connect_failed: {
    level: "Warn",
    fields: { error_type: "string", reason: "string", failures: "number", next_try_seconds: "number" },
    ...lasting,
  },
  circuit_open: {
    level: "Warn",
    fields: { circuit: "string", reason: "string", failures: "number", next_try_seconds: "number" },
    ...flapping,
  },
  circuit_closed: { level: "Info", fields: { circuit: "string", failures: "number" }, ...flapping },
  in_use: { level: "Info", fields: {} },
  failover: { level: "Warn", fields: { from: "string", to: "string", reason: "string" }, ...flapping },
  failback: { level: "Info", fields: { from: "string", to: "string" }, ...flapping },
  heads_polled: { level: "Info", fields: { reason: "string" }, ...lasting },
  contradicted: { level: "Warn", fields: { reason: "string" }, ...flapping },
  head_time: { level: "Warn", fields: { block: "number" } },
  final_disagreement: { level: "Error", fields: { block: "number", endpoints: "string" } },
  standoff: { level: "Warn", fields: { seconds: "number" } },
  standoff_over: { level: "Info", fields: {} },
  halted: { level: "Fatal", fields: { error_type: "string", reason: "string" } },
  halt_over: { level: "Info", fields: {} },
  superseded: { level: "Error", fields: { filter: "string" } },
  // The fleet.
  fleet_joined: { level: "Info", fields: { fleet: "string", replica: "string" } },
  fleet_unavailable: { level: "Warn", fields: { reason: "string" }, ...lasting },
  followed_here: { level: "Info", fields: {} },
  followed_elsewhere: { level: "Info", fields: {} },
  // The store.
  store_unavailable: { level: "Warn", fields: { reason: "string" }, ...lasting },
  store_available: { level: "Info", fields: { seconds: "number" }, ...flapping },
  store_regression: { level: "Warn", fields: { stood: "number", stored: "number" } },
  new_epoch: { level: "Warn", fields: {} },
  eviction: { level: "Warn", fields: { policy: "string" } },
  memory_unlimited: { level: "Warn", fields: {} },
  trimming: { level: "Info", fields: { kept: "number" } },
  backlog: {
    level: "Warn",
    fields: { reader: "string", behind: "number", length: "number", backlog: "number" },
  },
  paused: {
    level: "Error",
    fields: { reader: "string", behind: "number", length: "number", reason: "string" },
    ...flapping,
  },
  unpaused: { level: "Info", fields: {}, ...flapping },
} as const satisfies Readonly<Record<string, Definition>>

export type Event = keyof typeof events

/** The fields of an event; an unknown value is omitted. */
export type Fields<E extends Event> = {
  readonly [Name in keyof (typeof events)[E]["fields"]]?:
    | ((typeof events)[E]["fields"][Name] extends "number" ? number : string)
    | undefined
}

/** `12 s`, `3 min`, `2 h 5 min`. */
export const formatDuration = (seconds: number): string => {
  if (seconds < 90)
    return `${Math.round(seconds * 10) / 10 >= 10 ? Math.round(seconds) : Math.round(seconds * 10) / 10} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 90) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`
}

/** `1 block`, `2 blocks`. */
export const pluralize = (count: number, one: string, many = `${one}s`): string =>
  `${count} ${count === 1 ? one : many}`

/**
 * Writes a line of the log.
 *
 * @param more further values to show, such as the cause of a defect
 */
export const logEvent = <E extends Event>(
  event: E,
  text: string,
  fields: Fields<E>,
  ...more: ReadonlyArray<unknown>
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { every, trailing, level } = events[event] as Definition
    const limits = yield* CurrentLogLimits
    const around = yield* References.CurrentLogAnnotations
    const own = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
    const line = (leftOut: number) =>
      Effect.logWithLevel(level)(
        leftOut > 0 ? `${text} (${leftOut} more like this since the last line)` : text,
        ...more,
      ).pipe(
        Effect.provideService(References.CurrentLogAnnotations, {
          ...around,
          event,
          ...own,
          ...(leftOut > 0 && { left_out: leftOut }),
        }),
      )
    if (limits === undefined || every === undefined) return yield* line(0)
    const key = [event, around["chain"], around["endpoint"], own["circuit"], own["error_type"]].join("\n")
    const admitted = limits.admit(key, every, yield* Monotonic.millis, trailing ? line : undefined)
    if (admitted !== undefined) yield* line(admitted.leftOut)
  })
