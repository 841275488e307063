/**
 * The words every other file uses: what a node announces (`Header`), what it is asked for (`Log`), the two
 * together (`Block`), and what a consumer reads (`Entry`).
 */

/** Lower-case hexadecimal text that starts with `0x`. */
export type Hex = `0x${string}`

/** A chain's number (EIP-155). */
export type ChainId = number

/** The part of a block header the feed needs. Times are unix seconds. */
export interface Header {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
  readonly timestamp: number
  /** `undefined` where the node sends none that can be one. */
  readonly logsBloom: Hex | undefined
  /** Whether the header says that the block executed something: used gas, or a root of transactions or receipts. */
  readonly executed?: boolean
  /** Announced headers and fetched ones may have blooms of different quality (default: fetched). */
  readonly origin?: HeaderOrigin
}

/** Where a header comes from: a `newHeads` notification, or an answer to `eth_getBlockBy…`. */
export type HeaderOrigin = "announced" | "fetched"

/** One log without what it shares with its block. */
export interface Log {
  readonly index: number
  readonly txIndex: number
  readonly txHash: Hex
  readonly contract: Hex
  readonly topics: ReadonlyArray<Hex>
  readonly data: Hex
}

/** A block as the store records it: where it stands in the chain, and its matching logs in order. */
export interface Block {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
  readonly timestamp: number
  readonly logs: ReadonlyArray<Log>
  /** The W3C trace context under which the block was handled, when it was sampled. */
  readonly traceparent?: string
}

/** Which logs are wanted, in the terms of `eth_getLogs`: no addresses means all, `null` at a position means any topic. */
export interface Filter {
  readonly addresses: ReadonlyArray<Hex>
  readonly topics: ReadonlyArray<ReadonlyArray<Hex> | null>
}

/** The fields of a stream entry, in the order they are written. `traceparent` is there when the block was sampled. */
export const entryFields = [
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
  "traceparent",
] as const

type EntryField = (typeof entryFields)[number]

/** A stream entry: every value is text, `topics` is a JSON array, `removed` is `true` or `false`. */
export type Entry = { readonly [Field in Exclude<EntryField, "traceparent">]: string } & {
  readonly traceparent?: string
}

/** What makes a log the same log, wherever and however often it is seen: `chain_id:block_hash:log_index`. */
export const identity = (entry: Entry): string => `${entry.chain_id}:${entry.block_hash}:${entry.log_index}`
