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

const isRestricted = (alternatives: ReadonlyArray<string> | null | undefined): boolean =>
  alternatives !== null && alternatives !== undefined && alternatives.length > 0

/** Whether all of these are stored. What a reader does not name is whatever the ingestor stores. */
const includes = (all: ReadonlyArray<string> | null | undefined, some: ReadonlyArray<string>): boolean =>
  !isRestricted(all) || some.every((one) => all!.includes(one))

/**
 * Checks that the ingestor's filter includes the contracts and events that a reader names.
 *
 * @param content the filter as JSON, `[addresses, topics]`
 * @throws FilterError if it does not
 */
export const assertIncluded = (chain: number, content: string, { addresses, events }: Asked): void => {
  const [contracts, topics] = JSON.parse(content) as Content
  const named = [addresses.map((address) => address.toLowerCase()), events.map(({ topic0 }) => topic0)]
  if (includes(contracts, named[0]!) && includes(topics[0], named[1]!)) return
  throw new FilterError(
    chain,
    "the ingestor's filter does not include what this reader asks for. Widen the filter (ADDRESSES, TOPICS, EVENTS), " +
      "or ask for less (addresses, events)",
  )
}

/**
 * Checks that a filter that has changed still includes all that a reader got before it.
 *
 * @param content the new filter as JSON; `undefined`: not known
 * @throws FilterError if it does not, or if that is not known: of what the reader does not name, the filter before may have had more
 */
export const assertStillIncluded = (chain: number, content: string | undefined, asked: Asked): void => {
  if (content !== undefined) {
    assertIncluded(chain, content, asked)
    const [contracts, [events, ...others]] = JSON.parse(content) as Content
    const unnamed = [
      ...(asked.addresses.length === 0 ? [contracts] : []),
      ...(asked.events.length === 0 ? [events] : []),
      ...others,
    ]
    if (!unnamed.some(isRestricted)) return
  }
  throw new FilterError(
    chain,
    "the ingestor's filter has changed, and it may have included more of what this reader asks for before: " +
      "set onFilterChanged to decide whether to go on, or name the addresses and events that are needed",
  )
}
