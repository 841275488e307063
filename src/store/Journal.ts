/**
 * The journal of one chain as pure data: a stack of blocks, and how `push`, `pop` and `finalize` change it.
 *
 * Each store applies the same changes in its own medium. The pipeline uses these functions to compute where the journal
 * will stand once the moves in flight are acknowledged.
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
export const samePosition = (a: Position, b: Position): boolean =>
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

/** The head after a push. */
export const afterPush = (push: Push): Position => {
  const last = push.blocks.at(-1)!
  const before = push.expected.part > 0 && push.expected.hash === last.hash ? push.expected.part : 0
  const at = { number: last.number, hash: last.hash }
  if (last.whole) return { ...at, part: 0 }
  return { ...at, part: before + last.logs.length, ...(last.digest !== undefined && { digest: last.digest }) }
}

/** Whether a record must remain once another block is above it. */
const isKept = (record: BlockRecord, start: number): boolean => record.count > 0 || record.number === start

/** The journal after an accepted push. */
export const pushed = (journal: Journal, push: Push): Journal => {
  const head = afterPush(push)
  const first = push.blocks[0]
  const startBlock = push.blocks.find((block) => block.number === journal.start.number)
  const start = startBlock ? { ...journal.start, hash: startBlock.hash } : journal.start
  if (push.final && head.part === 0) {
    const final = { number: head.number, hash: push.blocks.at(-1)!.hash }
    return { ...journal, start, head, final, window: [] }
  }
  const window = [...journal.window]
  let before = 0
  if (journal.head.part > 0 && window.at(-1)?.hash === first.hash) before = window.pop()!.count
  else if (window.length > 0 && !isKept(window.at(-1)!, start.number)) window.pop()
  for (const block of push.blocks) {
    const count = block.logs.length + (block === first ? before : 0)
    const record = { number: block.number, hash: block.hash, parentHash: block.parentHash, count }
    if (isKept(record, start.number) || block === push.blocks.at(-1)) window.push(record)
  }
  return { ...journal, start, head, window }
}

/**
 * The journal after an accepted pop. The window must not be empty.
 *
 * @param most how many logs one call retracts
 */
export const popped = (journal: Journal, most: number = callLimits.logs): Journal => {
  const top = journal.window.at(-1)!
  const below = journal.window.slice(0, -1)
  if (top.count > most) {
    const count = top.count - most
    const { number, hash } = journal.head
    return { ...journal, head: { number, hash, part: -count }, window: [...below, { ...top, count }] }
  }
  const next = below.at(-1)
  const head = next ? { number: next.number, hash: next.hash, part: 0 } : finalizedHead(journal)
  const start = top.number === journal.start.number ? { ...journal.start, hash: "" as const } : journal.start
  return { ...journal, start, head, window: below }
}

/** The journal with a higher finalized head. A lower one changes nothing. */
export const finalized = (journal: Journal, number: number, hash: Hex): Journal =>
  journal.final !== undefined && number <= journal.final.number
    ? journal
    : {
        ...journal,
        final: { number, hash },
        window: journal.window.filter((record) => record.number > number),
      }
