/**
 * Defects in forked fibers. By default Effect logs such a defect at debug level and the fiber ends unnoticed: a watchdog
 * would be gone while the service seems healthy.
 */
import { Context, Effect } from "effect"
import { logEvent } from "./observability/LogEvents.ts"

/** Receives the defect: the connection or the chain that owns the fiber. Without an owner the defect is logged. */
export const Owner = Context.Reference<(defect: unknown) => Effect.Effect<void>>("event-ingestor/Owner", {
  defaultValue: () => (defect) => logEvent("defect", "defect in a background fiber", {}, defect),
})

/** Reports a defect of a forked effect to its owner; the effect then ends without a value. */
export const toOwner = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A | void, E, R> =>
  Effect.catchDefect(effect, (defect) => Effect.flatMap(Owner, (owner) => owner(defect)))
