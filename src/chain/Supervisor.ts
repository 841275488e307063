/**
 * One supervised fiber per chain.
 *
 * Failures are isolated per chain. A failing endpoint costs the connection, a failing store delays the moves in flight, and
 * a defect costs the connection too: the chain then resumes from the stored journal. Only a finality violation halts a
 * chain, until the store's journal is changed or an endpoint serves the finalized block again.
 */
import { Cause, Deferred, Effect, FiberMap, Layer, Schedule } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import { logEvent } from "../observability/LogEvents.ts"
import { CurrentLogLimits, LogLimits } from "../observability/LogLimits.ts"
import * as Progress from "../observability/Progress.ts"
import { Status } from "../observability/Status.ts"
import { Redaction } from "../Redactor.ts"
import { backoff, circuitBreaking } from "../Retry.ts"
import * as Chain from "./Chain.ts"
import * as ChainState from "./ChainState.ts"

/** Restarts a chain after a failure outside of a connection. */
const supervised = Effect.fnUntraced(function* (chain: ChainConfig) {
  const redact = yield* Redaction
  const state = yield* ChainState.make(chain)
  const { breaker, status } = state
  const onFailure = Effect.fnUntraced(function* (cause: Cause.Cause<unknown>) {
    if (Cause.hasInterruptsOnly(cause)) return
    status.recordFailure("defect", redact(Cause.pretty(cause)))
    status.enter("connecting")
    for (const endpoint of status.endpoints) endpoint.connectedSince = undefined
    yield* logEvent("chain_failed", "the chain failed and is restarted", {}, cause)
  })
  const running = Effect.gen(function* () {
    const defect = yield* Deferred.make<never>()
    return yield* Chain.run(chain, state).pipe(
      Effect.provideService(Defects.Owner, (cause) => Deferred.die(defect, cause)),
      Effect.raceFirst(Deferred.await(defect)),
    )
  })
  return yield* Effect.scoped(running).pipe(
    Effect.sandbox,
    Effect.tapError(onFailure),
    Effect.retry({
      schedule: circuitBreaking(breaker)(backoff),
      while: (cause) => !Cause.hasInterruptsOnly(cause),
    }),
    Effect.annotateLogs({ chain: chain.name }),
  )
})

/** Follows every configured chain for as long as the layer lives. */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { chains } = yield* AppConfig
    const limits = new LogLimits()
    const fibers = yield* FiberMap.make<string>()
    const followed = (chain: ChainConfig) =>
      Effect.provideService(supervised(chain), CurrentLogLimits, limits)
    for (const chain of chains) yield* FiberMap.run(fibers, chain.name, followed(chain))
    yield* Effect.andThen(Progress.make((yield* Status).chains), limits.flush).pipe(
      Effect.repeat(Schedule.spaced(Progress.checkInterval)),
      Defects.toOwner,
      Effect.provideService(CurrentLogLimits, limits),
      Effect.forkScoped,
    )
  }),
)
