/**
 * A chain, and its journal as an ingestor writes it, in memory: with reorgs, blocks in parts, finality, trimming, and a store that
 * is set back. A reader reads it through `source`.
 */
import { hashOf, isRemoval, numberOf } from "../../clients/typescript/src/Entry.ts"
import type { Entry, Head } from "../../clients/typescript/src/Entry.ts"
import { extentOf } from "../../clients/typescript/src/Source.ts"
import type { Source } from "../../clients/typescript/src/Source.ts"

/** A deterministic source of random numbers. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A number from 0 on, below 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number from 0 on, below `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }
}

export interface ModelBlock {
  readonly number: number
  readonly hash: string
  /** The contract of each log. */
  readonly logs: ReadonlyArray<string>
}

/** A block of the journal whose entries can still be removed. */
interface Recorded {
  readonly block: ModelBlock
  /** How many of its logs are written. */
  readonly written: number
}

interface Journal {
  readonly entries: ReadonlyArray<Entry>
  readonly window: ReadonlyArray<Recorded>
  readonly number: number
  readonly finalNumber: number
  readonly added: number
  readonly epoch: string
  readonly epochReason: string
  readonly firstNumber: number
  /** Whether the removal of the top block has begun: it is removed to its end, even if it is canonical again. */
  readonly isPopping: boolean
  /** What the reader says that it has read: entries above it are not trimmed. It is stored where the entries are. */
  readonly readUpTo: number
}

/** The contracts: a reader may ask for some of them. */
export const contracts = ["0x" + "aa".repeat(20), "0x" + "bb".repeat(20), "0x" + "cc".repeat(20)]

const start = 1

export class JournalModel {
  readonly dice: Dice
  /** The canonical chain. */
  chain: Array<ModelBlock> = []
  finalNumber = start - 1
  #journal: Journal
  #saved: Journal | undefined
  #hashes = 0
  #ids = 0
  #epochs = 1
  /** Runs before each answer of the source. */
  before: () => Promise<void> = async () => {}

  constructor(dice: Dice) {
    this.dice = dice
    this.#journal = {
      entries: [],
      window: [],
      number: start - 1,
      finalNumber: -1,
      added: 0,
      epoch: "epoch-1",
      epochReason: "begun",
      firstNumber: start,
      isPopping: false,
      readUpTo: 0,
    }
  }

  get head(): number {
    return this.#journal.number
  }

  /** The journal's final block. */
  get journalFinal(): number {
    return this.#journal.finalNumber
  }

  /** Whether the journal is what the chain is. */
  get isComplete(): boolean {
    const top = this.#journal.window.at(-1)
    return (
      this.#journal.number === this.chain.length &&
      (top === undefined || (this.#isCanonical(top.block) && top.written === top.block.logs.length)) &&
      !this.#journal.isPopping &&
      this.#journal.window.every(({ block }) => this.#isCanonical(block)) &&
      this.#journal.finalNumber === this.finalNumber
    )
  }

  #isCanonical({ number, hash }: ModelBlock): boolean {
    return this.chain[number - start]?.hash === hash
  }

  #newBlock(number: number): ModelBlock {
    const { dice } = this
    const size = dice.chance(0.4) ? 0 : dice.chance(0.05) ? 20 + dice.below(60) : 1 + dice.below(4)
    const logs = Array.from({ length: size }, () => contracts[dice.below(contracts.length)]!)
    return { number, hash: `0x${(++this.#hashes).toString(16).padStart(64, "0")}`, logs }
  }

  /** The chain grows by a block. */
  extend(): void {
    this.chain.push(this.#newBlock(this.chain.length + start))
  }

  /** Some blocks that are not final are replaced, by as many or more. */
  fork(): void {
    const possible = this.chain.length - (this.finalNumber - start + 1)
    if (possible === 0) return
    const depth = 1 + this.dice.below(Math.min(possible, 8))
    const from = this.chain.length - depth
    const old = this.chain.slice(from)
    this.chain.length = from
    // Sometimes a block comes back that was replaced before.
    if (this.#left.length > 0 && this.#left[0]!.number === from + start && this.dice.chance(0.3)) {
      this.chain.push(...this.#left)
    }
    while (this.chain.length < from + depth + this.dice.below(2)) this.extend()
    this.#left = old
  }

  #left: ReadonlyArray<ModelBlock> = []

  /** The chain's final block rises. */
  finalize(): void {
    const most = this.chain.length - (this.finalNumber - start + 1)
    this.finalNumber += this.dice.below(most + 1)
  }

  #entry({ number, hash, logs }: ModelBlock, index: number, removed: boolean): Entry {
    this.#ids += 1 + this.dice.below(3)
    const fields = {
      chain_id: "1",
      block_number: String(number),
      block_hash: hash,
      tx_hash: hash,
      log_index: String(index),
      contract: logs[index]!,
      topics: "[]",
      data: "0x",
      timestamp: String(1000 + number),
      tx_index: "0",
      removed: String(removed),
    }
    return { id: String(this.#ids), fields }
  }

  /** The ingestor makes one move: it removes its top block if the chain does not have it, or writes more of the next one. */
  ingest(): void {
    const journal = this.#journal
    const { window } = journal
    const top = window.at(-1)
    const below = window.slice(0, -1)
    if (top !== undefined && (journal.isPopping || !this.#isCanonical(top.block)))
      return this.#pop(top, below)
    if (top !== undefined && top.written < top.block.logs.length) return this.#push(top, below)
    const block = this.chain[journal.number - start + 1]
    if (block !== undefined) return this.#push({ block, written: 0 }, window)
    // The head is above the chain: a fork to a shorter one.
    if (journal.number > this.chain.length && top === undefined)
      this.#journal = { ...journal, number: this.chain.length }
    else if (this.finalNumber > journal.finalNumber && this.finalNumber <= journal.number) {
      this.#journal = {
        ...journal,
        finalNumber: this.finalNumber,
        window: window.filter(({ block }) => block.number > this.finalNumber),
      }
    }
  }

  #push({ block, written }: Recorded, below: ReadonlyArray<Recorded>): void {
    const left = block.logs.length - written
    const count = left > 10 && this.dice.chance(0.7) ? 1 + this.dice.below(left) : left
    const entries = Array.from({ length: count }, (_, i) => this.#entry(block, written + i, false))
    this.#journal = {
      ...this.#journal,
      entries: [...this.#journal.entries, ...entries],
      added: this.#journal.added + count,
      number: block.number,
      window: [...below, { block, written: written + count }],
    }
  }

  #pop({ block, written }: Recorded, below: ReadonlyArray<Recorded>): void {
    const count = written > 10 && this.dice.chance(0.5) ? 1 + this.dice.below(written) : written
    const entries = Array.from({ length: count }, (_, i) => this.#entry(block, written - 1 - i, true))
    const rest = written - count
    this.#journal = {
      ...this.#journal,
      entries: [...this.#journal.entries, ...entries],
      added: this.#journal.added + count,
      number: rest > 0 ? block.number : block.number - 1,
      isPopping: rest > 0,
      window: rest > 0 ? [...below, { block, written: rest }] : below,
    }
  }

  /** Entries that are final, and that readers have read, are trimmed. */
  trim(): void {
    const journal = this.#journal
    const lowest = journal.window[0]?.block.number ?? Infinity
    const isFree = (entry: Entry) =>
      Number(entry.id) <= journal.readUpTo && numberOf(entry) <= journal.finalNumber
    const free = journal.entries.findIndex((entry) => !isFree(entry) || numberOf(entry) >= lowest)
    const count = this.dice.below((free === -1 ? journal.entries.length : free) + 1)
    if (count === 0) return
    const [last, next] = [journal.entries[count - 1]!, journal.entries[count]]
    // As an ingestor tells it; a block that was removed and added again is whole if it is trimmed between.
    const isBegin = next?.fields["log_index"] === "0" && !isRemoval(next)
    const isFirst = next === undefined || hashOf(next) !== hashOf(last) || isBegin
    const firstNumber =
      (next === undefined ? journal.number : numberOf(next)) + (isFirst && next !== undefined ? 0 : 1)
    this.#journal = { ...journal, entries: journal.entries.slice(count), firstNumber }
  }

  /** The store is copied. */
  save(): void {
    this.#saved = this.#journal
  }

  /** The store is the copy again. An ingestor that noticed begins a new epoch; if all were restarted, none does. */
  setBack(): void {
    if (this.#saved === undefined || this.#saved.added === this.#journal.added) return
    const isNoticed = this.dice.chance(0.6)
    this.#journal = isNoticed
      ? { ...this.#saved, epoch: `epoch-${++this.#epochs}`, epochReason: "lost" }
      : { ...this.#saved, epoch: this.#saved.epoch }
    this.#saved = undefined
  }

  /** Something happens. */
  step(): void {
    const { dice } = this
    const roll = dice.next()
    if (roll < 0.5) for (let i = 1 + dice.below(4); i > 0; i--) this.ingest()
    else if (roll < 0.72) for (let i = 1 + dice.below(3); i > 0; i--) this.extend()
    else if (roll < 0.82) this.fork()
    else if (roll < 0.9) this.finalize()
    else if (roll < 0.94) this.trim()
    else if (roll < 0.98) this.save()
    else this.setBack()
  }

  get #head(): Head {
    const { number, finalNumber, epoch, epochReason, firstNumber, added, window, isPopping } = this.#journal
    const top = window.at(-1)
    const isPartial = top !== undefined && top.written < top.block.logs.length
    return {
      version: 2,
      epoch,
      epochReason,
      number,
      hash: top?.block.hash ?? this.chain[number - start]?.hash ?? "",
      part: isPartial ? (isPopping ? -top.written : top.written) : 0,
      finalNumber,
      startNumber: start,
      firstNumber,
      filter: "none",
      filterContent: "[[],[]]",
      added,
    }
  }

  get source(): Source {
    const after = (id: string) => this.#journal.entries.filter((entry) => Number(entry.id) > Number(id))
    const answer = async <A>(read: () => A): Promise<A> => {
      await this.before()
      return read()
    }
    return {
      name: "model",
      lowest: "0",
      compare: (one, other) => Number(one) - Number(other),
      snapshot: ({ known, after: from, upTo = Infinity, count }) =>
        answer(() => {
          const { entries } = this.#journal
          return {
            head: this.#head,
            length: entries.length,
            first: entries[0]?.id,
            last: entries.at(-1)?.id,
            known: known.map((id) => entries.find((entry) => entry.id === id)),
            page: after(from)
              .filter(({ id }) => Number(id) <= Number(upTo))
              .slice(0, count),
          }
        }),
      measure: (from, upTo, count) =>
        answer(() =>
          extentOf(
            after(from)
              .filter(({ id }) => Number(id) <= Number(upTo))
              .slice(0, count),
          ),
        ),
      readBack: (from, count) =>
        answer(() =>
          this.#journal.entries
            .filter(({ id }) => Number(id) <= Number(from))
            .toReversed()
            .slice(0, count),
        ),
      changed: () => answer(() => {}),
      report: (_, { id }) => answer(() => void (this.#journal = { ...this.#journal, readUpTo: Number(id) })),
      close: async () => {},
    }
  }
}
