/**
 * One supervised fiber per chain.
 *
 * Failures are isolated per chain. A failing endpoint costs the connection, and a failing store delays the moves in flight. A
 * defect costs the connection to which it belongs, and otherwise restarts the chain, which resumes from the stored journal.
 */
import { Cause, Effect, Layer } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Background from "../Background.ts"
import { backoff, circuitBreaking } from "../Retry.ts"
import { Fleet } from "../fleet/Fleet.ts"
import * as AuditReads from "./AuditReads.ts"
import type { InTurn } from "./AuditReads.ts"
import * as Chain from "./Chain.ts"
import { ChainEvents } from "./ChainEvents.ts"
import type { ChainEvent } from "./ChainEvents.ts"
import * as ChainState from "./ChainState.ts"

/** Restarts a chain after a failure outside of a connection. */
const supervised = Effect.fnUntraced(
  function* (chain: ChainConfig, rivals: ChainState.Rivals, inTurn: InTurn) {
    const state = yield* ChainState.make(chain, rivals, inTurn)
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
  (effect, chain: ChainConfig) => Effect.annotateLogs(effect, { chain: chain.name }),
)

/** Follows every configured chain, or in a fleet those that are this replica's, for as long as the layer lives. */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { chains } = yield* AppConfig
    const { share } = yield* Fleet
    const events = yield* ChainEvents
    const inTurn = yield* AuditReads.make
    yield* share(
      chains.map((chain) => {
        const rivals = { moves: 0 }
        const publish = (event: ChainEvent) =>
          Effect.annotateLogs(events.of(chain.name).publish(event), { chain: chain.name })
        return {
          name: chain.name,
          follow: supervised(chain, rivals, inTurn),
          overtaken: () => rivals.moves,
          onStart: publish({ _tag: "FollowedHere" }),
          onStop: publish({ _tag: "FollowedElsewhere" }),
        }
      }),
    )
  }),
)
