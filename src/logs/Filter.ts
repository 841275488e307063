/** What a filter means: as `eth_getLogs` parameters, as a test of one log, and as a name that changes with it. */
import { createHash } from "node:crypto"
import type { Filter, Log } from "../Domain.ts"

/** No address and no topic: every log of every block. */
export const isUnfiltered = (filter: Filter): boolean =>
  filter.addresses.length === 0 && filter.topics.length === 0

/** The parameters of `eth_getLogs` beside the blocks. */
export const logParams = (filter: Filter): Record<string, unknown> => ({
  ...(filter.addresses.length === 0 ? undefined : { address: filter.addresses }),
  ...(filter.topics.length === 0 ? undefined : { topics: filter.topics }),
})

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

/** The same for filters that mean the same, however they are written; `none` for no filter. */
export const fingerprint = (filter: Filter): string => {
  if (isUnfiltered(filter)) return "none"
  const canonical = JSON.stringify([
    filter.addresses.toSorted(),
    filter.topics.map((alternatives) => alternatives && alternatives.toSorted()),
  ])
  return createHash("sha256").update(canonical).digest("hex").slice(0, 16)
}
