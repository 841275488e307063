/**
 * Classifies an announced header against the journal. Pure: no clock, no requests, no Effect.
 *
 * An announcement is only a hint. Startup, a reconnect, missed heads and a store outage are all the same case: a longer
 * gap.
 */
import type { Header, Hex } from "../Domain.ts"
import { finalizedHead } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"

export type HeadRelation =
  /** It is our head, a recorded block below it, or at or below the finalized head: nothing to do. */
  | "duplicate"
  /** It is on top of our head. */
  | "extends"
  /** It is higher; the headers in between determine whether it extends our head. */
  | "gap"
  /** It is one above our head and has another parent: our head is no longer canonical. */
  | "fork"
  /** It is another block at or below the height of our head. The chain may have become shorter, or the node lags. */
  | "competing"

/** @param announced the header as the provider announced it */
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

/** A block by height and hash. */
export interface BlockRef {
  readonly number: number
  readonly hash: Hex
}

/**
 * Candidates for the common ancestor of the journal and the chain: recorded blocks from the top down, then the finalized
 * block. Heights without a record held no logs, so an ancestor below one loses nothing.
 */
export const ancestorCandidates = (journal: Journal): ReadonlyArray<BlockRef> => [
  ...journal.window.toReversed(),
  ...(journal.final ? [journal.final] : []),
]

/** The index of the first header whose parent is not the previous one, from `parent` on; -1 if all are linked. */
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

/** Splits `from … to` into ranges of at most `width` blocks, lowest first; `width` is evaluated before each range. */
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
