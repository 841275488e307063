/** Tracks the exports of one telemetry signal: counts dropped items and logs each reason once. */

/** What the target reported about an export that it accepted; `undefined`: nothing. */
export type TargetNotice =
  | { readonly rejected: number; readonly message: string }
  | { readonly notOtlp: string }
  | undefined

interface Log {
  readonly warn: (text: string) => void
  readonly info: (text: string) => void
}

/** The minimum time between two warnings of one kind about one signal (milliseconds). */
const warningInterval = 60_000

/** The text of a notice, and a key that is equal for repeated notices whatever their counts. */
export const describeNotice = (notice: NonNullable<TargetNotice>): readonly [kind: string, text: string] => {
  if ("notOtlp" in notice) {
    const text = `the response is not OTLP: check that the port and the path are those of a collector (${notice.notOtlp})`
    return [text, text]
  }
  const message = notice.message || "no reason given"
  return [message, `the target accepted the export but rejected ${notice.rejected} of its items: ${message}`]
}

/** Suppresses a text that repeats the last one, and any text within a minute of the last one. */
const warningDeduplicator = (now: () => number) => {
  let last: string | undefined
  let at = -Infinity
  return {
    isNew: (text: string): boolean => {
      if (text === last || now() - at < warningInterval) return false
      last = text
      at = now()
      return true
    },
    /** Forgets the last text. Whether there was one since the last reset. */
    reset: (): boolean => {
      const hadWarned = last !== undefined
      last = undefined
      return hadWarned
    },
  }
}

/**
 * Handles the result of each export of a signal and returns how many of its items were dropped.
 *
 * @param now Milliseconds of a monotonic clock.
 */
export const make = (signal: string, now: () => number, log: Log) => {
  const failures = warningDeduplicator(now)
  const notices = warningDeduplicator(now)
  return (items: number, reason: string | undefined, notice: TargetNotice): number => {
    if (reason !== undefined) {
      if (failures.isNew(reason)) log.warn(`${signal} not delivered: ${reason}`)
      return items
    }
    if (failures.reset()) log.info(`${signal} delivered again`)
    if (notice === undefined) return 0
    const [kind, text] = describeNotice(notice)
    if (notices.isNew(kind)) log.warn(`${signal}: ${text}`)
    return "rejected" in notice ? Math.min(notice.rejected, items) : 0
  }
}
