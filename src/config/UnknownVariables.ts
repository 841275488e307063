/** Finds variables that were probably meant for this program but are read by no part of it. */
import { knownChains, variablePrefix } from "./Chains.ts"
import { isServiceLink } from "./Environment.ts"
import type { Variables } from "./Environment.ts"
import { chainsLike, didYouMean, nearest } from "./Suggestions.ts"

/** Says that a name in `CHAINS` is not built in, with the nearest built-in names and the list of all. */
export const unknownChain = (name: string): string => {
  const names = knownChains.map((chain) => chain.name)
  return `which is not built in${didYouMean(chainsLike(name, names))} (built in: ${names.join(", ")})`
}

/**
 * One sentence for each set variable that looks like one of ours and is not: a chain's variable for a chain that is
 * not followed (`ETHERUM_WS_URL`), an unknown end (`BASE_WS_ULR`), or a name a slip away from a known one.
 */
export const unknownVariables = (
  variables: Variables,
  known: ReadonlySet<string>,
  chains: ReadonlyArray<string>,
  chainVariables: ReadonlyArray<string>,
): ReadonlyArray<string> =>
  Object.keys(variables)
    .filter((name) => variables[name] && !known.has(name) && !name.startsWith("npm_"))
    .filter((name) => !isServiceLink(name, variables[name]!))
    .sort()
    .flatMap((name) => {
      if (name.endsWith("_FILE") && known.has(name.slice(0, -"_FILE".length)))
        return [`${name} is not used: only a secret or a URL can be in a file`]
      const end = chainVariables.find((end) => name.endsWith(`_${end}`) || name.endsWith(`_${end}_FILE`))
      const chain = chains.find((chain) => name.startsWith(`${chain}_`))
      const builtIn =
        end && knownChains.find(({ name: chain }) => name.startsWith(`${variablePrefix(chain)}_`))
      if (builtIn && !chains.includes(variablePrefix(builtIn.name)))
        return [`${name} is not used: ${builtIn.name} is not in CHAINS`]
      const guess = didYouMean(nearest(name, known, end || chain ? 3 : 2).slice(0, 1))
      if (end) return [`${name} is not used${guess || ": no such chain in CHAINS"}`]
      return guess && name.length >= 6 ? [`${name} is not used${guess}`] : []
    })
