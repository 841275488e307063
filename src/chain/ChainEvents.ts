/**
 * What happens to a chain, as one union. The pipeline publishes each event once; `observability/` folds it into the status,
 * the metrics, the log and the traces.
 */
import { Context } from "effect"
import type { Cause, Effect } from "effect"
import type { Header } from "../Domain.ts"
import type { ErrorType } from "../endpoint/EndpointError.ts"
import type { EndpointEvent, SilentEndpointEvent } from "../endpoint/EndpointEvent.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"
import type { Finalize, Journal, Pop, Push } from "../store/Journal.ts"
import type { StoreBreaker } from "../store/StoreBreaker.ts"
import type { StoreEvent } from "../store/StoreEvent.ts"
import type { Disagreement } from "../endpoint/FinalityQuorum.ts"
import type { EpochCheck } from "../store/JournalStore.ts"
import type { StoreError } from "../store/StoreError.ts"

/** The store operations whose duration is recorded. */
export const operations = ["load", "push", "pop", "finalize"] as const

export type Operation = (typeof operations)[number]

/** Events without a line in the log. */
export type SilentEvent =
  | SilentEndpointEvent
  | { readonly _tag: "ChainStarted"; readonly storeBreaker: StoreBreaker }
  /** The chain is followed over this endpoint. */
  | { readonly _tag: "EndpointFollowed"; readonly endpoint: string }
  /** The endpoint reported this block as final. */
  | { readonly _tag: "FinalAnnounced"; readonly header: Header }
  /** Everything that an announced head led to is stored. `head`: absent where it changed nothing. */
  | { readonly _tag: "HeadHandled"; readonly head: ReceivedHead | undefined }
  /** The journal is loaded, and the chain is followed from there. */
  | { readonly _tag: "Following" }
  | { readonly _tag: "MoveSubmitted"; readonly move: Push | Pop | Finalize }
  | { readonly _tag: "MoveEnded" }
  | { readonly _tag: "Pushed"; readonly push: Push; readonly isDuplicate: boolean }
  /** `missing`: entries that another program had deleted, so that they could not be retracted. */
  | { readonly _tag: "Popped"; readonly pop: Pop; readonly removed: number; readonly missing: number }
  | { readonly _tag: "Finalized"; readonly number: number }
  | { readonly _tag: "StoreAnswered"; readonly operation: Operation; readonly seconds: number }
  /** The store accepts no moves, and the chain waits for it. */
  | { readonly _tag: "StoreAwaited"; readonly error: StoreError | undefined }
  /** Logs that the audit found missing (and added) or extra (and retracted). */
  | { readonly _tag: "Corrected"; readonly missing: number; readonly extra: number }
  /** Finalized blocks that were not audited. */
  | { readonly _tag: "Unaudited"; readonly blocks: number }

export type ChainEvent =
  | SilentEvent
  | EndpointEvent
  | StoreEvent
  /** In a fleet: this replica begins to follow the chain, or another one follows it now. */
  | { readonly _tag: "FollowedHere" }
  | { readonly _tag: "FollowedElsewhere" }
  /** A failure outside of a connection: the chain is restarted. */
  | { readonly _tag: "ChainFailed"; readonly cause: Cause.Cause<unknown> }
  // The journal.
  /** `begins`: the start block, where nothing is stored yet and the start block is known. */
  | {
      readonly _tag: "JournalLoaded"
      readonly journal: Journal | undefined
      readonly begins: number | undefined
      readonly filter: string
    }
  /** The first push of an empty store: the journal begins at this block. */
  | { readonly _tag: "JournalBegun"; readonly block: number; readonly filter: string }
  /** The filter applies from this block on. */
  | { readonly _tag: "FilterChanged"; readonly block: number; readonly filter: string }
  /** `depth`: how many blocks were replaced, from block `from` down, with or without logs. */
  | {
      readonly _tag: "Reorged"
      readonly depth: number
      readonly from: number
      readonly blocks: number
      readonly entries: number
    }
  /** `stood`: the block at which the store was last seen; `stored`: the block at which it is now. */
  | {
      readonly _tag: "EpochBegun"
      readonly outcome: Exclude<EpochCheck["outcome"], "kept">
      readonly stood: number | undefined
      readonly stored: number | undefined
    }
  // Contradictions between endpoints, or between ingestors.
  | { readonly _tag: "ClockSkewed"; readonly endpoint: string; readonly header: Header }
  /** An answer of this endpoint was proved wrong. */
  | { readonly _tag: "Contradicted"; readonly endpoint: string; readonly detail: string }
  /** Endpoints disagree about a final block; `undefined`: they agree. */
  | { readonly _tag: "FinalDisagreement"; readonly disagreement: Disagreement | undefined }
  /** Blocks that another ingestor replaced are not written again for this many milliseconds; 0: the wait is over. */
  | { readonly _tag: "Standoff"; readonly wait: number }
  | { readonly _tag: "Halted"; readonly type: ErrorType; readonly reason: string }
  | { readonly _tag: "HaltOver"; readonly why: string }
  /** Another ingestor continues the journal with another filter. */
  | { readonly _tag: "Superseded"; readonly filter: string; readonly message: string }

export interface Publisher {
  /** Publishes an event. Call it once per event, in the fiber of the chain, whose log annotations apply. */
  readonly publish: (event: ChainEvent) => Effect.Effect<void>
  /** Publishes an event without a line in the log. Synchronous, so also for callbacks of a socket. */
  readonly record: (event: SilentEvent) => void
}

/** Publishes the events of a chain, by its name. */
export class ChainEvents extends Context.Service<
  ChainEvents,
  { readonly of: (chain: string) => Publisher }
>()("event-ingestor/ChainEvents") {}
