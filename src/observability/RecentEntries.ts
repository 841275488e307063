/**
 * The latest entries that this process wrote for one chain, shown on the page. Memory and the cost of a push are bounded;
 * the stream has every entry.
 */
import { eventText } from "../abi/EventText.ts"
import type { Hex, Log } from "../Domain.ts"
import type { Position, Push } from "../store/Journal.ts"

/** An entry as the page shows it, with its sequence number among all entries written. */
export interface Row {
  readonly seq: number
  readonly block_number: number
  readonly block_hash: Hex
  readonly timestamp: number
  readonly tx_hash: Hex
  readonly log_index: number
  readonly contract: Hex
  readonly topics: ReadonlyArray<Hex>
  /** The first 32-byte word. */
  readonly data: string
  readonly data_bytes: number
  readonly removed: boolean
  /** The decoded event as text, if logs are decoded; its signature alone, where the arguments are long. */
  readonly event?: string
}

/**
 * Entries kept per chain while the page is open, and while it is not. What a chain keeps until its next block is
 * promoted to the old generation: with 64 chains, a hundred of each took 65 MB.
 */
export const rowsKept = { read: 100, unread: 10 }

/** `0x` and one word. */
const longestData = 66

/** Longer arguments (JSON) are not shown. */
const longestArgs = 1000

/** A slice keeps the whole string in memory: above this length, the slice is copied. */
const worthCopying = 2048

const firstWord = (data: string) => {
  const word = data.slice(0, longestData)
  return data.length <= worthCopying ? word : Buffer.from(word, "latin1").toString("latin1")
}

const shownEvent = ({ event, args = "" }: Log): { readonly event?: string } =>
  event === undefined ? {} : { event: eventText(event, args.length <= longestArgs ? args : undefined) }

export class RecentEntries {
  /** The number of entries written, including those no longer kept. */
  seq = 0
  /** How many readers of the page are connected. */
  readers = 0
  #kept: Array<{ readonly row: Row; retracted: boolean }> = []

  pushed(blocks: Push["blocks"]): void {
    let skip = blocks.reduce((sum, { logs }) => sum + logs.length, 0) - this.#most
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
          ...shownEvent(log),
        })
      }
    }
    this.#trim()
  }

  /** The last `removed` entries of a block were retracted, the highest first; those still kept get a second row. */
  popped({ hash }: Pick<Position, "hash">, removed: number): void {
    const known = this.#kept.filter(
      ({ row, retracted }) => row.block_hash === hash && !row.removed && !retracted,
    )
    for (const one of known.toReversed().slice(0, removed)) {
      one.retracted = true
      this.#add({ ...one.row, seq: ++this.seq, removed: true })
    }
    this.seq += Math.max(removed - known.length, 0)
    this.#trim()
  }

  /** The kept entries with a higher sequence number, oldest first. */
  after(seq: number): ReadonlyArray<Row> {
    return this.#kept.flatMap(({ row }) => (row.seq > seq ? row : []))
  }

  #add(row: Row): void {
    this.#kept.push({ row, retracted: false })
  }

  get #most(): number {
    return this.readers > 0 ? rowsKept.read : rowsKept.unread
  }

  #trim(): void {
    const most = this.#most
    if (this.#kept.length > most) this.#kept = this.#kept.slice(-most)
  }
}
