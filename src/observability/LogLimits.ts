/** Rate limits for log lines: admits one line per key and interval, and counts the suppressed ones. */
import { Context, Effect } from "effect"
import * as Monotonic from "../Monotonic.ts"

/** @param leftOut how many lines of the same key were suppressed */
export type WriteLine = (leftOut: number) => Effect.Effect<void>

interface Line {
  readonly seconds: number
  /** The end of the interval (monotonic milliseconds): until then, lines of this key are only counted. */
  readonly until: number
  leftOut: number
  /** Writes the last suppressed line, for events that ask for it. */
  trailing: WriteLine | undefined
}

export class LogLimits {
  readonly #lines = new Map<string, Line>()

  /**
   * Admits a line, with the number of lines suppressed before it; `undefined`: this line is suppressed.
   *
   * @param key the subject of the line
   * @param now monotonic milliseconds
   * @param trailing writes the line when the interval ends, unless a newer line replaces it
   */
  admit(
    key: string,
    seconds: number,
    now: number,
    trailing?: WriteLine,
  ): { readonly leftOut: number } | undefined {
    const line = this.#lines.get(key)
    // Re-inserting the key keeps trailing lines in the order in which they were suppressed.
    this.#lines.delete(key)
    if (line !== undefined && now < line.until) {
      this.#lines.set(key, { ...line, leftOut: line.leftOut + 1, trailing })
      return undefined
    }
    this.#lines.set(key, { seconds, until: now + seconds * 1000, leftOut: 0, trailing: undefined })
    return { leftOut: line?.leftOut ?? 0 }
  }

  /** Writes the trailing lines whose interval has ended. Must run every second. */
  readonly flush: Effect.Effect<void> = Effect.flatMap(Monotonic.millis, (now) => {
    const due: Array<Effect.Effect<void>> = []
    for (const [key, line] of this.#lines) {
      if (now < line.until) continue
      if (line.trailing === undefined) {
        // A count is kept for the next line; without a count the key can be dropped.
        if (line.leftOut === 0) this.#lines.delete(key)
        continue
      }
      due.push(line.trailing(line.leftOut - 1))
      this.#lines.set(key, { ...line, until: now + line.seconds * 1000, leftOut: 0, trailing: undefined })
    }
    return Effect.all(due, { discard: true })
  })
}

/** The limits of the process; without them, every line is written. */
export const CurrentLogLimits = Context.Reference<LogLimits | undefined>("event-ingestor/LogLimits", {
  defaultValue: () => undefined,
})
