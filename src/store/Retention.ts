/**
 * How much of a stream is kept: for whoever comes later, and for readers that are waited for. Pure.
 *
 * A reader is _pinned_ when nothing is trimmed that it has not read: one that tells where it is (see CONSUMING.md), until
 * it has not been seen for seven days, and the consumer groups that are named. Where a pinned reader falls so far behind
 * that its backlog is full, publishing to that stream pauses: nothing is lost, as the chain still has it.
 */

export interface Retention {
  /** Entries kept for whoever comes later, about; 0 keeps all. */
  readonly maxLength: number
  /** The consumer groups that are pinned; `*`: all. */
  readonly groups: ReadonlyArray<string>
  /** Entries up to which a stream grows for a pinned reader before publishing to it pauses. */
  readonly backlog: number
}

/** Keeps about so many entries, and four times as many for pinned readers. */
export const keeping = (maxLength: number, groups: ReadonlyArray<string> = []): Retention => ({
  maxLength,
  groups,
  backlog: maxLength * 4,
})

/** Why publishing to a stream is paused: its backlog is full, or the store's memory nearly is. */
export type PauseReason = "backlog" | "memory"

/** The pinned reader furthest behind, while it holds entries that would be trimmed without it. */
export interface Holder {
  /** `group:<name>` or `reader:<name>`. */
  readonly reader: string
  /** Entries that it has not read. */
  readonly behind: number
  /** Entries of the stream. */
  readonly length: number
  /** Since it is too far behind, nothing is published to this stream. */
  readonly paused: PauseReason | undefined
  /** The command after which it is not waited for any more. */
  readonly release: string
}

/** A reader that has not been seen for so long (seconds) is not waited for any more. */
export const pinnedFor = 7 * 24 * 3600

/** Who is pinned, in words; `undefined`: nobody, so far. @param now unix seconds */
export const pinnedBy = (
  { groups }: Pick<Retention, "groups">,
  readers: ReadonlyArray<{ readonly name: string; readonly seen: number | undefined }>,
  now: number,
): string | undefined => {
  if (groups.length > 0) return `STREAM_GROUPS=${groups.join(",")}`
  const reader = readers.find(({ seen }) => now - (seen ?? now) < pinnedFor)
  return reader && `the reader ${reader.name}`
}

/** Redis has no limit of memory, or does not tell, and somebody is pinned. @param limit `undefined`: it does not tell */
export const noLimit = (limit: number | undefined, pinned: string, { backlog }: Retention) => ({
  detail: `maxmemory is ${limit === undefined ? "unknown" : "0, which is no limit"}, and ${pinned} is waited for: nothing but STREAM_BACKLOG (${backlog} entries a chain) keeps a reader that is behind from filling the memory`,
  fix: "set maxmemory in Redis to what the machine can spare, and allow INFO: publishing then pauses at 80 % of it",
})

/** A group or reader and where it is. */
export interface Standing {
  /** `group:<name>` or `reader:<name>`. */
  readonly reader: string
  /** The last entry that it has read. */
  readonly id: string
  /** Entries that it has not read, where they were counted. */
  readonly lag: number | undefined
  /** The command after which it is not waited for any more. */
  readonly release: string
}

/** The pinned reader that trimming waits for, as far as that can be seen without trimming. */
export type Waiting = Pick<Standing, "reader" | "lag" | "release">

/** Up to so many entries beyond what is kept are not worth a trim. */
const slack = 100

const isBehind = (one: string, other: string): boolean => {
  const [a, b] = [one, other].map((id) => id.split("-").map(Number)) as [Array<number>, Array<number>]
  return a[0] === b[0] ? (a[1] ?? 0) < (b[1] ?? 0) : a[0]! < b[0]!
}

/**
 * The pinned reader that trimming waits for.
 *
 * @param pinned those that are pinned
 * @param entries of the stream
 * @param keep how many of them stay in any case
 */
export const waitingFor = (
  pinned: ReadonlyArray<Standing>,
  entries: number,
  keep: number,
): Waiting | undefined => {
  const [first, ...others] = pinned
  if (first === undefined || entries < keep + slack) return undefined
  const last = others.reduce((one, other) => (isBehind(other.id, one.id) ? other : one), first)
  if (last.lag !== undefined && last.lag <= keep) return undefined
  const { reader, lag, release } = last
  return { reader, lag, release }
}

/** What a trim did. */
export interface Trimmed {
  readonly dropped: number
  readonly holder: Holder | undefined
}
