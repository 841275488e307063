/**
 * What an announced header means for the journal. Pure: no clock, no requests, no Effect.
 *
 * An announcement is only a hint. Start-up, reconnect, missed heads and a store that was away are all the same case:
 * the gap is longer.
 */
import type { Header, Hex } from "../Domain.ts"
import { finalizedHead } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"

export type HeadRelation =
  /** It is our head, or a recorded block below it, or final: nothing to do. */
  | "duplicate"
  /** It is on top of our head. */
  | "extends"
  /** It is further above; what is in between says whether it is on top of our head. */
  | "gap"
  /** It is one above our head and on top of another block: our head is no longer canonical. */
  | "fork"
  /** It is another block at or below the height of our head. Perhaps the chain became shorter, perhaps the node lags. */
  | "competing"

/** @param announced the header as the provider tells it */
export const classifyHead = (
  journal: Journal,
  announced: Pick<Header, "number" | "hash" | "parentHash">,
): HeadRelation => {
  const { head } = journal
  if (announced.hash === head.hash || announced.number <= finalizedHead(journal).number) return "duplicate"
  if (announced.number === head.number + 1) {
    return head.hash === "" || announced.parentHash === head.hash ? "extends" : "fork"
  }
  if (announced.number > head.number) return "gap"
  return journal.window.some((record) => record.hash === announced.hash) ? "duplicate" : "competing"
}

/** A block whose place on the canonical chain can be asked for. */
export interface BlockRef {
  readonly number: number
  readonly hash: Hex
}

/**
 * Where to look for the block that the journal and the chain have in common: recorded blocks from the top down, and
 * the final block below them. Heights without a record held no logs, so falling below one loses nothing.
 */
export const ancestorCandidates = (journal: Journal): ReadonlyArray<BlockRef> => [
  ...journal.window.toReversed(),
  ...(journal.final ? [journal.final] : []),
]

/** The first header that is not on top of the one before it; -1 when all are linked, from `parent` on. */
export const firstBrokenLink = (
  parent: Hex | "",
  headers: ReadonlyArray<Pick<Header, "hash" | "parentHash">>,
): number => {
  let expected = parent
  return headers.findIndex((header) => {
    const linked = expected === "" || header.parentHash === expected
    expected = header.hash
    return !linked
  })
}

/** `from … to` in pieces of at most `width`, lowest first; the width is asked for before each piece. */
export const blockRanges = function* (
  from: number,
  to: number,
  width: () => number,
): Generator<readonly [number, number], void, undefined> {
  let start = from
  while (start <= to) {
    const end = Math.min(start + width() - 1, to)
    yield [start, end]
    start = end + 1
  }
}
