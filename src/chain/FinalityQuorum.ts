/** Whether endpoints agree about a final block. Pure. */
import type { Hex } from "../Domain.ts"

/** What the endpoints that can be asked show at the height of a block that is final at the endpoint in use. */
export type FinalVerdict =
  /** All agree, or the majority of three or more: `others` are outvoted. */
  | { readonly _tag: "Agreed"; readonly others: ReadonlyArray<string> }
  /** A majority of three or more shows another block. */
  | { readonly _tag: "Outvoted" }
  /** Neither side has a majority. */
  | { readonly _tag: "Split"; readonly others: ReadonlyArray<string> }

/** The block that an endpoint shows at that height. */
export interface Vote {
  readonly name: string
  readonly hash: Hex
}

/**
 * @param hash the block that is final at the endpoint in use
 * @param votes what the other endpoints show; one that does not show the height has no vote
 * @param away endpoints that disagreed a while ago and cannot be asked now: they count as if they still did
 */
export const finalVerdict = (
  hash: Hex,
  votes: ReadonlyArray<Vote>,
  away: ReadonlyArray<string> = [],
): FinalVerdict => {
  const others = [...votes.flatMap((vote) => (vote.hash === hash ? [] : [vote.name])), ...away]
  const voters = votes.length + 1 + away.length
  if (voters - others.length > voters / 2) return { _tag: "Agreed", others }
  const sizes = [...Map.groupBy(votes, (vote) => vote.hash)].map(([of, all]) =>
    of === hash ? 0 : all.length,
  )
  return Math.max(0, ...sizes) > voters / 2 ? { _tag: "Outvoted" } : { _tag: "Split", others }
}

/** Endpoints that showed different final blocks, and when they did last (monotonic milliseconds). It outlives connections. */
export interface Disagreed {
  endpoints: ReadonlyArray<string>
  at: number
}
