/** The options of a consumer, and what they must be. */
import type { Abi } from "abitype"
import type { Checkpoint } from "./Checkpoint.ts"
import { millisecondsOf } from "./Duration.ts"
import type { Duration } from "./Duration.ts"
import type { Block } from "./Events.ts"
import { OptionError } from "./Errors.ts"
import type { Finality } from "./Plan.ts"
import type { FilterChange, From } from "./Reader.ts"
import type { RedisTarget } from "./RedisSource.ts"
import type { Log } from "./Entry.ts"

/** Which stream: that of Redis, or the ingestor's SQLite file. */
export interface StreamOptions {
  /** A URL, options of `ioredis`, or a function that makes a client (Cluster, Sentinel, a password that rotates). */
  readonly redis?: RedisTarget
  /** `STREAM_PREFIX` of the ingestor: `events` by default. */
  readonly prefix?: string
  /** The path of the ingestor's file, in place of `redis`. */
  readonly sqlite?: string
}

export interface Progress {
  readonly chain: number
  /** Blocks up to here are delivered, as far as `finality` permits. */
  readonly through: number
  /** Delivered blocks up to here can no longer be retracted. */
  readonly finalized: number
  /** Blocks of the journal that are not delivered yet. */
  readonly lag: number
}

/** What all forms of a consumer share. */
export interface CommonOptions<ABI extends Abi, Tx> extends StreamOptions {
  /** The chain's id. */
  readonly chain?: number
  /** Several chains, each in its own order. */
  readonly chains?: ReadonlyArray<number>
  /** Whose position this is. Two processes of one name take turns: one reads, the other stands by. */
  readonly name: string
  /** Where a new name begins: `"earliest"`, `"now"`, or a block. An error if that block is not in the stream. */
  readonly from: From
  /** An ABI. Only logs of its events are delivered, decoded in `block.events`. */
  readonly events?: ABI
  /** Only logs of these contracts are delivered. */
  readonly addresses?: ReadonlyArray<string>
  /** `"latest"`: at once, and retracted when a reorg replaces it. `"finalized"`: final blocks only. A number: so many blocks above it. */
  readonly finality: Finality
  readonly checkpoint: Checkpoint<Tx>
  /** Whether the position is published, so that the ingestor keeps what was not read (default true). */
  readonly pinned?: boolean
  /** How long a process may be silent before another one of its name takes over (default 10 s). */
  readonly lease?: Duration
  /** Called when the ingestor's filter has changed and still includes what is asked for, or is unknown. Throw to stop. */
  readonly onFilterChanged?: (change: FilterChange) => void | Promise<void>
  /** Called when blocks were read, also without logs. */
  readonly onProgress?: (progress: Progress) => void
  /** Called with each failure that is repeated. By default a process warning. */
  readonly onWarning?: (warning: Error) => void
  readonly signal?: AbortSignal
}

/** What a handler gets. */
export interface BlockContext<ABI extends Abi, Tx> {
  /** To write by: what is written becomes durable with the position, or not at all. */
  readonly tx: Tx
  readonly block: Block<ABI>
}

export interface BlocksContext<ABI extends Abi, Tx> {
  readonly tx: Tx
  readonly blocks: ReadonlyArray<Block<ABI>>
}

export type Decision = "retry" | "skip" | "stop"

interface FollowOptionsBase<ABI extends Abi, Tx> extends CommonOptions<ABI, Tx> {
  /** Retracts a block. Required unless `finality` is `"finalized"`. */
  readonly undo?: (context: BlockContext<ABI, Tx>) => void | Promise<void>
  /** How many final blocks, and logs, share a transaction, and the least time between two such transactions. */
  readonly batch?: { readonly blocks?: number; readonly logs?: number; readonly wait?: Duration }
  /** What to do when a handler failed for the `attempt`th time (default: retry, with backoff). */
  readonly onError?: (error: unknown, block: Block<ABI>, attempt: number) => Decision | Promise<Decision>
  /** With an at-least-once checkpoint: logs of different keys run concurrently, those of one key in order. */
  readonly concurrency?: { readonly by: (log: Log) => string; readonly limit?: number }
}

/** The options of `follow`: `apply` for each block, or `applyMany` for the blocks of a transaction. */
export type FollowOptions<ABI extends Abi, Tx> = FollowOptionsBase<ABI, Tx> &
  (
    | {
        readonly apply: (context: BlockContext<ABI, Tx>) => void | Promise<void>
        readonly applyMany?: never
      }
    | {
        readonly applyMany: (context: BlocksContext<ABI, Tx>) => void | Promise<void>
        readonly apply?: never
      }
  )

/** The defaults of `batch`. */
const defaults = { blocks: 500, logs: 10_000, wait: "200ms" } as const

const isWhole = (value: unknown, least: number): value is number =>
  Number.isSafeInteger(value) && (value as number) >= least

const require = (condition: boolean, message: string) => {
  if (!condition) throw new OptionError(message)
}

/** Checks what all forms share. @returns the chains */
export const checkCommon = <ABI extends Abi, Tx>(options: CommonOptions<ABI, Tx>): ReadonlyArray<number> => {
  const { redis, sqlite, chain, chains, name, from, finality, checkpoint, addresses = [] } = options
  require((redis === undefined) !==
    (sqlite === undefined), "set redis or sqlite, the stream to read, and not both")
  require((chain === undefined) !== (chains === undefined), "set chain or chains, and not both")
  const all = chains ?? [chain!]
  require(all.length > 0 &&
    all.every((id) => isWhole(id, 1)), `chains: ${JSON.stringify(all)} are no ids of chains`)
  require(new Set(all).size === all.length, `chains: ${JSON.stringify(all)} has one twice`)
  require(/^[\w.:-]{1,100}$/.test(
    name ?? "",
  ), `name: ${JSON.stringify(name)}: 1 to 100 letters, digits, and . _ : -`)
  require(from === "earliest" ||
    from === "now" ||
    isWhole(from, 0), `from: ${JSON.stringify(from)}: set "earliest", "now", or the number of a block`)
  require(finality === "latest" ||
    finality === "finalized" ||
    isWhole(
      finality,
      0,
    ), `finality: ${JSON.stringify(finality)}: set "latest", "finalized", or a number of confirmations`)
  require(addresses.every((address) =>
    /^0x[0-9a-fA-F]{40}$/.test(address),
  ), `addresses: ${JSON.stringify(addresses)}: each is 0x and 40 hexadecimal digits`)
  require(typeof checkpoint?.transaction ===
    "function", "checkpoint: set postgres(…), sqlite(…), redis(…), memory(), or your own")
  return all
}

/** What `follow` needs beside. */
export interface Batch {
  readonly blocks: number
  readonly logs: number
  readonly wait: number
}

/** Checks the options of `follow`. */
export const checkFollow = <ABI extends Abi, Tx>(options: FollowOptions<ABI, Tx>): Batch => {
  const { apply, applyMany, undo, finality, batch, concurrency, checkpoint } = options
  require((typeof apply === "function") !==
    (typeof applyMany === "function"), "set apply or applyMany, and not both")
  require(typeof undo === "function" ||
    finality ===
      "finalized", 'undo: a reorg may replace a block that is not final: set undo, or finality: "finalized"')
  require(concurrency === undefined ||
    checkpoint.atLeastOnce, "concurrency: a transaction has one order: only with an at-least-once checkpoint (redis(), memory())")
  require(concurrency === undefined || typeof apply === "function", "concurrency: set apply, not applyMany")
  const { blocks, logs, wait } = { ...defaults, ...batch }
  require(isWhole(blocks, 1) && isWhole(logs, 1), "batch: blocks and logs are whole numbers from 1 on")
  return { blocks, logs, wait: millisecondsOf("batch.wait", wait) }
}
