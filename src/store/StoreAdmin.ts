/** The contract between operators and a store: its figures, its settings, and starting over. */
import { Context } from "effect"
import type { Effect } from "effect"
import type { ChainId } from "../Domain.ts"
import type { DelayingReader } from "./Retention.ts"
import type { StoreError } from "./StoreError.ts"

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

export class StoreAdmin extends Context.Service<
  StoreAdmin,
  {
    /** Where the store is, for people: `sqlite ./data/events.db`. No secrets. */
    readonly description: string
    /**
     * @param exactly `false`: entries that other programs deleted need not be noticed. SQLite then counts nothing, which
     *   takes seconds with a hundred million entries
     */
    readonly stats: (chain: ChainId, exactly?: boolean) => Effect.Effect<Stats, StoreError>
    /** Deletes a chain's head and window. */
    readonly reset: (chain: ChainId, options: ResetOptions) => Effect.Effect<void, StoreError>
    /** Tries the commands that the service uses, on keys of its own that it deletes. Returns those that are refused. */
    readonly refused: (chain: ChainId) => Effect.Effect<ReadonlyArray<Refused>, StoreError>
    /** The store's version and settings. */
    readonly info: Effect.Effect<Info, StoreError>
  }
>()("event-ingestor/store/StoreAdmin") {}

/** Whether a `maxmemory-policy` of Redis evicts streams. `volatile-…` evicts only keys that expire, and ours do not. */
export const evictsStreams = (policy: string | undefined): boolean =>
  policy !== undefined && policy !== "noeviction" && !policy.startsWith("volatile-")
