/**
 * One chain, from its endpoints to its journal: start reading here.
 *
 * Each chain is a Stream built from scoped WebSockets, each reconnected under a Schedule (exponential, with jitter and a circuit
 * breaker). The heads of the active endpoint become moves; the store takes each of them exactly once.
 */
import { Effect, Stream } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Background from "../Background.ts"
import { Defect } from "../endpoint/EndpointError.ts"
import * as EndpointPool from "../endpoint/EndpointPool.ts"
import type { Endpoint } from "../endpoint/Endpoint.ts"
import { blockTraces } from "../Tracing.ts"
import { Redaction } from "../Redactor.ts"
import { JournalStore } from "../store/JournalStore.ts"
import type { ChainState } from "./ChainState.ts"
import * as Following from "./Following.ts"
import * as Submission from "./Submission.ts"
import * as Suspension from "./Suspension.ts"

/** Moves in flight to the store at the same time: the head that each one expects is known in advance. */
const movesInFlight = 3

/** Follows a chain whatever its endpoints and its store do; ends with the scope, or with a defect outside of a connection. */
export const run = Effect.fnUntraced(function* (chain: ChainConfig, state: ChainState) {
  const { events, writer } = state
  const redact = yield* Redaction
  const store = yield* JournalStore
  const traces = yield* blockTraces(chain)
  const pool = yield* EndpointPool.make(chain, {
    events,
    traces,
    onHead: (header) => state.recentHeaders.add(header),
  })
  const suspension = Suspension.make({
    chain,
    store,
    publish: events.publish,
    writer,
    connected: pool.connected,
  })
  const { submit, acknowledge, onStoreError } = Submission.make(state, suspension, traces)
  const follow = yield* Following.make({ chain, state, pool })

  /** Until the connection ends. A conflict with the store ends only the steps: new ones begin at its journal. */
  const withEndpoint = (endpoint: Endpoint) =>
    Effect.flatMap(follow(endpoint), (stepsFromJournal) =>
      Stream.unwrap(stepsFromJournal).pipe(
        Stream.mapEffect(submit, { concurrency: movesInFlight }),
        Stream.runForEach(acknowledge(endpoint)),
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
      Effect.raceFirst(endpoint.connection.ended),
      Effect.tapError((error) => traces.abandon(error.message)),
      Effect.catch((error) => endpoint.connection.end(error.reason)),
      Background.scoped,
      // The chain resumes from the stored journal over another connection.
      Effect.catchDefect((defect) =>
        Effect.andThen(
          events.publish({ _tag: "DefectCaught", during: "while following the chain", defect }),
          endpoint.connection.end(new Defect({ detail: redact(String(defect)) })),
        ),
      ),
      Effect.ensuring(traces.abandon("another endpoint is in use")),
    )

  return yield* pool.active.pipe(
    // A new element is a failover: the endpoint before is followed no longer.
    Stream.switchMap((endpoint) => Stream.fromEffectDrain(withEndpoint(endpoint))),
    Stream.runDrain,
  )
})
