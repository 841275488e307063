/**
 * Trims the stream of one chain in the background, also while the store refuses moves, and pauses publishing while a
 * pinned reader is too far behind (see Retention.ts).
 */
import { Effect, Latch } from "effect"
import type { Scope } from "effect"
import * as Background from "../Background.ts"
import type { Trimmed } from "./Retention.ts"
import type { StoreEvent } from "./StoreEvent.ts"
import type { StoreError } from "./StoreError.ts"

export interface Housekeeping {
  /** Waits until publishing resumes. To be called once the store has answered that it is paused. */
  readonly untilResumed: Effect.Effect<void>
}

/**
 * The interval of trims while entries are trimmed or a reader delays trimming, and the interval otherwise. The second is
 * longer because some servers charge per command, and pushes trim as well.
 */
const busyInterval = "1 second"
const idleInterval = "10 seconds"

/** The housekeeping of a chain. It ends with the scope. @param publish called after each trim */
export const make = (
  trim: Effect.Effect<Trimmed, StoreError>,
  publish: (event: StoreEvent) => Effect.Effect<void>,
): Effect.Effect<Housekeeping, never, Scope.Scope> =>
  Effect.gen(function* () {
    const resumed = yield* Latch.make(true)
    /** Open: trim now instead of after the interval. */
    const trimNow = yield* Latch.make(false)

    const trimOnce = Effect.gen(function* () {
      const { dropped, holder } = yield* trim
      yield* publish({ _tag: "StreamTrimmed", holder })
      yield* holder?.paused ? resumed.close : resumed.open
      return dropped > 0 || holder !== undefined
    })
    // The store breaker handles a store that fails. A defect must not end the trims, nor a pause that waits for one.
    const guarded = trimOnce.pipe(
      Effect.orElseSucceed(() => true),
      Background.logDefects,
    )
    yield* Effect.gen(function* () {
      const isBusy = (yield* guarded) ?? true
      yield* Effect.race(Effect.sleep(isBusy ? busyInterval : idleInterval), trimNow.await)
      yield* trimNow.close
    }).pipe(Effect.forever, Background.forkScoped)
    return { untilResumed: Effect.andThen(trimNow.open, Effect.andThen(resumed.close, resumed.await)) }
  })
