/**
 * How much of a stream is kept: a fixed number of entries, and what pinned readers still need. Pure.
 *
 * Entries that a _pinned_ reader has not read are not trimmed. Pinned are readers that publish their position (see
 * the README), until they have not been seen for seven days, and the consumer groups named in the configuration. When a
 * pinned reader falls so far behind that its backlog is full, publishing to the stream pauses. No log is lost, because the
 * chain still has it.
 */
import type { Retention } from "../config/StreamConfig.ts"

export type { Retention }

/** Why publishing to a stream is paused: its backlog is full, or the store's memory nearly is. */
export type PauseReason = "backlog" | "memory"

/** The pinned reader furthest behind, while it delays trimming. */
export interface Holder {
  /** `group:<name>` or `reader:<name>`. */
  readonly reader: string
  /** Entries that it has not read. */
  readonly behind: number
  /** The length of the stream. */
  readonly length: number
  /** Set while publishing to the stream is paused because this reader is too far behind. */
  readonly paused: PauseReason | undefined
  /** The command that releases the reader: trimming no longer waits for it. */
  readonly release: string
}

/** How long a reader stays pinned after it was last seen (seconds). */
export const pinnedFor = 7 * 24 * 3600

/** Whether a reader that publishes its position is pinned. @param now unix seconds */
export const isPinned = (seen: number | undefined, now: number): boolean => now - (seen ?? now) < pinnedFor

/** A description of who is pinned; `undefined` when no reader is. @param now unix seconds */
export const pinnedBy = (
  { groups }: Pick<Retention, "groups">,
  readers: ReadonlyArray<{ readonly name: string; readonly seen: number | undefined }>,
  now: number,
): string | undefined => {
  if (groups.length > 0) return `STREAM_GROUPS=${groups.join(",")}`
  const reader = readers.find(({ seen }) => isPinned(seen, now))
  return reader && `the reader ${reader.name}`
}

/** The finding that a reader is pinned while Redis has no memory limit. @param limit `undefined`: Redis does not report it */
export const noLimit = (limit: number | undefined, pinned: string, { backlog }: Retention) => ({
  detail: `maxmemory is ${limit === undefined ? "unknown" : "0, which is no limit"}, and ${pinned} is pinned: only STREAM_BACKLOG (${backlog} entries per chain) keeps a slow reader from filling the memory`,
  fix: "set maxmemory in Redis to what the machine can spare, and allow INFO: publishing then pauses at 80 % of it",
})

/** A consumer group or reader and its position. */
interface ReaderPosition {
  /** `group:<name>` or `reader:<name>`. */
  readonly reader: string
  /** The last entry that it has read. */
  readonly id: string
  /** Entries that it has not read; `undefined` when they were not counted. */
  readonly lag: number | undefined
}

/** The pinned reader that delays trimming, as far as that is visible without trimming. */
export type DelayingReader = Pick<ReaderPosition, "reader" | "lag"> & Pick<Holder, "release">

/** Fewer entries than this beyond the limit are not worth a trim. */
const slack = 100

const isBehind = (one: string, other: string): boolean => {
  const [a, b] = [one, other].map((id) => id.split("-").map(Number)) as [Array<number>, Array<number>]
  return a[0] === b[0] ? (a[1] ?? 0) < (b[1] ?? 0) : a[0]! < b[0]!
}

/**
 * The pinned reader that delays trimming.
 *
 * @param pinned the pinned readers
 * @param entries the length of the stream
 * @param keep how many entries stay in any case
 */
export const delayingReader = (
  pinned: ReadonlyArray<ReaderPosition>,
  entries: number,
  keep: number,
): ReaderPosition | undefined => {
  const [first, ...others] = pinned
  if (first === undefined || entries < keep + slack) return undefined
  const last = others.reduce((one, other) => (isBehind(other.id, one.id) ? other : one), first)
  return last.lag === undefined || last.lag > keep ? last : undefined
}

/** The result of a trim. */
export interface Trimmed {
  readonly dropped: number
  readonly holder: Holder | undefined
}
