/**
 * The contract of a store: it remembers each chain's journal and publishes it, in one atomic step a move.
 *
 * The store is the arbiter. A move names the head it expects; whoever is late is told the real one and reads the
 * journal again. That one comparison makes resends, crashes between two moves and several ingestors on one chain
 * harmless.
 */
import { Context, Schema } from "effect"
import type { Effect } from "effect"
import type { ChainId, Entry } from "../Domain.ts"
import { journalVersion } from "./Journal.ts"
import type { Trimmed, Waiting } from "./Retention.ts"
import type { CallLimits, Finalize, Journal, Pop, Position, Push } from "./Journal.ts"

/**
 * Why a store could not answer. Every reason is worth another try, and none of them loses anything. `newer`: a later
 * release wrote this chain's journal.
 */
export const StoreReason = Schema.Literals([
  "unreachable",
  "timeout",
  "read-only",
  "full",
  "loading",
  "refused",
  "corrupt",
  "newer",
])
export type StoreReason = typeof StoreReason.Type

export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.String,
  reason: StoreReason,
  detail: Schema.String,
}) {
  override get message() {
    return `the store did not ${this.operation} (${this.reason}): ${this.detail}`
  }
}

/** The journal is of a version that this release does not know, so it neither writes nor reads its head. */
export const newerJournal = (operation: string, version: number): StoreError =>
  new StoreError({
    operation,
    reason: "newer",
    detail: `the journal is of version ${version} and this release writes version ${journalVersion}: run the release that wrote it, or a later one`,
  })

/** A chain's head, window and stream do not belong together: what is stored of it was changed by somebody else. */
export const corruptJournal = (chain: ChainId, why: string): StoreError =>
  new StoreError({
    operation: "load",
    reason: "corrupt",
    detail: `what is stored of chain ${chain} does not fit together: ${why}. Bring back what is missing, or begin anew with event-ingestor reset`,
  })

/** The head is another one (`undefined`: the store knows nothing of this chain). */
export interface Conflict {
  readonly _tag: "Conflict"
  readonly head: Position | undefined
}

/** The journal belongs to another filter now. */
export interface FilterChanged {
  readonly _tag: "FilterChanged"
  readonly filter: string
}

/** An entry that the store has acknowledged: its id, which log of which block it is, removed or not, and its epoch. */
export interface Acknowledged {
  readonly id: string
  readonly identity: string
  readonly epoch: string
}

/** What a move has added to a stream. */
export interface Added {
  /** The last entry … */
  readonly last: Acknowledged
  /** … and the one before the first, if there was any: whoever knows another one has not seen all that was done. */
  readonly previous: Acknowledged | undefined
}

/** What an ingestor knows of a journal; by it is seen whether the store has lost entries. */
export interface Known {
  /** The last entry it knows of; `undefined` before the first. */
  readonly last: Acknowledged | undefined
  /** Epochs before this one. */
  readonly before: ReadonlyArray<string>
}

/**
 * What became of what was known. `kept`: the entry is there, or was trimmed. `lost`: the store has lost it, and a new epoch
 * begins. `emptied`: nothing is there any more. `new epoch`: somebody else has said so, or it is a reset.
 */
export interface EpochCheck {
  readonly outcome: "kept" | "lost" | "emptied" | "new epoch"
  readonly known: Known
}

export type PushResult =
  /** `added`: where it added entries. */
  | { readonly _tag: "Pushed"; readonly added?: Added }
  /** All of it was there already. */
  | { readonly _tag: "Duplicate" }
  /** A pinned reader is too far behind: nothing is published to this stream until it has read on, or is gone. */
  | { readonly _tag: "Paused" }
  | Conflict
  | FilterChanged

export type PopResult =
  /** `missing`: entries that somebody had deleted, so that no `removed` copy could be written. */
  | {
      readonly _tag: "Popped"
      readonly removed: number
      readonly missing: number
      readonly added?: Added
    }
  | Conflict
  | FilterChanged

export type FinalizeResult = { readonly _tag: "Finalized" } | Conflict | FilterChanged

/** An entry with the store's own id, which rises. */
export interface Stored {
  readonly id: string
  readonly entry: Entry
}

/** A consumer group of a stream. */
export interface Group {
  readonly name: string
  readonly consumers: number
  /** Entries delivered to a consumer and not acknowledged. */
  readonly pending: number
  /** Entries not delivered yet; `undefined` where the server cannot tell, and they are too many to be counted. */
  readonly lag: number | undefined
  /** Seconds since a consumer asked for entries; only where entries are pending, and the server tells. */
  readonly idle: number | undefined
  readonly lastDelivered: string
  /** Entries that were trimmed before they were delivered to it. */
  readonly missed: number
}

/** A reader that tells where it is. */
export interface Reader {
  readonly name: string
  /** The last entry that it has read, … */
  readonly id: string
  /** … and the block of that entry. */
  readonly block: number | undefined
  /** When it said so (unix seconds). */
  readonly seen: number | undefined
  /** Entries that it has not read; `undefined` where they are too many to be counted. */
  readonly lag: number | undefined
  /** Entries that were trimmed before it read them. */
  readonly missed: number
}

/**
 * Within an epoch nothing is taken back but by `removed` entries. `begun`: the first. `lost`: the store lost entries.
 * `reset`: an operator began anew.
 */
export interface Epoch {
  /** Opaque: compared for equality only. */
  readonly token: string
  readonly reason: "begun" | "lost" | "reset"
}

export interface Stats {
  readonly entries: number
  /** Entries of this journal that are gone: trimmed, or deleted by somebody. */
  readonly trimmed: number
  /** Entries before this journal's: of one that was reset. */
  readonly previous: number
  readonly firstId: string | undefined
  readonly lastId: string | undefined
  /** From this block on every entry is kept. */
  readonly firstNumber: number | undefined
  readonly epoch: Epoch | undefined
  /** What they take, where the store can tell for one chain. */
  readonly bytes: number | undefined
  readonly groups: ReadonlyArray<Group>
  readonly readers: ReadonlyArray<Reader>
  /** The pinned reader that trimming waits for, if it does. */
  readonly holder: Waiting | undefined
  /** Whether publishing is paused for it. */
  readonly paused: boolean
  /** How many seconds ago an ingestor said that it is alive, which each does every ten; `undefined`: none ever did. */
  readonly aliveAgo: number | undefined
}

/** What an operator should know of the store itself. */
export interface Info {
  /** `redis 7.0.15`, `sqlite 3.53.4`. */
  readonly version: string
  /** All that it holds takes, in bytes. */
  readonly bytes: number | undefined
  /** 0: no limit. */
  readonly limit: number | undefined
  /** Redis' `maxmemory-policy`; an `allkeys-…` one may delete what is needed (our keys never expire). */
  readonly evictionPolicy: string | undefined
  /** How writes survive a crash, in a few words. */
  readonly persistence: string | undefined
}

/** Something that the service uses, and the store refuses. */
export interface Refused {
  /** A command, or a library of scripts. */
  readonly name: string
  /** What the store says. */
  readonly detail: string
  /** What there is not without it; `undefined`: nothing can be written without it. */
  readonly lost: string | undefined
}

/** What `reset` leaves behind. */
export interface ResetOptions {
  /** Where the journal begins again; `undefined`: as if the chain had never been seen. */
  readonly from: number | undefined
  readonly filter: string
  /** Whether its entries go too. */
  readonly delete: boolean
}

export class Store extends Context.Service<
  Store,
  {
    /** What is written where, for people: `sqlite ./data/events.db`. No secrets. */
    readonly description: string
    /** How much a move carries. */
    readonly limits: CallLimits
    /** Writes where the chain's moves go; fails, soon, while the store cannot take that. */
    readonly ping: (chain: ChainId) => Effect.Effect<void, StoreError>
    /** The journal of a chain, or `undefined` when nothing was ever pushed. */
    readonly load: (chain: ChainId) => Effect.Effect<Journal | undefined, StoreError>
    /** What is pushed belongs to the caller again once there is an answer: a store must not keep it. */
    readonly push: (chain: ChainId, filter: string, push: Push) => Effect.Effect<PushResult, StoreError>
    /** Undoes the block on top, or as much of it as one call undoes. */
    readonly pop: (chain: ChainId, filter: string, pop: Pop) => Effect.Effect<PopResult, StoreError>
    /** Raises the floor of the window. */
    readonly finalize: (
      chain: ChainId,
      filter: string,
      finalize: Finalize,
    ) => Effect.Effect<FinalizeResult, StoreError>
    /**
     * Whether the store still has what is known of it. Where it has lost entries, a new epoch begins: one, whoever of several
     * ingestors is the first to see it.
     */
    readonly checkEpoch: (chain: ChainId, known: Known | undefined) => Effect.Effect<EpochCheck, StoreError>
    /** Continues a journal with another filter. A block that was half written under the old one will be undone. */
    readonly changeFilter: (chain: ChainId, filter: string) => Effect.Effect<void, StoreError>
    /** Up to `limit` entries after an id, in order; from the oldest when `after` is `undefined`. */
    readonly read: (
      chain: ChainId,
      after: string | undefined,
      limit: number,
    ) => Effect.Effect<ReadonlyArray<Stored>, StoreError>
    /** The id after which reading replays the chain from this block on; `undefined` for the very beginning. */
    readonly seek: (chain: ChainId, block: number) => Effect.Effect<string | undefined, StoreError>
    /**
     * @param exactly `false`: what others deleted need not be noticed. SQLite then has nothing to count, which with a
     *   hundred million entries takes seconds
     */
    readonly stats: (chain: ChainId, exactly?: boolean) => Effect.Effect<Stats, StoreError>
    /**
     * Removes entries beyond the configured length, as far as neither the window nor a pinned reader needs them, and counts
     * what others have not read. Publishing pauses here, and goes on.
     */
    readonly trim: (chain: ChainId) => Effect.Effect<Trimmed, StoreError>
    /** Forgets a chain's head and window. */
    readonly reset: (chain: ChainId, options: ResetOptions) => Effect.Effect<void, StoreError>
    /** Tries what the service uses, without touching what is stored and leaving nothing behind. Answers what is refused. */
    readonly refused: (chain: ChainId) => Effect.Effect<ReadonlyArray<Refused>, StoreError>
    /** What the store itself is, and how it is set up. */
    readonly info: Effect.Effect<Info, StoreError>
  }
>()("event-ingestor/store/Store") {}

/** Whether a `maxmemory-policy` of Redis deletes streams. `volatile-…` deletes keys that expire, and ours do not. */
export const evictsStreams = (policy: string | undefined): boolean =>
  policy !== undefined && policy !== "noeviction" && !policy.startsWith("volatile-")
