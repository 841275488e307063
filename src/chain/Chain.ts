/**
 * One chain, from its endpoints to its journal: start reading here.
 *
 * Each chain is a Stream built from scoped WebSockets, each reconnected under a Schedule (exponential, with jitter and a circuit
 * breaker). The heads of the active endpoint become moves; the store takes each of them exactly once.
 */
import { Effect, Stream } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import { Defect } from "../endpoint/EndpointError.ts"
import * as EndpointPool from "../endpoint/EndpointPool.ts"
import type { PoolMember } from "../endpoint/PoolMember.ts"
import { logEvent } from "../observability/LogEvents.ts"
import { blockTraces } from "../observability/Tracing.ts"
import { Redaction } from "../Redactor.ts"
import { JournalStore } from "../store/JournalStore.ts"
import * as ChainEvents from "./ChainEvents.ts"
import type { ChainState } from "./ChainState.ts"
import * as Following from "./Following.ts"
import * as Submission from "./Submission.ts"
import * as Suspension from "./Suspension.ts"

/** Moves in flight to the store at the same time: the head that each one expects is known in advance. */
const movesInFlight = 3

/** Follows a chain whatever its endpoints and its store do; ends with the scope, or with a defect outside of a connection. */
export const run = Effect.fnUntraced(function* (chain: ChainConfig, state: ChainState) {
  const { status, writer } = state
  const redact = yield* Redaction
  const store = yield* JournalStore
  const traces = yield* blockTraces(chain)
  const events = ChainEvents.make(chain, status, state.storeBreaker.isOpen)
  const { requestTimeout, wsMaxPayload, rpcRate } = yield* AppConfig
  const limits = { requestTimeout, wsMaxPayload, rpcRate }
  const pool = yield* EndpointPool.make(chain, { ...limits, watch: events.endpoint })
  const suspension = Suspension.make({ chain, store, status, writer, connected: pool.connected })
  const { submit, acknowledge, onStoreError } = Submission.make(state, events, suspension, traces)
  const follow = yield* Following.make({ chain, state, pool, events, traces })

  /** A defect ends the connection: the chain resumes from the stored journal over another one. */
  const onDefect = (member: PoolMember) => (defect: unknown) =>
    Effect.andThen(
      logEvent("defect", "a defect while following the chain", {}, defect),
      member.connection.end(new Defect({ detail: redact(String(defect)) })),
    )

  /** Until the connection ends. A conflict with the store ends only the steps: new ones begin at its journal. */
  const withEndpoint = (member: PoolMember) =>
    Effect.flatMap(follow(member), (stepsFromJournal) =>
      Stream.unwrap(stepsFromJournal).pipe(
        Stream.mapEffect(submit, { concurrency: movesInFlight }),
        Stream.runForEach(acknowledge(member)),
        Effect.tapError((error) => traces.abandon(error.message)),
        Effect.catchTags({
          HeadConflict: (conflict) => Effect.logDebug(conflict.message),
          FilterReplaced: suspension.yieldJournal,
          FinalityViolation: suspension.haltUntilResolved,
          StoreError: onStoreError,
        }),
        Effect.forever,
      ),
    ).pipe(
      Effect.raceFirst(member.connection.ended),
      Effect.tapError((error) => traces.abandon(error.message)),
      Effect.catch((error) => member.connection.end(error.reason)),
      Effect.catchDefect(onDefect(member)),
      Effect.ensuring(traces.abandon("another endpoint is in use")),
      Effect.scoped,
      Effect.provideService(Defects.Owner, onDefect(member)),
    )

  return yield* pool.active.pipe(
    // A new element is a failover: the endpoint before is followed no longer.
    Stream.switchMap((member) => Stream.fromEffectDrain(withEndpoint(member))),
    Stream.runDrain,
  )
})
