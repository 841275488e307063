/** An accelerated real clock: for scenarios beside real processes that would take hours in real time. */
import { Clock, Duration, Effect } from "effect"

/** Runs an effect whose clock is `times` as fast as real time. */
export const accelerated =
  (times: number) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Clock.clockWith((real) => {
      const began = { millis: real.currentTimeMillisUnsafe(), nanos: real.monotonicTimeNanosUnsafe() }
      const passed = () => (real.monotonicTimeNanosUnsafe() - began.nanos) * BigInt(times)
      const millis = () => began.millis + Number(passed() / 1_000_000n)
      const nanos = () => BigInt(began.millis) * 1_000_000n + passed()
      return Effect.provideService(effect, Clock.Clock, {
        currentTimeMillisUnsafe: millis,
        currentTimeMillis: Effect.sync(millis),
        currentTimeNanosUnsafe: nanos,
        currentTimeNanos: Effect.sync(nanos),
        monotonicTimeNanosUnsafe: passed,
        monotonicTimeNanos: Effect.sync(passed),
        sleep: (duration) => real.sleep(Duration.millis(Duration.toMillis(duration) / times)), // The clock's own method.
      })
    })
