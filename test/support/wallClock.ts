/** A wall clock that is wrong. */
import { Effect } from "effect"
import type { Clock } from "effect"

export interface WallClock {
  readonly clock: Clock.Clock
  /** By how much it is ahead from now on (milliseconds; negative: behind). */
  readonly shift: (millis: number) => void
}

/** Shifts the wall readings of a clock. What it waits, and what it measures by the monotonic one, stays as it is. */
export const make = (real: Clock.Clock): WallClock => {
  let ahead = 0
  const millis = () => real.currentTimeMillisUnsafe() + ahead
  const nanos = () => real.currentTimeNanosUnsafe() + BigInt(ahead) * 1_000_000n
  return {
    clock: {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanosUnsafe: nanos,
      currentTimeNanos: Effect.sync(nanos),
      monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: real.monotonicTimeNanos,
      sleep: (duration) => real.sleep(duration), // The clock's own method, unchanged; nothing here waits.
    },
    shift: (to) => void (ahead = to),
  }
}
