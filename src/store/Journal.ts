/**
 * The journal of one chain as pure data: a stack of blocks, and how `push`, `pop` and `finalize` change it.
 *
 * Each store applies the same changes in its own medium. The pipeline uses these functions to compute where the journal
 * will stand once the moves in flight are acknowledged. Of the window, a move reads the two highest records and the one at
 * the height that it names (`heightOf`): a store need not read more.
 */
import type { Block, Hex } from "../Domain.ts"

/**
 * The version of what is stored of a journal beside its entries. Version 1 has neither part digests nor epochs. Ingestors
 * of both versions may write one journal at the same time.
 */
export const journalVersion = 2

/**
 * Where a journal stands: its top block.
 *
 * `part` is 0 when the block is complete. `n`: its first `n` logs are written and more follow. `-n`: it is being retracted
 * and `n` of its logs remain. Only blocks that are too large for one call are ever partially written.
 */
export interface Position {
  readonly number: number
  /** Empty while the start block is not written: the block below it is unknown. */
  readonly hash: Hex | ""
  readonly part: number
  /** Identifies the first `n` logs: only the same ones may be continued. Absent for a complete block, or when unknown. */
  readonly digest?: string
}

/** A block that can still be retracted. `count`: how many of its logs are in the stream. */
export interface BlockRecord {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
  readonly count: number
}

export interface Journal {
  readonly head: Position
  /** The finalized head: the highest block that can no longer be retracted. */
  readonly final: { readonly number: number; readonly hash: Hex } | undefined
  /** The start block. Its hash is empty until the block is written. */
  readonly start: { readonly number: number; readonly hash: Hex | "" }
  /** The fingerprint of the filter, and the first block that was ingested with it. */
  readonly filter: string
  readonly filterSince: number
  /** Recorded blocks above the finalized head, lowest first: the start block, every block with logs, and the head. */
  readonly window: ReadonlyArray<BlockRecord>
}

/** A block, or the chunk of a large block that fits into one call. */
export interface BlockChunk extends Block {
  /** `false`: more logs of this block follow in the next call. */
  readonly whole: boolean
  /** The digest of the block's logs up to the end of this chunk, if more follow. */
  readonly digest?: string
}

/** Appends every log of these blocks, records the blocks and moves the head, if the head is the expected one. */
export interface Push {
  readonly _tag: "Push"
  readonly expected: Position
  readonly blocks: readonly [BlockChunk, ...ReadonlyArray<BlockChunk>]
  /** The blocks are already final: only the head is recorded. */
  readonly final: boolean
}

/** Retracts the top block, or as many of its last logs as fit into one call, if the head is the expected one. */
export interface Pop {
  readonly _tag: "Pop"
  readonly expected: Position
}

/**
 * Moves the finalized head to a block at or below the head, if the head is the expected one. A lower finalized head changes
 * nothing.
 */
export interface Finalize {
  readonly _tag: "Finalize"
  readonly expected: Position
  readonly number: number
  readonly hash: Hex
}

export type Move = Push | Pop | Finalize

/**
 * How much one call carries. A large block must not stall the store, and managed servers limit the arguments and the size
 * of a command (ElastiCache Serverless: 3 999 arguments).
 */
export interface CallLimits {
  /** The maximum of logs that one call appends or retracts. */
  readonly logs: number
  /** The maximum of blocks in one push. */
  readonly blocks: number
  /** The maximum of log bytes in one push. A single log may be larger. */
  readonly bytes: number
}

export const callLimits: CallLimits = { logs: 1000, blocks: 500, bytes: 1024 * 1024 }

/** The head of an empty journal: just below the start block. */
export const emptyHead = (start: number): Position => ({ number: start - 1, hash: "", part: 0 })

/** Whether a move that expects `a` applies at `b`. */
const samePosition = (a: Position, b: Position): boolean =>
  a.number === b.number && a.hash === b.hash && a.part === b.part && (a.digest ?? "") === (b.digest ?? "")

/** An empty journal that starts at `start`. */
export const emptyJournal = (start: number, filter: string): Journal => ({
  head: emptyHead(start),
  final: undefined,
  start: { number: start, hash: "" },
  filter,
  filterSince: start,
  window: [],
})

/** The position below the whole window: the finalized head, or the empty head. */
export const finalizedHead = (journal: Pick<Journal, "final" | "start">): Position =>
  journal.final ? { ...journal.final, part: 0 } : emptyHead(journal.start.number)

/** The lowest block that can still be retracted, recorded or not. */
export const firstUnfinalized = (journal: Pick<Journal, "final" | "start">): number =>
  Math.max(finalizedHead(journal).number + 1, journal.start.number)

/** How many logs of a block are written already: some, where it is the partial block on top. */
export const logsWritten = ({ hash, part }: Position, block: Pick<Block, "hash">): number =>
  part > 0 && hash === block.hash ? part : 0

/** The head after a push. */
export const afterPush = ({ blocks, expected }: Push): Position => {
  const { number, hash, whole, logs, digest } = blocks.at(-1)!
  if (whole) return { number, hash, part: 0 }
  const part = logsWritten(expected, { hash }) + logs.length
  return { number, hash, part, ...(digest !== undefined && { digest }) }
}

/** The height of the block that a move writes, retracts or finalizes. */
export const heightOf = (move: Move): number =>
  move._tag === "Push" ? move.blocks.at(-1)!.number : move._tag === "Pop" ? move.expected.number : move.number

const hashAt = ({ window }: Journal, height: number) => window.find(({ number }) => number === height)?.hash

/** The head is not the expected one (`undefined`: the store has no journal of this chain). */
export interface Conflict {
  readonly _tag: "Conflict"
  readonly head: Position | undefined
}

/** The journal belongs to another filter. */
export interface FilterChanged {
  readonly _tag: "FilterChanged"
  readonly filter: string
}

const isPossible = (journal: Journal, move: Move): boolean => {
  const { head, final, window } = journal
  if (move._tag === "Push") return true
  if (move._tag === "Pop") return window.length > 0
  if (final !== undefined && move.number <= final.number) return true
  const isReached = move.number < head.number || (move.number === head.number && head.part === 0)
  return isReached && (hashAt(journal, move.number) ?? move.hash) === move.hash
}

/** Why a move does not apply to a journal; `undefined` if it does. */
export const rejectionOf = (
  journal: Journal,
  filter: string,
  move: Move,
): Conflict | FilterChanged | undefined => {
  const { head } = journal
  if (journal.filter !== filter) return { _tag: "FilterChanged", filter: journal.filter }
  const applies = samePosition(head, move.expected) && isPossible(journal, move)
  return applies ? undefined : { _tag: "Conflict", head }
}

/** Whether a push that conflicts was written before, by an earlier attempt or by another ingestor. */
export const isWritten = (journal: Journal, push: Push): boolean => {
  const { head } = journal
  const next = afterPush(push)
  if (hashAt(journal, next.number) !== next.hash) return false
  return head.hash !== next.hash || head.part === 0 || (next.digest !== undefined && samePosition(head, next))
}

/** What a move changes beside the entries that a push appends. */
export interface Changes extends Pick<Journal, "head" | "start"> {
  /** The new finalized head, if it moves. Records at or below it leave the window, also those of this move. */
  readonly final: Journal["final"]
  /** Whether the top record leaves the window: superseded, retracted or replaced by the first of `records`. */
  readonly dropsTop: boolean
  /** The records that are added on top, lowest first. */
  readonly records: ReadonlyArray<BlockRecord>
  /** How many of the top block's last logs are retracted. */
  readonly retracted: number
}

/** Whether a record must remain once another block is above it. */
const isKept = (record: BlockRecord, start: number): boolean => record.count > 0 || record.number === start

const changesOfPush = ({ start, window }: Journal, push: Push): Partial<Changes> => {
  const { blocks, expected, final } = push
  const top = window.at(-1)
  const last = blocks.at(-1)!
  const startBlock = blocks.find(({ number }) => number === start.number)
  const moved = { head: afterPush(push), start: startBlock ? { ...start, hash: startBlock.hash } : start }
  if (final && last.whole) return { ...moved, final: { number: last.number, hash: last.hash } }
  const continued = logsWritten(expected, blocks[0]) > 0 ? top : undefined
  const records = blocks.map(({ number, hash, parentHash, logs }, i) => ({
    number,
    hash,
    parentHash,
    count: logs.length + (i === 0 ? (continued?.count ?? 0) : 0),
  }))
  return {
    ...moved,
    dropsTop: top !== undefined && (top === continued || !isKept(top, start.number)),
    records: records.filter((record, i) => isKept(record, start.number) || i === records.length - 1),
  }
}

const changesOfPop = (journal: Journal, most: number): Partial<Changes> => {
  const { start, window } = journal
  const top = window.at(-1)!
  const retracted = Math.min(top.count, most)
  const count = top.count - retracted
  if (count > 0) {
    const head = { number: top.number, hash: top.hash, part: -count }
    return { head, dropsTop: true, records: [{ ...top, count }], retracted }
  }
  const below = window.at(-2)
  return {
    head: below ? { number: below.number, hash: below.hash, part: 0 } : finalizedHead(journal),
    start: top.number === start.number ? { ...start, hash: "" } : start,
    dropsTop: true,
    retracted,
  }
}

/**
 * What a move changes in a journal to which it applies.
 *
 * @param most how many logs one call retracts
 */
export const changesOf = (journal: Journal, move: Move, most: number): Changes => {
  const { head, start, final } = journal
  const nothing = { head, start, final: undefined, dropsTop: false, records: [], retracted: 0 }
  if (move._tag === "Push") return { ...nothing, ...changesOfPush(journal, move) }
  if (move._tag === "Pop") return { ...nothing, ...changesOfPop(journal, most) }
  const { number, hash } = move
  return final !== undefined && number <= final.number ? nothing : { ...nothing, final: { number, hash } }
}

/**
 * The journal after a move that applies to it.
 *
 * @param most how many logs one call retracts
 */
export const applied = (journal: Journal, move: Move, most: number = callLimits.logs): Journal => {
  const { head, start, final, dropsTop, records } = changesOf(journal, move, most)
  const window = journal.window.toSpliced(journal.window.length - (dropsTop ? 1 : 0), 1, ...records)
  if (final === undefined) return { ...journal, head, start, window }
  return { ...journal, head, start, final, window: window.filter(({ number }) => number > final.number) }
}

/** How many logs a push carries. */
export const logsOf = ({ blocks }: Push): number => blocks.reduce((sum, { logs }) => sum + logs.length, 0)

/** The highest block of which every log is stored. */
export const wholeUpTo = ({ number, part }: Position): number => (part === 0 ? number : number - 1)
