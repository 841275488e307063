/**
 * The backoff after a failure, and the circuit breaker that paces it.
 *
 * The breaker is a combinator, `Schedule → Schedule`: it paces one retry loop and adds the states
 * Closed → Open → HalfOpen to it. Its state lives outside the schedule, because `Stream.retry` resets a schedule at the
 * first element: a provider that connects, sends one message and drops would never back off.
 * The owner of the loop reports success with `breaker.succeed`.
 */
import { Duration, Effect, Schedule, SubscriptionRef } from "effect"
import type { Pull } from "effect"
import * as Monotonic from "./Monotonic.ts"

export type BreakerState =
  /** Working, or below the failure threshold: retries follow the backoff alone. */
  | { readonly _tag: "Closed"; readonly failures: number }
  /** Waiting until `until` (monotonic milliseconds) before the probe. */
  | { readonly _tag: "Open"; readonly failures: number; readonly until: number }
  /** A single probe is running. */
  | { readonly _tag: "HalfOpen"; readonly failures: number }

export interface Breaker {
  readonly state: SubscriptionRef.SubscriptionRef<BreakerState>
  /** Resets the failure count. The caller defines success; a mere connect is not one. */
  readonly succeed: Effect.Effect<void>
}

/** The third consecutive failure opens the breaker. */
export const failuresToOpen = 3

/**
 * 2, 4, 8 … 60 s, each ±20 %: `min(1 s · 2^failures, 60 s)` where `failures` includes the latest one.
 */
export const backoff = Schedule.min([Schedule.exponential("2 seconds"), Schedule.spaced("60 seconds")]).pipe(
  Schedule.jittered,
)

const healthy: BreakerState = { _tag: "Closed", failures: 0 }

/** A closed breaker without failures. */
export const makeBreaker: Effect.Effect<Breaker> = Effect.gen(function* () {
  const state = yield* SubscriptionRef.make<BreakerState>(healthy)
  return {
    state,
    succeed: Effect.suspend(() =>
      SubscriptionRef.getUnsafe(state).failures === 0 ? Effect.void : SubscriptionRef.set(state, healthy),
    ),
  }
})

/** The name of a state in metrics, `/status` and logs. */
export const breakerLabel = ({ _tag }: BreakerState): "closed" | "open" | "half-open" =>
  ({ Closed: "closed", Open: "open", HalfOpen: "half-open" } as const)[_tag]

/** The current state; Closed for a breaker that does not exist yet. */
export const stateOf = (breaker: Breaker | undefined): BreakerState =>
  breaker ? SubscriptionRef.getUnsafe(breaker.state) : healthy

/** The same breaker with a hook: `onClosed` runs with the failure count when an open breaker closes. */
export const withOnClosed = (
  breaker: Breaker,
  onClosed: (failures: number) => Effect.Effect<void>,
): Breaker => ({
  state: breaker.state,
  succeed: Effect.suspend(() => {
    const { failures } = stateOf(breaker)
    const isClosing = failures >= failuresToOpen
    return isClosing ? Effect.andThen(breaker.succeed, onClosed(failures)) : breaker.succeed
  }),
})

/** The delay after a failure. */
export interface Wait {
  /** Consecutive failures, including this one. */
  readonly failures: number
  /** Delay before the next attempt. */
  readonly seconds: number
  /** Whether this failure opened the breaker. */
  readonly opened: boolean
}

/**
 * Adds a circuit breaker to a schedule: from the third consecutive failure on, the breaker is Open during the delay and
 * the attempt after it is the probe (HalfOpen). The schedule keeps its delays and restarts after a success.
 *
 * @param onWait called for each failure with the delay that follows it
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
      // Sleeps here instead of returning the delay to the retry loop, so that HalfOpen begins with the probe.
      yield* Effect.sleep(delay)
      yield* moveTo({ _tag: "HalfOpen", failures })
      return [output, Duration.zero] as Paced
    })
    return Schedule.fromStep(Effect.succeed(step))
  }
