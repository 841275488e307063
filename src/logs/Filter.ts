/** A filter as a predicate on logs, and as a fingerprint. */
import { createHash } from "node:crypto"
import type { Filter, Log } from "../Domain.ts"

/** Whether the filter matches every log: no address and no topic. */
export const isUnfiltered = (filter: Filter): boolean =>
  filter.addresses.length === 0 && filter.topics.length === 0

/** Whether a node would return this log for this filter. */
export const makeMatches = (filter: Filter): ((log: Pick<Log, "contract" | "topics">) => boolean) => {
  const addresses = new Set(filter.addresses)
  const positions = filter.topics.map((alternatives) => alternatives && new Set(alternatives))
  return ({ contract, topics }) =>
    (addresses.size === 0 || addresses.has(contract)) &&
    positions.every(
      (alternatives, i) =>
        (alternatives === null || alternatives.size === 0 || alternatives.has(topics[i]!)) &&
        i < topics.length,
    )
}

const contentOf = ({ addresses, topics }: Filter): string =>
  JSON.stringify([
    addresses.toSorted(),
    topics.map((alternatives) => alternatives && alternatives.toSorted()),
  ])

/** Equal for equivalent filters, whatever their order; `none` for no filter. */
export const fingerprint = (filter: Filter): string => {
  if (isUnfiltered(filter)) return "none"
  return createHash("sha256").update(contentOf(filter)).digest("hex").slice(0, 16)
}

/** A longer filter is not described: every reader reads the description with the head (characters). */
const longestDescription = 32_768

/**
 * A filter as readers find it in the head: its fingerprint, a space, and `[addresses, topics]` as JSON. `""` if that is too long.
 */
export const description = (filter: Filter): string => {
  const text = `${fingerprint(filter)} ${contentOf(filter)}`
  return text.length > longestDescription ? "" : text
}
