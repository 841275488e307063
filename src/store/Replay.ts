/**
 * Replays a journal as a consumer would: entries in order, retracting on `removed`. What remains is the chain; an entry
 * that does not fit is a fault. It shares no code with the writers of journals, so that it can verify them.
 *
 * It keeps only a digest of each entry, so that millions fit into memory.
 */
import { createHash } from "node:crypto"
import { identity } from "../Domain.ts"
import type { Entry } from "../Domain.ts"
import type { Stored } from "./Entries.ts"

/** The fields of a log that a node can confirm, beside its identity. */
export type Payload = Pick<Entry, "block_number" | "tx_hash" | "contract" | "topics" | "data" | "tx_index">

/** A digest of a payload. */
export const digest = ({ block_number, tx_hash, contract, topics, data, tx_index }: Payload): string =>
  createHash("sha1")
    .update([block_number, tx_hash, contract, topics, data, tx_index].join(" "))
    .digest("base64")

export interface ReplayedLog {
  readonly index: number
  readonly digest: string
  /** The fields that only the store has: the block's time and trace. A removed copy must repeat them. */
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
  /** The entries read, and how many of them are removals. */
  entries = 0
  removed = 0
  /** The lowest entry by height and log index, whether it was retracted or not. */
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
      return this.#retract(id, entry, log, top)
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

  #retract(id: string, entry: Entry, log: ReplayedLog, top: ReplayedBlock | undefined): void {
    if (top === undefined) {
      // Nothing is known below the oldest remaining entry.
      if (this.#fromTheBeginning) this.#fault(id, entry, "retracts nothing")
      return
    }
    const retracted = top.logs.pop()!
    if (top.hash !== entry.block_hash || retracted.index !== log.index) {
      this.#fault(id, entry, `retracts log ${retracted.index} of block ${top.number} ${top.hash}`)
    } else if (retracted.digest !== log.digest || retracted.rest !== log.rest) {
      this.#fault(id, entry, "is not a copy of the entry it retracts")
    }
    if (top.logs.length === 0) this.blocks.pop()
  }

  #fault(id: string, entry: Entry, what: string): void {
    const kind = entry.removed === "true" ? "removal" : "entry"
    this.faults.push(`${id}: the ${kind} of ${identity(entry)} in block ${entry.block_number} ${what}`)
  }
}
