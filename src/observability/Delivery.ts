/** What becomes of the exports of one signal: what is dropped is counted, and why is said once. */

/** What a target says about an export that it took; `undefined`: nothing. */
export type Remark =
  | { readonly rejected: number; readonly message: string }
  | { readonly notOtlp: string }
  | undefined

export interface Log {
  readonly warn: (text: string) => void
  readonly info: (text: string) => void
}

/** The least time between two warnings of one kind about one signal (milliseconds). */
const quiet = 60_000

/** A remark, and what of it is the same each time. */
export const inWords = (remark: NonNullable<Remark>): readonly [kind: string, text: string] => {
  if ("notOtlp" in remark) {
    const text = `the answer is not OTLP: is the port, and the path, that of a collector? (${remark.notOtlp})`
    return [text, text]
  }
  const message = remark.message || "it does not say why"
  return [message, `the target rejected ${remark.rejected} of what it took: ${message}`]
}

/** Whether something is to be said: not what was said last, and nothing within a minute of that. */
const once = (now: () => number) => {
  let last: string | undefined
  let at = -Infinity
  return {
    isNew: (text: string): boolean => {
      if (text === last || now() - at < quiet) return false
      last = text
      at = now()
      return true
    },
    /** Whether anything was said since the last time. */
    forget: (): boolean => {
      const wasSaid = last !== undefined
      last = undefined
      return wasSaid
    },
  }
}

/**
 * Takes what became of each export of a signal and answers how many of its items were dropped.
 *
 * @param now Milliseconds of a clock that only goes forward.
 */
export const make = (signal: string, now: () => number, log: Log) => {
  const failures = once(now)
  const remarks = once(now)
  return (items: number, reason: string | undefined, remark: Remark): number => {
    if (reason !== undefined) {
      if (failures.isNew(reason)) log.warn(`${signal} not delivered: ${reason}`)
      return items
    }
    if (failures.forget()) log.info(`${signal} delivered again`)
    if (remark === undefined) return 0
    const [kind, text] = inWords(remark)
    if (remarks.isNew(kind)) log.warn(`${signal}: ${text}`)
    return "rejected" in remark ? Math.min(remark.rejected, items) : 0
  }
}
