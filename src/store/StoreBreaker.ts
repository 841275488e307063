/**
 * The circuit breaker between one chain and the store. When a move fails, the chain waits, and probes detect when the store
 * accepts its writes again. Other chains continue: a cluster node that is down stops only the chains in its slots.
 *
 * The store is near and unmetered, so it is probed twice a second, and the first answer releases the chain. If the probe
 * succeeds and the chain's moves still fail, the moves themselves are refused: they are retried after 1, 2, 4, 5, 5 … s
 * until one is accepted.
 */
import { Effect, Latch, Schedule } from "effect"
import type { Scope } from "effect"
import * as Background from "../Background.ts"
import { circuitBreaking, makeBreaker, withOnClosed } from "../Retry.ts"
import type { Breaker } from "../Retry.ts"
import * as Monotonic from "../Monotonic.ts"
import type { StoreEvent } from "./StoreEvent.ts"
import { StoreError } from "./StoreError.ts"

export interface StoreBreaker {
  readonly breaker: Breaker
  /** Whether the store accepts moves of this chain, as far as is known. */
  readonly acceptsMoves: () => boolean
  /** Waits until it does. */
  readonly awaitClosed: Effect.Effect<void>
  /** A move failed: the chain waits. */
  readonly trip: (error: StoreError) => Effect.Effect<void>
  /** A move was accepted. */
  readonly succeed: Effect.Effect<void>
}

const probes = Schedule.spaced("500 millis")

/** The delays between moves that are refused while the probe succeeds. */
const refusedMoves = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("5 seconds")])

/**
 * A chain's breaker. Its probes end with the scope.
 *
 * @param probe writes in the chain's slot; fails while the store cannot accept writes
 * @param publish called in the fiber of the chain
 */
export const make = (
  probe: Effect.Effect<void, StoreError>,
  publish: (event: StoreEvent) => Effect.Effect<void>,
): Effect.Effect<StoreBreaker, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const breaker = withOnClosed(yield* makeBreaker, (failures) =>
      publish({ _tag: "StoreRecovered", failures }),
    )
    const accepting = yield* Latch.make(true)
    let recovering = false
    const pacing = circuitBreaking(breaker, (error: StoreError, wait) =>
      publish({ _tag: "StoreRetrying", error, wait }),
    )
    const pause = yield* Schedule.toStepWithSleep(pacing(Schedule.setInputType<StoreError>()(refusedMoves)))

    // A defect in the probe must not suspend the chain for ever.
    const guardedProbe = Effect.catchDefect(probe, (defect) =>
      Effect.fail(new StoreError({ operation: "ping", reason: "unreachable", detail: String(defect) })),
    )

    /** Probes until the store answers. The failure that led here counts as the first attempt. */
    const probeUntilAnswered = (failure: StoreError) => {
      let attempts = 0
      return Effect.suspend(() => (attempts++ === 0 ? Effect.fail(failure) : guardedProbe)).pipe(
        Effect.retry(pacing(Schedule.setInputType<StoreError>()(probes))),
      )
    }

    const recover = Effect.fnUntraced(function* (failure: StoreError) {
      const since = yield* Monotonic.millis
      const isAnswering = (yield* Effect.result(guardedProbe))._tag === "Success"
      if (isAnswering) {
        yield* Effect.ignore(pause(failure))
      } else {
        yield* probeUntilAnswered(failure)
        const seconds = Math.round((yield* Monotonic.millis) - since) / 1000
        yield* publish({ _tag: "StoreAvailable", seconds })
      }
    })

    return {
      breaker,
      acceptsMoves: () => !recovering,
      awaitClosed: accepting.await,
      trip: (error) =>
        Effect.suspend(() => {
          if (recovering) return Effect.void
          recovering = true
          const recovered = recover(error).pipe(
            // After a defect too: the next move shows whether the store accepts it.
            Background.logDefects,
            Effect.ensuring(Effect.sync(() => (recovering = false))),
            Effect.ensuring(accepting.open),
          )
          return Effect.andThen(accepting.close, Effect.forkIn(recovered, scope))
        }).pipe(Effect.asVoid),
      succeed: breaker.succeed,
    }
  })
