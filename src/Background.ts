/**
 * Background fibers and their owner: the connection or the chain to which they belong. By default Effect logs a defect of a
 * forked fiber at debug level and the fiber ends unnoticed: a watchdog would be gone while the service seems healthy.
 */
import { Context, Effect, FiberSet } from "effect"
import type { Scope } from "effect"
import { logEvent } from "./observability/LogEvents.ts"

/** The background fibers of the owner. Without an owner, a defect is logged. */
const Owner = Context.Reference<FiberSet.FiberSet<unknown, never> | undefined>("event-ingestor/Background", {
  defaultValue: () => undefined,
})

/** Logs a defect, after which the effect ends without a value. */
export const logDefects = Effect.catchDefect((defect) =>
  logEvent("defect", "a defect in a background fiber", {}, defect),
)

/** Forks an effect until the scope closes. An error or a defect in it is a defect of the owner. */
export const forkIn =
  (scope: Scope.Scope) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<void, never, R> =>
    Effect.gen(function* () {
      const owner = yield* Owner
      const background = owner === undefined ? logDefects(Effect.orDie(effect)) : Effect.orDie(effect)
      const fiber = yield* Effect.forkIn(background, scope)
      if (owner !== undefined) yield* FiberSet.add(owner, fiber)
    })

/** Forks an effect until the current scope closes. An error or a defect in it is a defect of the owner. */
export const forkScoped = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
): Effect.Effect<void, never, R | Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) => forkIn(scope)(effect))

/**
 * Runs an effect in a scope of its own, as the owner of the background fibers that it forks: a defect in one of them is a
 * defect of the effect.
 */
export const scoped = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
): Effect.Effect<A, E, Exclude<R, Scope.Scope>> =>
  Effect.scoped(
    Effect.gen(function* () {
      const fibers = yield* FiberSet.make<unknown, never>()
      return yield* Effect.raceFirst(
        Effect.provideService(effect, Owner, fibers),
        Effect.andThen(FiberSet.join(fibers), Effect.never),
      )
    }),
  )
