/** Whether a majority of the endpoints agrees on a final block. Pure. */
import type { Hex } from "../Domain.ts"

/** What the connected endpoints serve at the height of a block that is final at the endpoint in use. */
export type FinalVerdict =
  /** All agree, or the majority of three or more: `others` are outvoted. */
  | { readonly _tag: "Agreed"; readonly others: ReadonlyArray<string> }
  /** A majority of three or more serves another block. */
  | { readonly _tag: "Outvoted" }
  /** Neither side has a majority. */
  | { readonly _tag: "Split"; readonly others: ReadonlyArray<string> }

/** The block that an endpoint serves at that height. */
export interface Vote {
  readonly name: string
  readonly hash: Hex
}

/**
 * @param hash the block that is final at the endpoint in use
 * @param votes what the other endpoints serve; an endpoint without a block at that height has no vote
 * @param absent endpoints that disagreed recently and are not connected now: they count as disagreeing
 */
export const finalVerdict = (
  hash: Hex,
  votes: ReadonlyArray<Vote>,
  absent: ReadonlyArray<string> = [],
): FinalVerdict => {
  const others = [...votes.flatMap((vote) => (vote.hash === hash ? [] : [vote.name])), ...absent]
  const voters = votes.length + 1 + absent.length
  if (voters - others.length > voters / 2) return { _tag: "Agreed", others }
  const sizes = [...Map.groupBy(votes, (vote) => vote.hash)].map(([of, all]) =>
    of === hash ? 0 : all.length,
  )
  return Math.max(0, ...sizes) > voters / 2 ? { _tag: "Outvoted" } : { _tag: "Split", others }
}

/** Endpoints that served different final blocks, and when they last did (monotonic milliseconds). It outlives connections. */
export interface Disagreed {
  endpoints: ReadonlyArray<string>
  at: number
}

/** Endpoints that serve different blocks at a final height. */
export interface Disagreement {
  readonly number: number
  readonly endpoints: ReadonlyArray<string>
  /** Whether finality waits until they agree; otherwise the majority decides. */
  readonly holds: boolean
}
