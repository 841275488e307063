/**
 * Time that only goes forward. The wall clock of a machine is set, by hours where a virtual machine was suspended: what
 * lies between two of its readings may be anything. So it says when something was, and this says how long it lasts.
 */
import { Clock, Effect } from "effect"

/** Milliseconds since some moment: only differences mean anything. */
export const millisUnsafe = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** Milliseconds since some moment: only differences mean anything. */
export const millis: Effect.Effect<number> = Effect.map(
  Clock.monotonicTimeNanos,
  (nanos) => Number(nanos) / 1e6,
)
