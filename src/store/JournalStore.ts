/**
 * The contract between the pipeline and a store: it remembers each chain's journal and publishes it, with one atomic step
 * per move.
 *
 * The store is the arbiter. A move names the head it expects. If the head has moved, the answer is the actual head and the
 * caller reloads the journal. This single comparison makes resends, crashes between two moves and several ingestors on one
 * chain harmless.
 */
import { Context } from "effect"
import type { Effect } from "effect"
import type { ChainId } from "../Domain.ts"
import type { CallLimits, Conflict, FilterChanged, Finalize, Journal, Pop, Push } from "./Journal.ts"
import type { Trimmed } from "./Retention.ts"
import type { StoreError } from "./StoreError.ts"

/** An entry that the store has acknowledged: its id, its identity (block hash, log index, removed) and its epoch. */
export interface Acknowledged {
  readonly id: string
  readonly identity: string
  readonly epoch: string
}

/** The entries that a move has appended. */
export interface Added {
  /** The last of them. */
  readonly last: Acknowledged
  /** The entry before the first of them, if any. An ingestor whose last known entry is another one has missed entries. */
  readonly previous: Acknowledged | undefined
}

/** What an ingestor remembers of a journal, so that it detects when the store has lost entries. */
export interface Known {
  /** The last acknowledged entry; `undefined` before the first. */
  readonly last: Acknowledged | undefined
  /** Earlier epochs. */
  readonly before: ReadonlyArray<string>
}

/**
 * The result of an epoch check. `kept`: the entry is stored, or was trimmed. `lost`: the store has lost it, and a new epoch
 * begins. `emptied`: nothing is stored. `new epoch`: another ingestor has begun one, or the journal was reset.
 */
export interface EpochCheck {
  readonly outcome: "kept" | "lost" | "emptied" | "new epoch"
  readonly known: Known
}

export type PushResult =
  /** `added`: set if it has appended entries. */
  | { readonly _tag: "Pushed"; readonly added?: Added }
  /** All of it was already written. */
  | { readonly _tag: "Duplicate" }
  /** A pinned reader is too far behind: nothing is published to this stream until it catches up or is released. */
  | { readonly _tag: "Paused" }
  | Conflict
  | FilterChanged

export type PopResult =
  /** `missing`: entries that another program had deleted, so that no `removed` copy could be written. */
  | {
      readonly _tag: "Popped"
      readonly removed: number
      readonly missing: number
      readonly added?: Added
    }
  | Conflict
  | FilterChanged

export type FinalizeResult = { readonly _tag: "Finalized" } | Conflict | FilterChanged

export class JournalStore extends Context.Service<
  JournalStore,
  {
    /** How much a move carries. */
    readonly limits: CallLimits
    /** Writes where the chain's moves go. Fails quickly while the store cannot accept them. */
    readonly ping: (chain: ChainId) => Effect.Effect<void, StoreError>
    /** The journal of a chain, or `undefined` if nothing was ever pushed. */
    readonly load: (chain: ChainId) => Effect.Effect<Journal | undefined, StoreError>
    /** After the answer the push belongs to the caller again: a store must not keep a reference to it. */
    readonly push: (chain: ChainId, filter: string, push: Push) => Effect.Effect<PushResult, StoreError>
    /** Retracts the top block, or as many of its logs as fit into one call. */
    readonly pop: (chain: ChainId, filter: string, pop: Pop) => Effect.Effect<PopResult, StoreError>
    /** Moves the finalized head up. */
    readonly finalize: (
      chain: ChainId,
      filter: string,
      finalize: Finalize,
    ) => Effect.Effect<FinalizeResult, StoreError>
    /**
     * Checks whether the store still has the last known entry. If it has lost entries, a new epoch begins: exactly one, also
     * when several ingestors detect the loss.
     */
    readonly checkEpoch: (chain: ChainId, known: Known | undefined) => Effect.Effect<EpochCheck, StoreError>
    /**
     * Continues a journal with another filter. A block that is partially written under the old filter will be retracted.
     *
     * `outdated`: nothing was changed, because the filter is older than that of the journal. It is if its `CONFIG_VERSION` is
     * lower than the one that the journal was last changed with, or, where one of the two is unknown or both are the same, if it
     * is one of the last 20 that were replaced. A known version is newer than none.
     *
     * @param description the filter as readers see it (`Filter.description`)
     */
    readonly changeFilter: (
      chain: ChainId,
      filter: string,
      description?: string,
      configVersion?: number,
    ) => Effect.Effect<"changed" | "outdated", StoreError>
    /**
     * Trims entries beyond the configured length, as far as neither the window nor a pinned reader needs them, and counts
     * the entries that other readers have missed. Pauses and resumes publishing.
     *
     * @param filter the description of the filter (`Filter.description`). It is stored if the journal has this filter, so that
     *   readers know what the stream contains
     */
    readonly trim: (chain: ChainId, filter?: string) => Effect.Effect<Trimmed, StoreError>
  }
>()("event-ingestor/store/JournalStore") {}
