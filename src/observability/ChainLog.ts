/** Writes the log lines of a chain's events: the text of each, and its fields. */
import { Effect } from "effect"
import type { Clock } from "effect"
import type { ChainEvent, SilentEvent } from "../chain/ChainEvents.ts"
import { errorType } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Monotonic from "../Monotonic.ts"
import type { Wait } from "../Retry.ts"
import type { Holder } from "../store/Retention.ts"
import { wholeUpTo } from "../store/Journal.ts"
import type { ChainStatus } from "./ChainStatus.ts"
import { formatDuration, logEvent, pluralize } from "./LogEvents.ts"
import { describeDisagreement, standoffReason } from "./StatusFold.ts"

/** How far a pinned reader delays the stream: not enough to say, at least half of the backlog, or so far that it is paused. */
type HoldLevel = "free" | "filling" | "paused"

/** What the log lines of one chain depend on, beside its status. */
export interface LogContext {
  readonly clock: Clock.Clock
  /** `STREAM_BACKLOG`. */
  readonly backlog: number
  /** Whether the start of the journal was logged: once per process, and again if the journal begins anew. */
  position: "begin" | "resume" | undefined
  /** Endpoints whose lost connection was logged, and that have not been retried since. */
  readonly lost: Set<string>
  holdLevel: HoldLevel
  /** A wrong clock is logged once. */
  isSkewLogged: boolean
}

type Line = Effect.Effect<void> | undefined

type Lines = {
  readonly [Tag in Exclude<ChainEvent["_tag"], SilentEvent["_tag"]>]: (
    event: Extract<ChainEvent, { readonly _tag: Tag }>,
    before: ChainStatus,
    context: LogContext,
  ) => Line
}

/** The reason of an endpoint's failure, without what the log line already contains. */
const reasonOf = ({ reason }: EndpointError) =>
  reason._tag === "Disconnected" ? reason.detail : reason.message

const at = (endpoint: string) => Effect.annotateLogs({ endpoint })

const filtered = (filter: string) => (filter === "none" ? "no filter" : `filter ${filter}`)

const logBegin = (block: number, filter: string, context: LogContext): Line => {
  if (context.position === "begin") return undefined
  context.position = "begin"
  return logEvent("begin", `beginning at block ${block} (${filtered(filter)})`, { block, filter })
}

const logRetry = (endpoint: string, error: EndpointError, wait: Wait, wasConnected: boolean): Line => {
  const { failures, opened, seconds } = wait
  const reason = reasonOf(error)
  const next_try_seconds = Math.round(seconds * 10) / 10
  const next = `next try in ${formatDuration(seconds)}`
  if (opened) {
    const text = `circuit to ${endpoint} opened after ${failures} failures: ${reason}; ${next}`
    return logEvent("circuit_open", text, { circuit: "endpoint", reason, failures, next_try_seconds })
  }
  // The lost connection has just been logged.
  if (wasConnected) return undefined
  const text = `cannot connect to ${endpoint}: ${reason}; ${next}`
  const error_type = errorType(error.reason)
  return logEvent("connect_failed", text, { error_type, reason, failures, next_try_seconds })
}

const describeHolder = ({ reader, behind, length }: Holder) =>
  `${reader.replace(":", " ")} has not read ${behind} of ${length} entries`

const logHolder = (holder: Holder | undefined, context: LogContext): Line => {
  const { backlog, holdLevel: previous } = context
  const isFilling = holder !== undefined && holder.length >= backlog / 2
  const level = holder?.paused ? "paused" : isFilling ? "filling" : "free"
  context.holdLevel = level
  if (level === previous) return undefined
  if (holder !== undefined && level === "paused") {
    const why =
      holder.paused === "memory"
        ? "and Redis uses 80 % of its maxmemory"
        : `the backlog of ${backlog} is full`
    const { behind, length, reader } = holder
    return logEvent(
      "paused",
      `publishing is paused: ${describeHolder(holder)}, ${why}. No log is lost; publishing resumes when the reader catches up, or after ${holder.release}`,
      { reader, behind, length, reason: holder.paused },
    )
  }
  if (previous === "paused") return logEvent("unpaused", "publishing resumed", {})
  if (holder === undefined || level !== "filling") return undefined
  const { behind, length, reader } = holder
  const text = `${describeHolder(holder)}: publishing pauses at ${backlog} (STREAM_BACKLOG)`
  return logEvent("backlog", text, { reader, behind, length, backlog })
}

const lines: Lines = {
  // -- the fleet
  FollowedHere: () => logEvent("followed_here", "this replica follows the chain", {}),
  FollowedElsewhere: () => logEvent("followed_elsewhere", "another replica follows the chain", {}),

  // -- endpoints
  EndpointConnected: ({ endpoint, connection }) =>
    at(endpoint)(
      logEvent("connected", `connected to ${endpoint}${connection.polled ? ", heads are polled" : ""}`, {}),
    ),
  EndpointFailed: ({ endpoint, error }, before, { clock, lost }) => {
    const since = before.endpointNamed(endpoint)?.connectedSince
    if (since === undefined) return undefined
    lost.add(endpoint)
    const reason = reasonOf(error)
    const seconds = Math.round((Monotonic.millisUnsafe(clock) - since) / 1000)
    const text = `lost ${endpoint} after ${formatDuration(seconds)}: ${reason}`
    return at(endpoint)(
      logEvent("disconnected", text, { error_type: errorType(error.reason), reason, seconds }),
    )
  },
  EndpointRetrying: ({ endpoint, error, wait }, _, { lost }) => {
    const line = logRetry(endpoint, error, wait, lost.delete(endpoint))
    return line && at(endpoint)(line)
  },
  EndpointRecovered: ({ endpoint, failures }) =>
    at(endpoint)(
      logEvent("circuit_closed", `circuit to ${endpoint} closed after ${failures} failures`, {
        circuit: "endpoint",
        failures,
      }),
    ),
  HeadsPolled: ({ endpoint, reason }) =>
    at(endpoint)(logEvent("heads_polled", `heads are polled: ${reason}`, { reason })),
  EndpointSwitched: ({ endpoint: to, from, polled, reason }) => {
    const how = polled ? ", polled over HTTP" : ""
    if (from === undefined) return at(to)(logEvent("in_use", `using endpoint ${to}${how}`, {}))
    return reason === undefined
      ? logEvent("failback", `failed back from ${from} to ${to}, which is preferred`, { from, to })
      : logEvent("failover", `failed over from ${from} to ${to}${how}: ${reason}`, { from, to, reason })
  },

  // -- the chain
  ChainFailed: ({ cause }) => logEvent("chain_failed", "the chain failed and is restarted", {}, cause),
  DefectCaught: ({ during, defect }) => logEvent("defect", `a defect ${during}`, {}, defect),

  // -- the journal
  JournalLoaded: ({ journal, begins, filter }, _, context) => {
    if (journal === undefined)
      return begins === undefined || context.position !== undefined
        ? undefined
        : logBegin(begins, filter, context)
    if (context.position !== undefined) return undefined
    context.position = "resume"
    const stored = wholeUpTo(journal.head)
    const final = journal.final?.number
    const block = stored + 1
    return logEvent(
      "resume",
      `resuming at block ${block} (${final === undefined ? "nothing final yet" : `final ${final}`}, ${filtered(filter)})`,
      { block, stored, final, filter },
    )
  },
  JournalBegun: ({ block, filter }, _, context) => logBegin(block, filter, context),
  FilterChanged: ({ block, filter }) =>
    logEvent("filter_changed", `the filter has changed: it applies from block ${block} on`, {
      block,
      filter,
    }),
  Reorged: ({ depth, from, blocks, entries }) =>
    logEvent(
      "reorg",
      `reorg of ${pluralize(depth, "block")} from ${from} down: ${pluralize(blocks, "stored block")} with ${pluralize(entries, "entry", "entries")} retracted`,
      { depth, block: from, retracted_blocks: blocks, retracted_entries: entries },
    ),
  EpochBegun: ({ outcome, stood, stored }) => {
    if (outcome === "new epoch")
      return logEvent(
        "new_epoch",
        "the stream is in a new epoch: it was reset, or another ingestor detected lost entries",
        {},
      )
    const again = stored === stood ? "stands there again" : `stands at ${stored} now`
    const stands = stored === undefined ? "has nothing now" : again
    return logEvent(
      "store_regression",
      `the store has lost entries: it stood at block ${stood ?? "-"} and ${stands}. They are written again in a new epoch, as the chain is now`,
      { stood, stored },
    )
  },

  // -- the store
  StoreRetrying: ({ error: { message }, wait: { failures, opened, seconds } }) => {
    const next = `next try in ${formatDuration(seconds)}`
    return opened
      ? logEvent(
          "circuit_open",
          `circuit to the store opened after ${failures} failures: ${message}; ${next}`,
          {
            circuit: "store",
            reason: message,
            failures,
            next_try_seconds: seconds,
          },
        )
      : logEvent("store_unavailable", `${message}; ${next}`, { reason: message })
  },
  StoreAvailable: ({ seconds }) =>
    logEvent("store_available", `the store is available again after ${formatDuration(seconds)}`, { seconds }),
  StoreRecovered: ({ failures }) =>
    logEvent("circuit_closed", `the store accepts moves again after ${failures} failures: circuit closed`, {
      circuit: "store",
      failures,
    }),
  StreamTrimmed: ({ holder }, _, context) => logHolder(holder, context),

  // -- contradictions
  ClockSkewed: ({ endpoint, header: { number, timestamp } }, _, context) => {
    if (context.isSkewLogged) return undefined
    context.isSkewLogged = true
    const now = Math.floor(context.clock.currentTimeMillisUnsafe() / 1000)
    return logEvent(
      "head_time",
      `${endpoint} reports time ${timestamp} for block ${number}, local time is ${now} (unix seconds): times are stored as reported`,
      { block: number },
    )
  },
  Contradicted: ({ endpoint, detail }) =>
    at(endpoint)(logEvent("contradicted", `contradicted: ${detail}`, { reason: detail })),
  FinalDisagreement: ({ disagreement }, before) => {
    if (disagreement === undefined || before.finalDisagreement !== undefined) return undefined
    const text = describeDisagreement(disagreement)
    return logEvent(
      "final_disagreement",
      disagreement.holds ? `${text}: nothing is finalized until they agree` : text,
      { block: disagreement.number, endpoints: disagreement.endpoints.join(",") },
    )
  },
  Standoff: ({ wait }, before) => {
    const isNew = before.standoffUntil === undefined
    if (wait === 0)
      return isNew
        ? undefined
        : logEvent("standoff_over", "the wait for another ingestor's node to leave its fork has ended", {})
    if (!isNew) return undefined
    const seconds = Math.ceil(wait / 1000)
    return logEvent("standoff", `${standoffReason}: they are written again in ${seconds} s at the earliest`, {
      seconds,
    })
  },
  Halted: ({ type, reason }) => logEvent("halted", `halted: ${reason}`, { error_type: type, reason }),
  HaltOver: ({ why }) => logEvent("halt_over", `${why}: resuming`, {}),
  Superseded: ({ filter, message }) => logEvent("superseded", `${message}: not writing`, { filter }),
}

/** The log lines of one chain. @param backlog `STREAM_BACKLOG` */
export const make = (
  clock: Clock.Clock,
  backlog: number,
): ((event: ChainEvent, before: ChainStatus) => Effect.Effect<void> | undefined) => {
  const context: LogContext = {
    clock,
    backlog,
    position: undefined,
    lost: new Set(),
    holdLevel: "free",
    isSkewLogged: false,
  }
  // The table has a line for exactly the type of each tag, which TypeScript does not follow through the index.
  return (event, before) =>
    (lines as Readonly<Record<string, ((...args: ReadonlyArray<unknown>) => Line) | undefined>>)[
      event._tag
    ]?.(event, before, context)
}
