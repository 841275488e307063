/**
 * The circuit breaker between one chain and the store. When a move of the chain fails, the chain waits, and probes find out
 * when the store takes writes for it again: other chains go on, a cluster node that is gone stops only the chains of its
 * slots.
 *
 * The store is near and unmetered, so it is probed twice a second, and the first answer releases the chain. Where the
 * probe is answered at once and the chain's moves fail all the same, it is the moves that are refused: they are tried
 * after 1, 2, 4, 5, 5 … s, until one is taken.
 */
import { Effect, Latch, Schedule } from "effect"
import type { Scope } from "effect"
import { circuitBreaking, makeBreaker, watched } from "../Retry.ts"
import type { Breaker, Wait } from "../Retry.ts"
import { inWords, logEvent } from "../observability/LogEvents.ts"
import * as Monotonic from "../Monotonic.ts"
import { StoreError } from "./Store.ts"

export interface StoreBreaker {
  readonly breaker: Breaker
  /** Whether the store takes moves of this chain, as far as is known. */
  readonly isOpen: () => boolean
  /** Waits until it does. */
  readonly awaitClosed: Effect.Effect<void>
  /** A move failed: the chain waits from now on. */
  readonly trip: (error: StoreError) => Effect.Effect<void>
  /** A move was taken. */
  readonly succeed: Effect.Effect<void>
}

const probes = Schedule.spaced("500 millis")

/** Between moves that are refused although the store answers. */
const refusedMoves = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("5 seconds")])

/**
 * A chain's breaker. Its probes end with the scope.
 *
 * @param probe writes in the chain's own slot; fails while the store cannot take that
 */
export const make = (
  probe: Effect.Effect<void, StoreError>,
): Effect.Effect<StoreBreaker, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const breaker = watched(yield* makeBreaker, (failures) =>
      logEvent("circuit_closed", `the store takes moves again after ${failures} failures: circuit closed`, {
        circuit: "store",
        failures,
      }),
    )
    const open = yield* Latch.make(true)
    let recovering = false
    const onWait = ({ message }: StoreError, { failures, opened, seconds }: Wait) => {
      if (!opened)
        return logEvent("store_unavailable", `${message}; next try in ${inWords(seconds)}`, {
          reason: message,
        })
      const text = `circuit to the store opened after ${failures} failures: ${message}; next try in ${inWords(seconds)}`
      return logEvent("circuit_open", text, {
        circuit: "store",
        reason: message,
        failures,
        next_try_seconds: seconds,
      })
    }
    const pacing = circuitBreaking(breaker, onWait)
    const pause = yield* Schedule.toStepWithSleep(pacing(Schedule.setInputType<StoreError>()(refusedMoves)))

    // The chain must not wait for ever because of a bug.
    const answered = Effect.catchDefect(probe, (defect) =>
      Effect.fail(new StoreError({ operation: "answer", reason: "unreachable", detail: String(defect) })),
    )

    /** Until the store answers. The failure that led here counts as the first try. */
    const untilAnswered = (failure: StoreError) => {
      let first = true
      return Effect.suspend(() => {
        if (!first) return answered
        first = false
        return Effect.fail(failure)
      }).pipe(Effect.retry(pacing(Schedule.setInputType<StoreError>()(probes))))
    }

    const recover = Effect.fnUntraced(function* (failure: StoreError) {
      const since = yield* Monotonic.millis
      const isAnswering = (yield* Effect.result(answered))._tag === "Success"
      if (isAnswering) {
        yield* Effect.ignore(pause(failure))
      } else {
        yield* untilAnswered(failure)
        const seconds = Math.round((yield* Monotonic.millis) - since) / 1000
        yield* logEvent("store_available", `the store answers again after ${inWords(seconds)}`, { seconds })
      }
    })

    return {
      breaker,
      isOpen: () => !recovering,
      awaitClosed: open.await,
      trip: (error) =>
        Effect.suspend(() => {
          if (recovering) return Effect.void
          recovering = true
          const recovered = recover(error).pipe(
            Effect.andThen(open.open),
            Effect.ensuring(Effect.sync(() => (recovering = false))),
          )
          return Effect.andThen(open.close, Effect.forkIn(recovered, scope))
        }).pipe(Effect.asVoid),
      succeed: breaker.succeed,
    }
  })
