/** What a reader asks for, compared with logs and with the ingestor's filter. */
import type { Log } from "./Entry.ts"
import { FilterError } from "./Errors.ts"

/** The topic0 of an event, and how many topics its logs have. */
export interface EventTopic {
  readonly topic0: string
  readonly topics: number
}

/** What a reader asks for. Without addresses: of any contract; without events: any event. */
export interface Asked {
  readonly addresses: ReadonlyArray<string>
  readonly events: ReadonlyArray<EventTopic>
}

/** Whether a log is asked for. */
export const makeMatches = ({ addresses, events }: Asked): ((log: Log) => boolean) => {
  const contracts = new Set(addresses.map((address) => address.toLowerCase()))
  const known = new Set(events.map(({ topic0, topics }) => `${topic0}:${topics}`))
  return ({ contract, topics }) =>
    (contracts.size === 0 || contracts.has(contract)) &&
    (known.size === 0 || known.has(`${topics[0]}:${topics.length}`))
}

/** The ingestor's filter: addresses, and for each topic the alternatives. */
type Content = readonly [
  addresses: ReadonlyArray<string>,
  topics: ReadonlyArray<ReadonlyArray<string> | null>,
]

const includes = (all: ReadonlyArray<string> | null | undefined, some: ReadonlyArray<string>) =>
  all === null ||
  all === undefined ||
  all.length === 0 ||
  (some.length > 0 && some.every((one) => all.includes(one)))

/**
 * Checks that the ingestor's filter includes all that a reader asks for.
 *
 * @param content the filter as JSON, `[addresses, topics]`; `undefined`: not known
 * @throws FilterError if it does not, or if that is not known
 */
export const assertIncluded = (
  chain: number,
  content: string | undefined,
  { addresses, events }: Asked,
): void => {
  if (content === undefined) {
    throw new FilterError(
      chain,
      "the ingestor's filter has changed, and it does not say to what: set onFilterChanged to decide whether to go on",
    )
  }
  const [contracts, topics] = JSON.parse(content) as Content
  const rest = topics.slice(1).some((alternatives) => alternatives !== null && alternatives.length > 0)
  if (
    !rest &&
    includes(
      contracts,
      addresses.map((address) => address.toLowerCase()),
    ) &&
    includes(
      topics[0],
      events.map(({ topic0 }) => topic0),
    )
  ) {
    return
  }
  throw new FilterError(
    chain,
    "the ingestor's filter no longer includes what this reader asks for. Widen the filter (ADDRESSES, TOPICS, EVENTS), " +
      "or ask for less (addresses, events)",
  )
}
