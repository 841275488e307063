/**
 * Logs the progress of chains that are behind, and when a chain reaches its head. Chains are checked every second; a lag
 * that ends within a second is not logged.
 */
import { Effect } from "effect"
import { formatDuration, logEvent, pluralize } from "./LogEvents.ts"
import * as Monotonic from "../Monotonic.ts"
import * as ChainMetrics from "./ChainMetrics.ts"
import { liveWithin } from "./ChainStatus.ts"
import type { ChainStatus, Phase } from "./ChainStatus.ts"

/** The time between two lines about a chain that is behind (milliseconds). */
const backfillEvery = 10_000

/** More chains than this share a single line. */
const mostLines = 20

/** A failure explains a stall for this long (milliseconds). */
const recent = 60_000

/** The phases in which a chain follows its head; the other phases are logged elsewhere. */
const following: ReadonlySet<Phase> = new Set(["catching-up", "live", "idle"])

/** What was stored at a point in time (monotonic milliseconds). */
interface Mark {
  readonly at: number
  readonly stored: number | undefined
  readonly logs: number
}

class ChainProgress {
  readonly status: ChainStatus
  isLive = false
  /** Where the chain fell behind, or was last logged. */
  mark: Mark | undefined

  constructor(status: ChainStatus) {
    this.status = status
  }

  get isFollowing(): boolean {
    return this.status.head !== undefined && following.has(this.status.phase)
  }

  markAt(at: number): Mark {
    const { status } = this
    const logs = status.count(ChainMetrics.eventsPublished) + status.count(ChainMetrics.eventsDeduplicated)
    return { at, stored: status.stored, logs }
  }
}

const rounded = (value: number) => (value < 10 ? Math.round(value * 10) / 10 : Math.round(value))

/** The rates of a chain since the mark, and the seconds left at those rates. */
const paceOf = ({ status }: ChainProgress, mark: Mark, now: Mark) => {
  const seconds = (now.at - mark.at) / 1000
  const blocks =
    mark.stored === undefined ? undefined : Math.max((now.stored ?? 0) - mark.stored, 0) / seconds
  return {
    blocks,
    logs: Math.max(now.logs - mark.logs, 0) / seconds,
    left: blocks === undefined || blocks === 0 ? undefined : status.blocksBehind / blocks,
  }
}

/** Logs one chain. */
const logOne = (one: ChainProgress, mark: Mark, now: Mark, wallClock: number) => {
  const { status } = one
  const { blocksBehind, failures, stored, target } = status
  const { blocks, left, logs } = paceOf(one, mark, now)
  const last = failures[0]
  const isStill = blocks === 0 || stored === undefined
  const reason = isStill && last !== undefined && wallClock - last.at < recent ? last.text : undefined
  const why = reason === undefined ? "" : `: ${reason}`
  const text =
    stored === undefined
      ? `nothing stored yet, the target is block ${target}${why}`
      : isStill
        ? `${pluralize(blocksBehind, "block")} behind, at block ${stored} of ${target}: no block in ${formatDuration((now.at - mark.at) / 1000)}${why}`
        : `${pluralize(blocksBehind, "block")} behind, at block ${stored} of ${target}${
            blocks === undefined
              ? ""
              : `: ${rounded(blocks)} blocks/s, ${rounded(logs)} logs/s, ${formatDuration(left!)} left`
          }`
  return logEvent("backfill", text, {
    block: stored,
    target,
    behind: stored === undefined ? undefined : blocksBehind,
    blocks_per_second: blocks && rounded(blocks),
    logs_per_second: rounded(logs),
    seconds_left: left && Math.round(left),
    reason,
  }).pipe(Effect.annotateLogs({ chain: status.name }))
}

/** Logs many chains in one line. */
const logAll = (
  all: ReadonlyArray<{ readonly one: ChainProgress; readonly mark: Mark; readonly now: Mark }>,
) => {
  const paces = all.map(({ one, mark, now }) => ({ one, ...paceOf(one, mark, now) }))
  const slowest = paces.reduce((a, b) => ((b.left ?? Infinity) > (a.left ?? Infinity) ? b : a))
  const sum = (of: (pace: (typeof paces)[number]) => number) =>
    paces.reduce((total, pace) => total + of(pace), 0)
  const behind = sum(({ one }) => (one.status.stored === undefined ? 0 : one.status.blocksBehind))
  const blocks = rounded(sum((pace) => pace.blocks ?? 0))
  const logs = rounded(sum((pace) => pace.logs))
  const { name } = slowest.one.status
  const left = slowest.left === undefined ? "makes no progress" : `has ${formatDuration(slowest.left)} left`
  return logEvent(
    "backfill",
    `${all.length} chains are behind, ${pluralize(behind, "block")} in all: ${blocks} blocks/s, ${logs} logs/s; the slowest, ${name}, ${left}`,
    {
      chains: all.length,
      behind,
      blocks_per_second: blocks,
      logs_per_second: logs,
      seconds_left: slowest.left && Math.round(slowest.left),
      slowest: name,
    },
  )
}

/** Must run every second. */
export const make = (chains: ReadonlyArray<ChainStatus>): Effect.Effect<void> => {
  const all = chains.map((status) => new ChainProgress(status))
  let due: number | undefined

  const logLive = (one: ChainProgress) => {
    const { name, stored } = one.status
    one.isLive = true
    one.mark = undefined
    return Effect.annotateLogs(
      logEvent("live", stored === undefined ? "live" : `live at block ${stored}`, { block: stored }),
      { chain: name },
    )
  }

  return Effect.gen(function* () {
    const at = yield* Monotonic.millis
    due ??= at + backfillEvery
    for (const one of all) {
      if (!one.isFollowing) {
        one.isLive = false
        one.mark = undefined
      } else if (one.status.blocksBehind > liveWithin) {
        // The rate counts from the first stored block.
        if (one.mark === undefined || (one.mark.stored ?? one.status.stored) !== one.mark.stored)
          one.mark = one.markAt(at)
      } else if (!one.isLive && one.status.stored !== undefined) yield* logLive(one)
      else one.mark = undefined
    }
    if (at < due) return
    due = at + backfillEvery
    const behind = all.flatMap((one) => {
      const { mark } = one
      if (mark === undefined) return []
      // A live chain may fall behind briefly.
      if (one.isLive && at - mark.at < backfillEvery / 2) return []
      one.isLive = false
      one.mark = one.markAt(at)
      return at > mark.at ? [{ one, mark, now: one.mark }] : []
    })
    if (behind.length > mostLines) return yield* logAll(behind)
    const wallClock = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    for (const { one, mark, now } of behind) yield* logOne(one, mark, now, wallClock)
  })
}
