/**
 * The contract of a store: it remembers each chain's journal and publishes it, with one atomic step per move.
 *
 * The store is the arbiter. A move names the head it expects. If the head has moved, the answer is the actual head and the
 * caller reloads the journal. This single comparison makes resends, crashes between two moves and several ingestors on one
 * chain harmless.
 */
import { Context, Schema } from "effect"
import type { Effect } from "effect"
import type { ChainId, Entry } from "../Domain.ts"
import { journalVersion } from "./Journal.ts"
import type { Trimmed, DelayingReader } from "./Retention.ts"
import type { CallLimits, Conflict, FilterChanged, Finalize, Journal, Pop, Push } from "./Journal.ts"

/**
 * Why a store failed. Every reason is worth a retry, and none loses data. `newer`: a later release wrote this chain's
 * journal.
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
    return `store ${this.operation} failed (${this.reason}): ${this.detail}`
  }
}

/** The journal has a version that this release does not know, so this release neither reads nor writes it. */
export const newerJournal = (operation: string, version: number): StoreError =>
  new StoreError({
    operation,
    reason: "newer",
    detail: `the journal has version ${version} and this release writes version ${journalVersion}: run the release that wrote it, or a later one`,
  })

/** A chain's head, window and stream contradict each other: another program changed what is stored. */
export const corruptJournal = (chain: ChainId, why: string): StoreError =>
  new StoreError({
    operation: "load",
    reason: "corrupt",
    detail: `the stored journal of chain ${chain} is inconsistent: ${why}. Restore what is missing, or start over with event-ingestor reset`,
  })

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

/** An entry with the id that the store gave it. Ids rise. */
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
  /** Entries not delivered yet; `undefined` when the server does not report it and they are too many to count. */
  readonly lag: number | undefined
  /** Seconds since a consumer last asked for entries; only set with pending entries, if the server reports it. */
  readonly idle: number | undefined
  readonly lastDelivered: string
  /** Entries that were trimmed before they were delivered to the group. */
  readonly missed: number
}

/** A reader that publishes its position. */
export interface Reader {
  readonly name: string
  /** The last entry that it has read. */
  readonly id: string
  /** The block of that entry. */
  readonly block: number | undefined
  /** When it published that (unix seconds). */
  readonly seen: number | undefined
  /** Entries that it has not read; `undefined` when they are too many to count. */
  readonly lag: number | undefined
  /** Entries that were trimmed before it read them. */
  readonly missed: number
}

/**
 * Within an epoch only `removed` entries retract anything. `begun`: the first epoch. `lost`: the store lost entries.
 * `reset`: an operator started over.
 */
export interface Epoch {
  /** Opaque: only compared for equality. */
  readonly token: string
  readonly reason: "begun" | "lost" | "reset"
}

export interface Stats {
  readonly entries: number
  /** Entries of this journal that are gone: trimmed, or deleted by another program. */
  readonly trimmed: number
  /** Entries of an earlier journal, one that was reset. */
  readonly previous: number
  readonly firstId: string | undefined
  readonly lastId: string | undefined
  /** From this block on every entry is stored. */
  readonly firstNumber: number | undefined
  readonly epoch: Epoch | undefined
  /** The memory of the entries, if the store reports it per chain. */
  readonly bytes: number | undefined
  readonly groups: ReadonlyArray<Group>
  readonly readers: ReadonlyArray<Reader>
  /** The pinned reader that delays trimming, if there is one. */
  readonly holder: DelayingReader | undefined
  /** Whether publishing is paused for it. */
  readonly paused: boolean
  /** Seconds since the last heartbeat of an ingestor, which is written every ten seconds; `undefined` before the first. */
  readonly aliveAgo: number | undefined
}

/** What an operator should know about the store itself. */
export interface Info {
  /** `redis 7.0.15`, `sqlite 3.53.4`. */
  readonly version: string
  /** The size of everything that it holds, in bytes. */
  readonly bytes: number | undefined
  /** 0: no limit. */
  readonly limit: number | undefined
  /** Redis' `maxmemory-policy`. An `allkeys-…` policy may delete journals (our keys never expire). */
  readonly evictionPolicy: string | undefined
  /** How writes survive a crash, in a few words. */
  readonly persistence: string | undefined
}

/** A command that the service uses and the store refuses. */
export interface Refused {
  /** The command, or a library of scripts. */
  readonly name: string
  /** The store's error message. */
  readonly detail: string
  /** What does not work without it; `undefined`: nothing can be written without it. */
  readonly lost: string | undefined
}

/** What remains after a `reset`. */
export interface ResetOptions {
  /** Where the journal starts again; `undefined`: as if the chain had never been ingested. */
  readonly from: number | undefined
  readonly filter: string
  /** Whether its entries are deleted too. */
  readonly delete: boolean
}

export class Store extends Context.Service<
  Store,
  {
    /** Where the store is, for people: `sqlite ./data/events.db`. No secrets. */
    readonly description: string
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
    /** Continues a journal with another filter. A block that is partially written under the old filter will be retracted. */
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
     * @param exactly `false`: entries that other programs deleted need not be noticed. SQLite then counts nothing, which
     *   takes seconds with a hundred million entries
     */
    readonly stats: (chain: ChainId, exactly?: boolean) => Effect.Effect<Stats, StoreError>
    /**
     * Trims entries beyond the configured length, as far as neither the window nor a pinned reader needs them, and counts
     * the entries that other readers have missed. Pauses and resumes publishing.
     */
    readonly trim: (chain: ChainId) => Effect.Effect<Trimmed, StoreError>
    /** Deletes a chain's head and window. */
    readonly reset: (chain: ChainId, options: ResetOptions) => Effect.Effect<void, StoreError>
    /** Tries the commands that the service uses, on keys of its own that it deletes. Returns those that are refused. */
    readonly refused: (chain: ChainId) => Effect.Effect<ReadonlyArray<Refused>, StoreError>
    /** The store's version and settings. */
    readonly info: Effect.Effect<Info, StoreError>
  }
>()("event-ingestor/store/Store") {}

/** Whether a `maxmemory-policy` of Redis evicts streams. `volatile-…` evicts only keys that expire, and ours do not. */
export const evictsStreams = (policy: string | undefined): boolean =>
  policy !== undefined && policy !== "noeviction" && !policy.startsWith("volatile-")
