/**
 * How long to wait after a failure, and the circuit breaker that says so.
 *
 * The breaker is a combinator, `Schedule → Schedule`: it paces one retry loop and adds the states
 * Closed → Open → HalfOpen to it. Its memory lives outside the schedule, because `Stream.retry` restarts a schedule
 * at the first element it sees, and a provider that connects, says something and drops would never back off.
 * Whoever runs the loop reports success with `breaker.succeed`.
 */
import { Duration, Effect, Schedule, SubscriptionRef } from "effect"
import type { Pull } from "effect"
import * as Monotonic from "./Monotonic.ts"

export type BreakerState =
  /** Working, or failing so rarely that every retry is let through. */
  | { readonly _tag: "Closed"; readonly failures: number }
  /** Waiting until `until` (monotonic milliseconds) before the next try. */
  | { readonly _tag: "Open"; readonly failures: number; readonly until: number }
  /** The one probe is running. */
  | { readonly _tag: "HalfOpen"; readonly failures: number }

export interface Breaker {
  readonly state: SubscriptionRef.SubscriptionRef<BreakerState>
  /** Forgets all failures. What counts as success is the caller's to say: never a mere connect. */
  readonly succeed: Effect.Effect<void>
}

/** The third consecutive failure opens the breaker. */
export const failuresToOpen = 3

/**
 * 2, 4, 8 … 60 s, each ±20 %: `min(1 s · 2^failures, 60 s)` where `failures` includes the one being waited for.
 */
export const backoff = Schedule.min([Schedule.exponential("2 seconds"), Schedule.spaced("60 seconds")]).pipe(
  Schedule.jittered,
)

const healthy: BreakerState = { _tag: "Closed", failures: 0 }

/** A breaker without a failure. */
export const makeBreaker: Effect.Effect<Breaker> = Effect.gen(function* () {
  const state = yield* SubscriptionRef.make<BreakerState>(healthy)
  return {
    state,
    succeed: Effect.suspend(() =>
      SubscriptionRef.getUnsafe(state).failures === 0 ? Effect.void : SubscriptionRef.set(state, healthy),
    ),
  }
})

/** What a state is called wherever people or programs read it. */
export const breakerLabel = ({ _tag }: BreakerState): "closed" | "open" | "half-open" =>
  ({ Closed: "closed", Open: "open", HalfOpen: "half-open" } as const)[_tag]

/** The state now; that of a breaker that is not there yet is Closed. */
export const stateOf = (breaker: Breaker | undefined): BreakerState =>
  breaker ? SubscriptionRef.getUnsafe(breaker.state) : healthy

/** The same breaker, which tells after how many failures it closed where it was open before. */
export const watched = (breaker: Breaker, onClosed: (failures: number) => Effect.Effect<void>): Breaker => ({
  state: breaker.state,
  succeed: Effect.suspend(() => {
    const { failures } = stateOf(breaker)
    const isClosing = failures >= failuresToOpen
    return isClosing ? Effect.andThen(breaker.succeed, onClosed(failures)) : breaker.succeed
  }),
})

/** The wait after a failure. */
export interface Wait {
  /** In a row, with this one. */
  readonly failures: number
  /** Until the next try. */
  readonly seconds: number
  /** The breaker has opened just now. */
  readonly opened: boolean
}

/**
 * Adds a circuit breaker to a schedule: from the third failure in a row the wait is spent Open and the try after it
 * is the probe (HalfOpen). The schedule's own delays stay as they are; it starts over after a success.
 *
 * @param onWait told of each failure how long the wait is
 */
export const circuitBreaking =
  <Failure = unknown>(
    breaker: Breaker,
    onWait: (failure: Failure, wait: Wait) => Effect.Effect<void> = () => Effect.void,
  ) =>
  <Output, Input extends Failure, Error, Env>(
    schedule: Schedule.Schedule<Output, Input, Error, Env>,
  ): Schedule.Schedule<Output, Input, Error, Env> => {
    type Paced = [Output, Duration.Duration]
    let delays: ((now: number, input: Input) => Pull.Pull<Paced, Error, Output, Env>) | undefined
    const moveTo = (next: BreakerState) => SubscriptionRef.set(breaker.state, next)

    const step = Effect.fnUntraced(function* (now: number, input: Input) {
      const { failures: before } = yield* SubscriptionRef.get(breaker.state)
      if (delays === undefined || before === 0) delays = yield* Schedule.toStep(schedule)
      const [output, delay] = yield* delays(now, input)
      const failures = before + 1
      const seconds = Duration.toSeconds(delay)
      yield* onWait(input, { failures, seconds, opened: failures === failuresToOpen })
      if (failures < failuresToOpen) {
        yield* moveTo({ _tag: "Closed", failures })
        return [output, delay] as Paced
      }
      yield* moveTo({ _tag: "Open", failures, until: (yield* Monotonic.millis) + Duration.toMillis(delay) })
      // The wait is spent here and not handed to the retry loop, so that HalfOpen begins with the probe.
      yield* Effect.sleep(delay)
      yield* moveTo({ _tag: "HalfOpen", failures })
      return [output, Duration.zero] as Paced
    })
    return Schedule.fromStep(Effect.succeed(step))
  }
