/** Lets each line of the log through once in its time, and counts those that come meanwhile. */
import { Context, Effect } from "effect"
import * as Monotonic from "../Monotonic.ts"

/** @param leftOut how many like it were left out */
export type Say = (leftOut: number) => Effect.Effect<void>

interface Line {
  readonly seconds: number
  /** Until when (monotonic milliseconds) another one like it is only counted. */
  readonly until: number
  leftOut: number
  /** Says what was left out last, where that is wanted. */
  late: Say | undefined
}

export class LogLimits {
  readonly #lines = new Map<string, Line>()

  /**
   * Whether a line is said now, and how many like it were left out before; `undefined`: it is left out.
   *
   * @param key what it is about
   * @param now monotonic milliseconds
   * @param late says it when its time is over, unless another one comes
   */
  take(key: string, seconds: number, now: number, late?: Say): { readonly leftOut: number } | undefined {
    const line = this.#lines.get(key)
    // Lines that are said late are said in the order in which they were left out.
    this.#lines.delete(key)
    if (line !== undefined && now < line.until) {
      this.#lines.set(key, { ...line, leftOut: line.leftOut + 1, late })
      return undefined
    }
    this.#lines.set(key, { seconds, until: now + seconds * 1000, leftOut: 0, late: undefined })
    return { leftOut: line?.leftOut ?? 0 }
  }

  /** Says what was left out last, where its time is over. To be run each second. */
  readonly flush: Effect.Effect<void> = Effect.flatMap(Monotonic.millis, (now) => {
    const due: Array<Effect.Effect<void>> = []
    for (const [key, line] of this.#lines) {
      if (now < line.until) continue
      if (line.late === undefined) {
        // A count waits for the next line; without one there is nothing to remember.
        if (line.leftOut === 0) this.#lines.delete(key)
        continue
      }
      due.push(line.late(line.leftOut - 1))
      this.#lines.set(key, { ...line, until: now + line.seconds * 1000, leftOut: 0, late: undefined })
    }
    return Effect.all(due, { discard: true })
  })
}

/** Those of the process; without any, every line is said. */
export const CurrentLogLimits = Context.Reference<LogLimits | undefined>("event-ingestor/Limited", {
  defaultValue: () => undefined,
})
