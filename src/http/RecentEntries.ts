/**
 * The last entries that this process wrote of one chain, for people to look at. What is kept is bounded whatever comes,
 * and so is what one push costs; whoever wants every entry reads the stream.
 */
import type { Hex } from "../Domain.ts"
import type { Position, Push } from "../store/Journal.ts"

/** An entry as it is shown, and its place among all that were written. */
export interface Row {
  readonly seq: number
  readonly block_number: number
  readonly block_hash: Hex
  readonly timestamp: number
  readonly tx_hash: Hex
  readonly log_index: number
  readonly contract: Hex
  readonly topics: ReadonlyArray<Hex>
  /** The first word. */
  readonly data: string
  readonly data_bytes: number
  readonly removed: boolean
}

/** Entries that are kept of a chain. */
export const rowsKept = 100

/** `0x` and one word. */
const longestData = 66

/** A slice keeps the whole text alive. Where that is large a copy is worth its time. */
const worthCopying = 2048

const firstWord = (data: string) => {
  const word = data.slice(0, longestData)
  return data.length <= worthCopying ? word : Buffer.from(word, "latin1").toString("latin1")
}

export class RecentEntries {
  /** How many entries were written; those that are not kept count too. */
  seq = 0
  #kept: Array<{ readonly row: Row; undone: boolean }> = []

  pushed(blocks: Push["blocks"]): void {
    let skip = blocks.reduce((sum, { logs }) => sum + logs.length, 0) - rowsKept
    for (const { number, hash, timestamp, logs } of blocks) {
      const from = Math.min(Math.max(skip, 0), logs.length)
      skip -= logs.length
      this.seq += from
      for (const log of logs.slice(from)) {
        this.#add({
          seq: ++this.seq,
          block_number: number,
          block_hash: hash,
          timestamp,
          tx_hash: log.txHash,
          log_index: log.index,
          contract: log.contract,
          topics: log.topics,
          data: firstWord(log.data),
          data_bytes: (log.data.length - 2) / 2,
          removed: false,
        })
      }
    }
    this.#trim()
  }

  /** The last `removed` entries of a block were undone, the highest first; those that are still kept are shown again. */
  popped({ hash }: Pick<Position, "hash">, removed: number): void {
    const known = this.#kept.filter(({ row, undone }) => row.block_hash === hash && !row.removed && !undone)
    for (const one of known.toReversed().slice(0, removed)) {
      one.undone = true
      this.#add({ ...one.row, seq: ++this.seq, removed: true })
    }
    this.seq += Math.max(removed - known.length, 0)
    this.#trim()
  }

  /** Those that were written after that many entries, as far as they are kept, oldest first. */
  after(seq: number): ReadonlyArray<Row> {
    return this.#kept.flatMap(({ row }) => (row.seq > seq ? row : []))
  }

  #add(row: Row): void {
    this.#kept.push({ row, undone: false })
  }

  #trim(): void {
    if (this.#kept.length > rowsKept) this.#kept = this.#kept.slice(-rowsKept)
  }
}
