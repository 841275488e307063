/** Where a reader reads from: the stream of one chain, in Redis or in SQLite. */
import { numberOf } from "./Entry.ts"
import type { Entry, Head } from "./Entry.ts"

/** One consistent look at a stream. */
export interface Snapshot {
  /** `undefined` while there is no journal. */
  readonly head: Head | undefined
  /** The number of entries that are kept. */
  readonly length: number
  /** The ids of the first and the last entry that are kept; `undefined` in an empty stream. */
  readonly first: string | undefined
  readonly last: string | undefined
  /** The entries that were asked for by id, in that order. */
  readonly known: ReadonlyArray<Entry | undefined>
  /** The entries after `after`, up to and including `upTo`, not more than `count`. */
  readonly page: ReadonlyArray<Entry>
}

/** What a reader that is behind knows of entries that it reads later. */
export interface Extent {
  readonly count: number
  /** The lowest block number; `Infinity` without any entry. */
  readonly minimum: number
  readonly last: Entry | undefined
}

/** A reader's position as it is published: the ingestor does not trim what a reader has not read. */
export interface Report {
  readonly id: string
  readonly offset: number
  readonly block: number
  readonly finality: string
}

export interface Source {
  readonly name: string
  /** The id before every entry. */
  readonly lowest: string
  /** Below 0 if the first id is lower. */
  readonly compare: (one: string, other: string) => number
  /** Reads all of it at one moment. */
  readonly snapshot: (query: {
    readonly known: ReadonlyArray<string>
    readonly after: string
    /** By default up to the end. */
    readonly upTo?: string | undefined
    readonly count: number
  }) => Promise<Snapshot>
  /** Measures the entries after an id, up to and including another one, not more than `count`. */
  readonly measure: (after: string, upTo: string, count: number) => Promise<Extent>
  /** The entries at or below an id, last first, not more than `count`. */
  readonly readBack: (from: string, count: number) => Promise<ReadonlyArray<Entry>>
  /** Returns when there is an entry after this id, after this time at the latest, or when the signal aborts. */
  readonly changed: (after: string, milliseconds: number, signal: AbortSignal) => Promise<void>
  readonly report: (reader: string, report: Report) => Promise<void>
  readonly close: () => Promise<void>
}

/** The version of the journal that this library reads. */
export const knownVersion = 2

/** A failure that another attempt may not have: the connection, a server that is loading, a locked file. */
export class SourceUnavailable extends Error {
  override readonly name = "SourceUnavailable"
}

/**
 * The block from which on every entry is there. While nothing was trimmed, that is the block at which the journal begins, also if
 * its first entry is of a later one.
 */
export const firstNumberOf = (
  { added, startNumber, firstNumber = startNumber }: Head,
  { length }: Pick<Snapshot, "length">,
): number => (added <= length ? startNumber : firstNumber)

/** Measures entries that were read. */
export const extentOf = (entries: ReadonlyArray<Entry>): Extent => ({
  count: entries.length,
  minimum: entries.reduce((minimum, entry) => Math.min(minimum, numberOf(entry)), Infinity),
  last: entries.at(-1),
})
