/**
 * Reads a journal as a consumer would: entries in order, undoing on `removed`. What is left is the chain; what does
 * not fit is a fault. It shares nothing with the code that writes journals, so that it can judge it.
 *
 * Of each entry only a digest is kept, so that millions fit.
 */
import { createHash } from "node:crypto"
import { identity } from "../Domain.ts"
import type { Entry } from "../Domain.ts"
import type { Stored } from "./Store.ts"

/** What a node can confirm about a log, beside its identity. */
export type Payload = Pick<Entry, "block_number" | "tx_hash" | "contract" | "topics" | "data" | "tx_index">

/** The same for the same payload. */
export const digest = ({ block_number, tx_hash, contract, topics, data, tx_index }: Payload): string =>
  createHash("sha1")
    .update([block_number, tx_hash, contract, topics, data, tx_index].join(" "))
    .digest("base64")

export interface ReplayedLog {
  readonly index: number
  readonly digest: string
  /** What only the store knows: the block's time and trace. A removed copy must repeat it. */
  readonly rest: string
}

export interface ReplayedBlock {
  readonly number: number
  readonly hash: string
  readonly logs: Array<ReplayedLog>
}

const logOf = (entry: Entry): ReplayedLog => ({
  index: Number(entry.log_index),
  digest: digest(entry),
  rest: `${entry.timestamp} ${entry.traceparent ?? ""}`,
})

const isBelow = (number: number, index: number, other: Entry): boolean =>
  number < Number(other.block_number) ||
  (number === Number(other.block_number) && index < Number(other.log_index))

export class Replay {
  /** The blocks that have entries, lowest first. */
  readonly blocks: Array<ReplayedBlock> = []
  readonly faults: Array<string> = []
  /** Entries read, and those of them that undo. */
  entries = 0
  removed = 0
  /** The lowest entry by height and log index, whether it was undone or not. */
  lowest: Entry | undefined
  readonly #fromTheBeginning: boolean

  /** @param fromTheBeginning whether the first entry is the first that was ever written */
  constructor(fromTheBeginning = true) {
    this.#fromTheBeginning = fromTheBeginning
  }

  /** Applies the next entry. */
  apply({ id, entry }: Stored): void {
    this.entries++
    const log = logOf(entry)
    const number = Number(entry.block_number)
    if (this.lowest === undefined || isBelow(number, log.index, this.lowest)) this.lowest = entry
    const top = this.blocks.at(-1)
    if (entry.removed === "true") {
      this.removed++
      return this.#undo(id, entry, log, top)
    }
    if (top?.hash !== entry.block_hash) {
      if (top !== undefined && number <= top.number)
        this.#fault(id, entry, `comes on top of block ${top.number}`)
      this.blocks.push({ number, hash: entry.block_hash, logs: [log] })
      return
    }
    const before = top.logs.at(-1)!
    if (log.index <= before.index) this.#fault(id, entry, `comes after log ${before.index} of the same block`)
    top.logs.push(log)
  }

  #undo(id: string, entry: Entry, log: ReplayedLog, top: ReplayedBlock | undefined): void {
    if (top === undefined) {
      // Below the oldest entry that is still there, nothing can be said.
      if (this.#fromTheBeginning) this.#fault(id, entry, "undoes nothing")
      return
    }
    const undone = top.logs.pop()!
    if (top.hash !== entry.block_hash || undone.index !== log.index) {
      this.#fault(id, entry, `undoes log ${undone.index} of block ${top.number} ${top.hash}`)
    } else if (undone.digest !== log.digest || undone.rest !== log.rest) {
      this.#fault(id, entry, "is not a copy of what it undoes")
    }
    if (top.logs.length === 0) this.blocks.pop()
  }

  #fault(id: string, entry: Entry, what: string): void {
    const kind = entry.removed === "true" ? "removal" : "entry"
    this.faults.push(`${id}: the ${kind} of ${identity(entry)} in block ${entry.block_number} ${what}`)
  }
}
