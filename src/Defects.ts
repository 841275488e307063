/**
 * Defects in fibers that nobody waits for. By itself such a defect is a line for debugging, and whatever the fiber did is
 * done no more: a watchdog that no longer watches.
 */
import { Context, Effect } from "effect"
import { logEvent } from "./observability/LogEvents.ts"

/** Who is told: the connection that the fiber belongs to, or the chain. Outside of both it is logged. */
export const Owner = Context.Reference<(defect: unknown) => Effect.Effect<void>>("event-ingestor/Owner", {
  defaultValue: () => (defect) => logEvent("defect", "a defect in the background", {}, defect),
})

/** Ends where it dies, and tells the owner. For what is forked. */
export const toOwner = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A | void, E, R> =>
  Effect.catchDefect(effect, (defect) => Effect.flatMap(Owner, (owner) => owner(defect)))
