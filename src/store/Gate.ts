/**
 * The store's circuit breaker. When any chain's move fails, the gate closes for all of them, and one probe after
 * another, at growing distances, finds out when the store takes writes again.
 */
import { Effect, Latch } from "effect"
import type { Scope } from "effect"
import { backoff, circuitBreaking, makeBreaker } from "../endpoint/RetryPolicy.ts"
import type { Breaker } from "../endpoint/RetryPolicy.ts"
import * as Repeats from "../Repeats.ts"
import { StoreError } from "./Store.ts"
import type { Store } from "./Store.ts"

export interface Gate {
  readonly breaker: Breaker
  readonly isOpen: () => boolean
  /** Waits while the gate is closed. */
  readonly pass: Effect.Effect<void>
  /** Closes the gate, unless somebody did already. */
  readonly failed: (error: StoreError) => Effect.Effect<void>
}

/** A gate that is open, until a move fails. Its probes end with the scope. */
export const make = (store: Store["Service"]): Effect.Effect<Gate, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const breaker = yield* makeBreaker
    const open = yield* Latch.make(true)
    const repeats = Repeats.make()
    let recovering = false

    // The gate must not stay shut for a bug.
    const unanswered = (defect: unknown) =>
      new StoreError({ operation: "ping", reason: "unreachable", detail: String(defect) })

    /** The failure that closed the gate counts as the first try; then each try is a ping. */
    const recover = (failure: StoreError) => {
      let first = true
      const probe = Effect.suspend(() => {
        if (!first) return Effect.catchDefect(store.ping, unanswered)
        first = false
        return Effect.fail(failure)
      })
      return probe.pipe(
        Effect.tapError((error) => repeats.warn(error.message)),
        Effect.retry(circuitBreaking(breaker)(backoff)),
        Effect.andThen(repeats.over),
        Effect.andThen(Effect.logInfo("the store is back")),
        Effect.andThen(open.open),
        Effect.ensuring(Effect.sync(() => (recovering = false))),
      )
    }

    return {
      breaker,
      isOpen: () => !recovering,
      pass: open.await,
      failed: (error) =>
        Effect.suspend(() => {
          if (recovering) return Effect.void
          recovering = true
          return Effect.andThen(open.close, Effect.forkIn(recover(error), scope))
        }).pipe(Effect.asVoid),
    }
  })
