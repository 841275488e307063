/**
 * Monotonic time, for durations and deadlines. The wall clock may jump, by hours after a virtual machine was suspended,
 * so it is used for timestamps only.
 */
import { Clock, Effect } from "effect"

/** Milliseconds since an arbitrary origin: only differences are meaningful. */
export const millisUnsafe = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** Milliseconds since an arbitrary origin: only differences are meaningful. */
export const millis: Effect.Effect<number> = Effect.map(
  Clock.monotonicTimeNanos,
  (nanos) => Number(nanos) / 1e6,
)
