/** What a stream holds: entries, the head of the journal, and logs as a reader gets them. */

export type Hex = `0x${string}`

/** An entry: a log that was added, or its copy with `removed: "true"` when a reorg retracts it. Values are text. */
export interface Entry {
  /** Rises with every entry. Redis: `1790000000000-0`; SQLite: a number. */
  readonly id: string
  readonly fields: Readonly<Record<string, string>>
}

/** The public head of a journal. */
export interface Head {
  readonly version: number
  /** Changes when the store lost entries, and with a reset. */
  readonly epoch: string
  readonly epochReason: string
  readonly number: number
  readonly hash: string
  /** Above 0: so many logs of this block are written, and more will follow. Below 0: so many are still to be removed. */
  readonly part: number
  /** −1 before the first finalized block. */
  readonly finalNumber: number
  readonly startNumber: number
  /** From this block on every entry is kept; `undefined` if an earlier version of the ingestor has not said so. */
  readonly firstNumber: number | undefined
  /** A fingerprint of the filter by which the ingestor asks for logs. */
  readonly filter: string
  /** That filter as JSON, `[addresses, topics]`; `undefined` if the ingestor has not said so. */
  readonly filterContent: string | undefined
  /** The number of entries ever added in this epoch. */
  readonly added: number
}

/** A log that matches, as a reader gets it. */
export interface Log {
  readonly chain: number
  readonly blockNumber: number
  readonly blockHash: Hex
  readonly txHash: Hex
  readonly txIndex: number
  readonly index: number
  readonly contract: Hex
  readonly topics: ReadonlyArray<Hex>
  readonly data: Hex
  /** `chain:block hash:log index`: the same for each delivery of this log, and for no other one. */
  readonly key: string
  /** With `EVENTS` of the ingestor: the canonical signature. */
  readonly event?: string
  /** With `EVENTS` of the ingestor, and if it could be decoded: the arguments by name; integers are decimal text. */
  readonly args?: Readonly<Record<string, unknown>>
  /** The trace of the block, if it was sampled. */
  readonly traceparent?: string
}

/** A block that has logs that match. */
export interface RawBlock {
  readonly chain: number
  readonly number: number
  readonly hash: Hex
  /** Unix seconds. */
  readonly timestamp: number
  /** Whether no reorg can replace it any more, as the ingestor's head said when the entries were read. */
  readonly finalized: boolean
  /** In the order of the block. */
  readonly logs: ReadonlyArray<Log>
}

export const numberOf = ({ fields }: Entry): number => Number(fields["block_number"])

export const hashOf = ({ fields }: Entry): string => fields["block_hash"] ?? ""

export const isRemoval = ({ fields }: Entry): boolean => fields["removed"] === "true"

/** Which log an entry adds or removes: another entry under the same id has another identity. */
export const identityOf = ({ fields }: Entry): string =>
  `${fields["block_hash"]}:${fields["log_index"]}:${fields["removed"]}`

/** The log of an entry. */
export const logOf = ({ fields }: Entry): Log => {
  const { event, args, traceparent } = fields
  return {
    chain: Number(fields["chain_id"]),
    blockNumber: Number(fields["block_number"]),
    blockHash: fields["block_hash"] as Hex,
    txHash: fields["tx_hash"] as Hex,
    txIndex: Number(fields["tx_index"]),
    index: Number(fields["log_index"]),
    contract: fields["contract"] as Hex,
    topics: JSON.parse(fields["topics"]!) as ReadonlyArray<Hex>,
    data: fields["data"] as Hex,
    key: `${fields["chain_id"]}:${fields["block_hash"]}:${fields["log_index"]}`,
    ...(event !== undefined && { event }),
    ...(args !== undefined && { args: JSON.parse(args) as Record<string, unknown> }),
    ...(traceparent !== undefined && { traceparent }),
  }
}

/** The content of the filter, which is stored after its fingerprint. Another filter may have replaced it since. */
const contentOf = (filter: string, description = ""): string | undefined =>
  description.startsWith(`${filter} `) ? description.slice(filter.length + 1) : undefined

/** Reads the fields of a head; `undefined` if there is no journal yet, or none since a reset. */
export const headOf = (fields: Readonly<Record<string, string>>): Head | undefined => {
  const number = (name: string, missing: number) => (fields[name] ? Number(fields[name]) : missing)
  if (fields["number"] === undefined) return undefined
  return {
    version: number("version", 1),
    epoch: fields["epoch"] ?? "",
    epochReason: fields["epoch_reason"] ?? "begun",
    number: Number(fields["number"]),
    hash: fields["hash"] ?? "",
    part: number("part", 0),
    finalNumber: number("final_number", -1),
    startNumber: number("start_number", 0),
    firstNumber: fields["first_number"] ? Number(fields["first_number"]) : undefined,
    filter: fields["filter"] ?? "none",
    filterContent: contentOf(fields["filter"] ?? "none", fields["filter_content"]),
    added: number("added", 0),
  }
}
