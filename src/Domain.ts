/**
 * The domain types: what a node announces (`Header`), what is requested from it (`Log`), the two together (`Block`), and
 * what a consumer reads (`Entry`).
 */

/** Lower-case hexadecimal text that starts with `0x`. */
export type Hex = `0x${string}`

/** A chain id (EIP-155). */
export type ChainId = number

/** The fields of a block header that the pipeline needs. Times are unix seconds. */
export interface Header {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
  readonly timestamp: number
  /** `undefined` where the node sends no valid bloom. */
  readonly logsBloom: Hex | undefined
  /** Whether the header shows execution: gas used, or a non-empty root of transactions or receipts. */
  readonly executed?: boolean
  /** Some nodes send zero blooms in announced headers and correct ones in fetched headers. Default: fetched. */
  readonly origin?: HeaderOrigin
}

/** Where a header comes from: a `newHeads` notification, or an answer to `eth_getBlockBy…`. */
export type HeaderOrigin = "announced" | "fetched"

/** One log, without the fields that it shares with its block. */
export interface Log {
  readonly index: number
  readonly txIndex: number
  readonly txHash: Hex
  readonly contract: Hex
  readonly topics: ReadonlyArray<Hex>
  readonly data: Hex
  /** The canonical signature of its event, in a block that was decoded. */
  readonly event?: string
  /** Its arguments as JSON in ASCII, if they could be decoded. */
  readonly args?: string
}

/** A block as the store records it: its position in the chain, and its matching logs in order. */
export interface Block {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
  readonly timestamp: number
  readonly logs: ReadonlyArray<Log>
  /** The W3C trace context of the block's processing, if it was sampled. */
  readonly traceparent?: string
  /** The digest of the events that its logs were decoded by, if they were. */
  readonly abi?: string
}

/** A log filter as in `eth_getLogs`: no addresses means all, `null` at a position means any topic. */
export interface Filter {
  readonly addresses: ReadonlyArray<Hex>
  readonly topics: ReadonlyArray<ReadonlyArray<Hex> | null>
}

/** The fields that every stream entry has, in the order they are written. */
export const commonFields = [
  "chain_id",
  "block_number",
  "block_hash",
  "tx_hash",
  "log_index",
  "contract",
  "topics",
  "data",
  "timestamp",
  "tx_index",
  "removed",
] as const

/** The fields after them: `traceparent` if the block was sampled; `event`, and `args` if it could be decoded, with `EVENTS`. */
const optionalFields = ["traceparent", "event", "args"] as const

/** The fields of a stream entry, in the order they are written. */
export const entryFields = [...commonFields, ...optionalFields]

/** A stream entry: every value is text, `topics` is a JSON array, `args` is JSON, `removed` is `true` or `false`. */
export type Entry = { readonly [Field in (typeof commonFields)[number]]: string } & {
  readonly [Field in (typeof optionalFields)[number]]?: string
}

/** The identity of a log across deliveries and endpoints: `chain_id:block_hash:log_index`. */
export const identity = (entry: Entry): string => `${entry.chain_id}:${entry.block_hash}:${entry.log_index}`
