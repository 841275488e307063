/** How far a reader is, and which blocks it has applied that a reorg may still replace. */
import type { Hex, Log, RawBlock } from "./Entry.ts"

/** The position of a reader. It is stored with what the reader applied, in one transaction. */
export interface Position {
  /** The last entry that was consumed; the lowest id before the first. */
  readonly id: string
  /** Which log that entry adds or removes; `""` before the first. */
  readonly identity: string
  readonly epoch: string
  /** How many entries of this epoch come up to and including that entry. */
  readonly offset: number
  /** Blocks up to here are applied for good, or not wanted: entries of them are skipped. */
  readonly final: number
  /** Blocks up to here are complete. */
  readonly block: number
  /** The fingerprint of the ingestor's filter. */
  readonly filter: string
  /** The process that reads under this name; `""` when none does. */
  readonly owner: string
  /** Rises with each transaction of any process. */
  readonly beat: number
}

/** A block that was applied and is not final. */
export interface AppliedBlock extends RawBlock {
  /** Its handler was skipped: it is not retracted. */
  readonly skipped: boolean
  /**
   * Its handler was about to run. Without a transaction, it is not known whether it did: the block is applied again, or retracted if
   * it has gone.
   */
  readonly pending: boolean
}

/** What a reader has done. */
export interface State {
  readonly position: Position
  /** The applied blocks that are not final, lowest first. */
  readonly stack: ReadonlyArray<AppliedBlock>
}

/** An applied block as one text, as a checkpoint stores it. */
export interface PackedBlock {
  readonly number: number
  readonly data: string
}

type PackedLog = readonly [
  index: number,
  txHash: Hex,
  txIndex: number,
  contract: Hex,
  topics: ReadonlyArray<Hex>,
  data: Hex,
  event: string | null,
  args: Readonly<Record<string, unknown>> | null,
]

/** Packs an applied block. */
export const pack = ({
  chain,
  number,
  hash,
  timestamp,
  logs,
  skipped,
  pending,
}: AppliedBlock): PackedBlock => ({
  number,
  data: JSON.stringify({
    chain,
    hash,
    timestamp,
    skipped,
    pending,
    logs: logs.map(({ index, txHash, txIndex, contract, topics, data, event, args }): PackedLog => [
      index,
      txHash,
      txIndex,
      contract,
      topics,
      data,
      event ?? null,
      args ?? null,
    ]),
  }),
})

/** Unpacks an applied block. */
export const unpack = ({ number, data }: PackedBlock): AppliedBlock => {
  const { chain, hash, timestamp, skipped, pending, logs } = JSON.parse(data) as {
    readonly chain: number
    readonly hash: Hex
    readonly timestamp: number
    readonly skipped: boolean
    readonly pending: boolean
    readonly logs: ReadonlyArray<PackedLog>
  }
  return {
    chain,
    number,
    hash,
    timestamp,
    skipped,
    pending,
    finalized: false,
    logs: logs.map(([index, txHash, txIndex, contract, topics, data, event, args]): Log => ({
      chain,
      blockNumber: number,
      blockHash: hash,
      txHash,
      txIndex,
      index,
      contract,
      topics,
      data,
      key: `${chain}:${hash}:${index}`,
      ...(event !== null && { event }),
      ...(args !== null && { args }),
    })),
  }
}
