/**
 * Trims the stream of one chain, each second where there is something to trim, also while the store takes no moves, and keeps publishing from going on while
 * a pinned reader is too far behind (see Retention.ts).
 */
import { Effect, Latch } from "effect"
import type { Scope } from "effect"
import * as Defects from "../Defects.ts"
import { logEvent } from "../observability/LogEvents.ts"
import type { Holder, Retention, Trimmed } from "./Retention.ts"
import type { StoreError } from "./Store.ts"

export interface Housekeeping {
  /** The store said that publishing is paused: waits until it is not. */
  readonly untilResumed: Effect.Effect<void>
}

/**
 * Between two trims while there is something to trim, or somebody is waited for; else a look now and then is enough: some
 * servers charge for each command, and pushes trim as well.
 */
const busy = "1 second"
const idle = "10 seconds"

const told = ({ reader, behind, length }: Holder) =>
  `${reader.replace(":", " ")} has not read ${behind} of ${length} entries`

/**
 * The housekeeping of a chain; it ends with the scope.
 *
 * @param onHolder told each second which pinned reader holds trimming back, if any
 */
export const make = (
  trim: Effect.Effect<Trimmed, StoreError>,
  { backlog }: Pick<Retention, "backlog">,
  onHolder: (holder: Holder | undefined) => void,
): Effect.Effect<Housekeeping, never, Scope.Scope> =>
  Effect.gen(function* () {
    const resumed = yield* Latch.make(true)
    let before: "free" | "filling" | "paused" = "free"

    const tell = (holder: Holder | undefined) => {
      const isFilling = holder !== undefined && holder.length >= backlog / 2
      const level = holder?.paused ? "paused" : isFilling ? "filling" : "free"
      const was = before
      before = level
      if (level === was || holder === undefined)
        return was === "paused" && level !== "paused"
          ? logEvent("unpaused", "publishing goes on", {})
          : Effect.void
      if (level === "paused") {
        const why =
          holder.paused === "memory"
            ? "and Redis uses 80 % of its maxmemory"
            : `the backlog of ${backlog} is full`
        const { behind, length, reader } = holder
        return logEvent(
          "paused",
          `publishing is paused: ${told(holder)}, ${why}. Nothing is lost; it goes on when that reader reads on, or after ${holder.release}`,
          { reader, behind, length, reason: holder.paused },
        )
      }
      if (was === "paused") return logEvent("unpaused", "publishing goes on", {})
      return level === "filling"
        ? logEvent("backlog", `${told(holder)}: publishing pauses at ${backlog} (STREAM_BACKLOG)`, {
            reader: holder.reader,
            behind: holder.behind,
            length: holder.length,
            backlog,
          })
        : Effect.void
    }

    /** Opened where the next look is wanted at once. */
    const wanted = yield* Latch.make(false)

    const look = Effect.gen(function* () {
      const { dropped, holder } = yield* trim
      onHolder(holder)
      yield* tell(holder)
      yield* holder?.paused ? resumed.close : resumed.open
      return dropped > 0 || holder !== undefined
    })
    yield* Effect.gen(function* () {
      // A store that does not answer is the breaker's business.
      const isBusy = yield* Effect.orElseSucceed(look, () => true)
      yield* Effect.race(Effect.sleep(isBusy ? busy : idle), wanted.await)
      yield* wanted.close
    }).pipe(Effect.forever, Defects.toOwner, Effect.forkScoped)
    return { untilResumed: Effect.andThen(wanted.open, Effect.andThen(resumed.close, resumed.await)) }
  })
