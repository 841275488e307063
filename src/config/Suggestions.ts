/** "Did you mean" for names with a typing error. */
import { distance } from "fastest-levenshtein"

/** The candidates with the fewest edits of the name, if they are few enough. */
export const nearest = (
  name: string,
  candidates: Iterable<string>,
  within: number,
): ReadonlyArray<string> => {
  const all = [...candidates].map((candidate) => ({ candidate, edits: distance(name, candidate) }))
  const fewest = Math.min(...all.map(({ edits }) => edits))
  return fewest > within ? [] : all.filter(({ edits }) => edits === fewest).map(({ candidate }) => candidate)
}

/** The chains that a name may mean: by a typing error (a third of it), or by its beginning (`eth`). */
export const chainsLike = (name: string, chains: ReadonlyArray<string>): ReadonlyArray<string> => {
  const similar = nearest(name, chains, Math.max(1, Math.floor(name.length / 3)))
  return similar.length > 0 || name.length < 2 ? similar : chains.filter((chain) => chain.startsWith(name))
}

/** `; did you mean a or b?`; empty without suggestions. */
export const didYouMean = (suggestions: ReadonlyArray<string>): string =>
  suggestions.length === 0 ? "" : `; did you mean ${suggestions.join(" or ")}?`
