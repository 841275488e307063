/** Submits a chain's steps to the store, and publishes what became of them. */
import { Effect } from "effect"
import type { Endpoint } from "../endpoint/Endpoint.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"
import * as Monotonic from "../Monotonic.ts"
import type { BlockTraces } from "../Tracing.ts"
import type { ChainState } from "./ChainState.ts"
import type { FilterReplaced, HeadConflict, Submitted } from "./JournalWriter.ts"
import type { ChainStep, MoveStep } from "./PendingJournal.ts"
import type { Suspension } from "./Suspension.ts"
import type { StoreError } from "../store/StoreError.ts"

export interface Submission {
  /**
   * Submits a step. A move that the store refuses is submitted again once the store accepts moves, without a request to an
   * endpoint: if the store had taken it after all, it answers that the move is a duplicate, or that its head is another one.
   */
  readonly submit: (step: ChainStep) => Effect.Effect<Submitted, HeadConflict | FilterReplaced | StoreError>
  /** Records the result of a step. @param endpoint the endpoint that it came from */
  readonly acknowledge: (endpoint: Endpoint) => (submitted: Submitted) => Effect.Effect<unknown>
  /** The journal cannot be loaded, or a move has to be made anew from what the store has. */
  readonly onStoreError: (error: StoreError) => Effect.Effect<void>
}

/** The journal cannot be used as it is: a retry does not help. */
const isUnusable = ({ reason, operation }: StoreError) =>
  reason === "newer" || (reason === "corrupt" && operation === "load")

/** Submits a step, and after a refusal again, once the store accepts moves. */
const submitting = (
  { rivals, writer, provenance, pushLimits, housekeeping, storeBreaker }: ChainState,
  onStoreError: Submission["onStoreError"],
) => {
  const submit = (step: MoveStep, isRetry: boolean): ReturnType<Submission["submit"]> =>
    writer.submit(step).pipe(
      Effect.catchTags({
        Paused: () =>
          housekeeping.untilResumed.pipe(Effect.andThen(Effect.suspend(() => submit(step, isRetry)))),
        HeadConflict: (conflict) => {
          rivals.moves++
          // Another ingestor may have written other logs of these blocks.
          if (step.move._tag === "Push") provenance.invalidate(step.move.blocks)
          return Effect.fail(conflict)
        },
        StoreError: (error) => {
          if (isUnusable(error)) return Effect.fail(error)
          const { move } = step
          // Pushes are cut anew, from what the store has.
          if (move._tag === "Push" && pushLimits.refused(move, error, isRetry)) return Effect.fail(error)
          return onStoreError(error).pipe(
            Effect.andThen(storeBreaker.awaitClosed),
            Effect.andThen(Effect.suspend(() => submit(step, true))),
          )
        },
      }),
    )
  return submit
}

/** Records what the store answered. */
const acknowledging = (
  { events, rivals, writer, provenance, standoff, pushLimits, storeBreaker, breaker }: ChainState,
  traces: BlockTraces,
) => {
  const recordPop = Effect.map(Monotonic.millis, (now) => standoff.recordPop(now))
  const standoffOver = events.publish({ _tag: "Standoff", wait: 0 })

  const headHandled = (endpoint: Endpoint, received: ReceivedHead | undefined) =>
    Effect.sync(() => events.record({ _tag: "HeadHandled", head: received })).pipe(
      Effect.andThen(endpoint.breaker.succeed),
      Effect.andThen(breaker.succeed),
    )

  return (endpoint: Endpoint, { step, result }: Submitted): Effect.Effect<unknown> => {
    if (result === undefined) {
      if (step._tag === "HeadDone") return Effect.sync(() => traces.done(step.trace))
      const agrees = standoff.confirm(step.journal, step.hash)
      return Effect.andThen(agrees ? standoffOver : Effect.void, headHandled(endpoint, undefined))
    }
    // A duplicate was written by another ingestor, perhaps from another answer.
    if (result._tag === "Duplicate") rivals.moves++
    if (step.move._tag === "Push") {
      if (result._tag === "Duplicate") provenance.invalidate(step.move.blocks)
      else pushLimits.accepted()
      standoff.recordPush(step.journal)
    }
    const recorded = writer.acknowledge(step, result)
    switch (step.move._tag) {
      case "Push":
        return Effect.all([
          recorded,
          standoffOver,
          storeBreaker.succeed,
          headHandled(endpoint, step.received),
        ])
      case "Pop":
        return Effect.andThen(recorded, recordPop)
      case "Finalize":
        return recorded
    }
  }
}

export const make = (state: ChainState, suspension: Suspension, traces: BlockTraces): Submission => {
  const { events, storeBreaker } = state
  const onStoreError = (error: StoreError) =>
    Effect.gen(function* () {
      if (isUnusable(error)) return yield* suspension.haltUntilReadable(error)
      if (!storeBreaker.acceptsMoves()) return
      events.record({ _tag: "StoreAwaited", error })
      yield* storeBreaker.trip(error)
    })
  const submit = submitting(state, onStoreError)
  const acknowledge = acknowledging(state, traces)
  return {
    submit: (step) =>
      step._tag === "Move" ? submit(step, false) : Effect.succeed({ step, result: undefined }),
    acknowledge: (endpoint) => (submitted) => Effect.suspend(() => acknowledge(endpoint, submitted)),
    onStoreError,
  }
}
