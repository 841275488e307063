/**
 * Trims the stream of one chain in the background, also while the store refuses moves, and pauses publishing while a
 * pinned reader is too far behind (see Retention.ts).
 */
import { Effect, Latch } from "effect"
import type { Scope } from "effect"
import * as Defects from "../Defects.ts"
import { logEvent } from "../observability/LogEvents.ts"
import type { Holder, Retention, Trimmed } from "./Retention.ts"
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

const describe = ({ reader, behind, length }: Holder) =>
  `${reader.replace(":", " ")} has not read ${behind} of ${length} entries`

/**
 * The housekeeping of a chain. It ends with the scope.
 *
 * @param onHolder receives, after each trim, the pinned reader that delays trimming, if there is one
 */
export const make = (
  trim: Effect.Effect<Trimmed, StoreError>,
  { backlog }: Pick<Retention, "backlog">,
  onHolder: (holder: Holder | undefined) => void,
): Effect.Effect<Housekeeping, never, Scope.Scope> =>
  Effect.gen(function* () {
    const resumed = yield* Latch.make(true)
    let lastLevel: "free" | "filling" | "paused" = "free"

    const logTransition = (holder: Holder | undefined) => {
      const previous = lastLevel
      const isFilling = holder !== undefined && holder.length >= backlog / 2
      lastLevel = holder?.paused ? "paused" : isFilling ? "filling" : "free"
      if (lastLevel === previous) return Effect.void
      if (previous === "paused") return logEvent("unpaused", "publishing resumed", {})
      if (holder === undefined || lastLevel === "free") return Effect.void
      const { behind, length, reader, release, paused } = holder
      if (paused === undefined) {
        const text = `${describe(holder)}: publishing pauses at ${backlog} (STREAM_BACKLOG)`
        return logEvent("backlog", text, { reader, behind, length, backlog })
      }
      const why =
        paused === "memory" ? "and Redis uses 80 % of its maxmemory" : `the backlog of ${backlog} is full`
      return logEvent(
        "paused",
        `publishing is paused: ${describe(holder)}, ${why}. No log is lost; publishing resumes when the reader catches up, or after ${release}`,
        { reader, behind, length, reason: paused },
      )
    }

    /** Open: trim now instead of after the interval. */
    const trimNow = yield* Latch.make(false)

    const trimOnce = Effect.gen(function* () {
      const { dropped, holder } = yield* trim
      onHolder(holder)
      yield* logTransition(holder)
      yield* holder?.paused ? resumed.close : resumed.open
      return dropped > 0 || holder !== undefined
    })
    yield* Effect.gen(function* () {
      // The store breaker handles a store that fails.
      const isBusy = yield* Effect.orElseSucceed(trimOnce, () => true)
      yield* Effect.race(Effect.sleep(isBusy ? busyInterval : idleInterval), trimNow.await)
      yield* trimNow.close
    }).pipe(Effect.forever, Defects.toOwner, Effect.forkScoped)
    return { untilResumed: Effect.andThen(trimNow.open, Effect.andThen(resumed.close, resumed.await)) }
  })
