/**
 * One supervised fiber per chain.
 *
 * Failures are isolated per chain. A failing endpoint costs the connection, and a failing store delays the moves in flight. A
 * defect costs the connection to which it belongs, and otherwise restarts the chain, which resumes from the stored journal.
 */
import { Cause, Effect, FiberMap, Layer } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Background from "../Background.ts"
import { backoff, circuitBreaking } from "../Retry.ts"
import * as Chain from "./Chain.ts"
import * as ChainState from "./ChainState.ts"

/** Restarts a chain after a failure outside of a connection. */
const supervised = Effect.fnUntraced(
  function* (chain: ChainConfig) {
    const state = yield* ChainState.make(chain)
    const { breaker, events } = state
    const onFailure = (cause: Cause.Cause<unknown>) =>
      Cause.hasInterruptsOnly(cause) ? Effect.void : events.publish({ _tag: "ChainFailed", cause })
    return yield* Background.scoped(Chain.run(chain, state)).pipe(
      Effect.sandbox,
      Effect.tapError(onFailure),
      Effect.retry({
        schedule: circuitBreaking(breaker)(backoff),
        while: (cause) => !Cause.hasInterruptsOnly(cause),
      }),
    )
  },
  // Also for what the state does in the background.
  (effect, chain) => Effect.annotateLogs(effect, { chain: chain.name }),
)

/** Follows every configured chain for as long as the layer lives. */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { chains } = yield* AppConfig
    const fibers = yield* FiberMap.make<string>()
    for (const chain of chains) yield* FiberMap.run(fibers, chain.name, supervised(chain))
  }),
)
