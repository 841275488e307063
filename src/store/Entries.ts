/** The contract between readers and a store: the entries of a chain, in order. */
import { Context, Effect, Option, Stream } from "effect"
import type { ChainId, Entry } from "../Domain.ts"
import type { StoreError } from "./StoreError.ts"

/** An entry with the id that the store gave it. Ids rise. */
export interface Stored {
  readonly id: string
  readonly entry: Entry
}

export class Entries extends Context.Service<
  Entries,
  {
    /**
     * The entries after an id, page by page, up to the last one that is stored; from the oldest when `after` is `undefined`.
     * A page is read when it is pulled.
     */
    readonly after: (chain: ChainId, after?: string) => Stream.Stream<Stored, StoreError>
    /** The id after which reading replays the chain from this block on; `undefined` for the very beginning. */
    readonly seek: (chain: ChainId, block: number) => Effect.Effect<string | undefined, StoreError>
  }
>()("event-ingestor/store/Entries") {}

/**
 * Bisects for the last place below a block, between the places of the first and the last entry.
 *
 * @param entryFrom reads the place and the block of the first entry at or after a place
 * @returns `undefined` if the first entry is not below the block
 */
export const lastBelow = Effect.fnUntraced(function* (
  block: number,
  first: number,
  last: number,
  entryFrom: (
    place: number,
  ) => Effect.Effect<{ readonly place: number; readonly block: number } | undefined, StoreError>,
) {
  let [low, high] = [first, last]
  while (low <= high) {
    const middle = Math.floor((low + high) / 2)
    const found = yield* entryFrom(middle)
    if (found === undefined || found.block >= block) high = middle - 1
    else low = found.place + 1
  }
  return high < first ? undefined : high
})

/** The maximum of entries that a store reads at once. */
export const pageSize = 1000

/** Reads page after page, until one is not full. @param read reads up to `pageSize` entries after an id */
export const paged = (
  read: (after: string | undefined) => Effect.Effect<ReadonlyArray<Stored>, StoreError>,
  after: string | undefined,
): Stream.Stream<Stored, StoreError> =>
  Stream.paginate(after, (after) =>
    Effect.map(read(after), (page) => [
      page,
      page.length < pageSize ? Option.none() : Option.some(page.at(-1)!.id),
    ]),
  )
