/**
 * The journal of one chain, as pure data: a stack of blocks, and how the two moves and raising the floor change it.
 *
 * Every store does in its own medium what these functions do to the data, and the feed uses them to know where the
 * journal will stand once the moves it has already sent are done.
 */
import { createHash } from "node:crypto"
import type { Block, Hex, Log } from "../Domain.ts"
import { sizeOf } from "./redis/MessagePack.ts"

/**
 * The version of what is stored of a journal beside its entries. Version 1 has neither digests of parts nor epochs; its
 * ingestors and these may write one journal at the same time.
 */
export const journalVersion = 2

/**
 * Where a journal stands: the block on top.
 *
 * `part` is 0 when that block is whole. `n`: its first `n` logs are in and more must follow. `-n`: it is being undone
 * and `n` of its logs are still in. Only blocks too large for one call are ever seen in part.
 */
export interface Position {
  readonly number: number
  /** Empty when the start block is not in: nothing is known about the block below it. */
  readonly hash: Hex | ""
  readonly part: number
  /** Which logs the first `n` are: only the same may be continued. Absent for a whole block, or where it is not known. */
  readonly digest?: string
}

/** A block that can still be undone. `count`: how many of its logs are in the stream. */
export interface BlockRecord {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
  readonly count: number
}

export interface Journal {
  readonly head: Position
  /** The highest block that is beyond undoing; the floor of the window. */
  readonly final: { readonly number: number; readonly hash: Hex } | undefined
  /** Where the journal begins. The hash is empty until that block is in. */
  readonly start: { readonly number: number; readonly hash: Hex | "" }
  /** The fingerprint of the filter, and the first block that was read with it. */
  readonly filter: string
  readonly filterSince: number
  /** Recorded blocks above the floor, lowest first: the start block, every block with logs, and the head. */
  readonly window: ReadonlyArray<BlockRecord>
}

/** A block, or as much of a large block as goes into one call. */
export interface BlockChunk extends Block {
  /** `false`: more logs of this block follow in the next call. */
  readonly whole: boolean
  /** The digest of the block's logs up to the end of this slice, if it is not whole. */
  readonly digest?: string
}

/** Append every log of these blocks, record the blocks, move the head: if the head is still the expected one. */
export interface Push {
  readonly _tag: "Push"
  readonly expected: Position
  readonly blocks: readonly [BlockChunk, ...ReadonlyArray<BlockChunk>]
  /** The blocks are final already: nothing but the head is kept of them. */
  readonly final: boolean
}

/** Undo the block on top, or as many of its last logs as one call undoes: if the head is still the expected one. */
export interface Pop {
  readonly _tag: "Pop"
  readonly expected: Position
}

/** Raise the floor to a block at or below the head: if the head is still the expected one. A lower floor changes nothing. */
export interface Finalize {
  readonly _tag: "Finalize"
  readonly expected: Position
  readonly number: number
  readonly hash: Hex
}

export type Move = Push | Pop | Finalize

/**
 * How much one call carries: a store must not stand still for a large block, and managed servers limit the arguments and
 * the size of a command (ElastiCache Serverless: 3 999 arguments).
 */
export interface CallLimits {
  /** The most logs that one call appends or undoes. */
  readonly logs: number
  /** The most blocks of one push. */
  readonly blocks: number
  /** The most bytes of logs in one push. A single log may be larger. */
  readonly bytes: number
}

export const callLimits: CallLimits = { logs: 1000, blocks: 500, bytes: 1024 * 1024 }

/** Below the start block. */
export const emptyHead = (start: number): Position => ({ number: start - 1, hash: "", part: 0 })

/** Whether a move that expects `a` may be made at `b`. */
export const samePosition = (a: Position, b: Position): boolean =>
  a.number === b.number && a.hash === b.hash && a.part === b.part && (a.digest ?? "") === (b.digest ?? "")

/** An empty journal that will begin at `start`. */
export const emptyJournal = (start: number, filter: string): Journal => ({
  head: emptyHead(start),
  final: undefined,
  start: { number: start, hash: "" },
  filter,
  filterSince: start,
  window: [],
})

/** The position under the whole window: the final block, or the ground. */
export const finalizedHead = (journal: Pick<Journal, "final" | "start">): Position =>
  journal.final ? { ...journal.final, part: 0 } : emptyHead(journal.start.number)

/** The lowest block that can still be undone, recorded or not. */
export const firstUnfinalized = (journal: Pick<Journal, "final" | "start">): number =>
  Math.max(finalizedHead(journal).number + 1, journal.start.number)

/** Where the head stands after a push. */
export const afterPush = (push: Push): Position => {
  const last = push.blocks.at(-1)!
  const before = push.expected.part > 0 && push.expected.hash === last.hash ? push.expected.part : 0
  const at = { number: last.number, hash: last.hash }
  if (last.whole) return { ...at, part: 0 }
  return { ...at, part: before + last.logs.length, ...(last.digest !== undefined && { digest: last.digest }) }
}

/** Digests of the logs of a block from its first one on, whatever the calls in which they are written. */
const makeDigest = () => {
  const hash = createHash("sha256")
  return {
    add: (logs: ReadonlyArray<Log>): void => {
      for (const { index, txHash, contract, topics, data } of logs)
        hash.update(`${index} ${txHash} ${contract} ${topics.join()} ${data}\n`)
    },
    value: (): string => hash.copy().digest("hex").slice(0, 32),
  }
}

/** The digest of the first `count` logs of a block: what `Position.digest` says of its first part. */
export const digestOfPart = ({ logs }: Pick<Block, "logs">, count: number): string => {
  const digest = makeDigest()
  digest.add(logs.slice(0, count))
  return digest.value()
}

/** Whether a record must stay once another block is on top of it. */
const isKept = (record: BlockRecord, start: number): boolean => record.count > 0 || record.number === start

/** The journal after a push that was accepted. */
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
 * The journal after a pop that was accepted. There must be a block on top to undo.
 *
 * @param most how many logs one call undoes
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

/** The journal after the floor was raised. It is never lowered. */
export const finalized = (journal: Journal, number: number, hash: Hex): Journal =>
  journal.final !== undefined && number <= journal.final.number
    ? journal
    : {
        ...journal,
        final: { number, hash },
        window: journal.window.filter((record) => record.number > number),
      }

/** Where the part of a block that begins at `from` ends: after one log at least. */
const endOfPart = (logs: ReadonlyArray<Log>, from: number, limits: CallLimits): number => {
  let end = from + 1
  let bytes = sizeOf(logs[from]!)
  while (end < logs.length && end - from < limits.logs) {
    bytes += sizeOf(logs[end]!)
    if (bytes > limits.bytes) break
    end++
  }
  return end
}

/** Cuts blocks into calls within the limits, in order. A larger block gets calls of its own. */
export const pushes = function* (
  expected: Position,
  blocks: Iterable<Block>,
  final: boolean,
  limits: CallLimits = callLimits,
): Generator<Push, void, undefined> {
  let position = expected
  let batch: Array<BlockChunk> = []
  let logs = 0
  let bytes = 0
  const call = (blocks: ReadonlyArray<BlockChunk>): Push => {
    const push: Push = { _tag: "Push", expected: position, blocks: blocks as Push["blocks"], final }
    position = afterPush(push)
    return push
  }
  for (const block of blocks) {
    const done = position.part > 0 && position.hash === block.hash ? position.part : 0
    const count = block.logs.length
    let size = 0
    for (const log of block.logs) size += sizeOf(log)
    const isFull = batch.length === limits.blocks || logs + count > limits.logs || bytes + size > limits.bytes
    if (batch.length > 0 && isFull) {
      yield call(batch)
      batch = []
      logs = bytes = 0
    }
    if (done === 0 && (count <= 1 || (count <= limits.logs && size <= limits.bytes))) {
      batch.push({ ...block, whole: true })
      logs += count
      bytes += size
      continue
    }
    const digest = makeDigest()
    digest.add(block.logs.slice(0, done))
    for (let from = done; from < count;) {
      const end = endOfPart(block.logs, from, limits)
      const part = block.logs.slice(from, end)
      digest.add(part)
      const whole = end === count
      yield call([{ ...block, logs: part, whole, ...(!whole && { digest: digest.value() }) }])
      from = end
    }
  }
  if (batch.length > 0) yield call(batch)
}

/**
 * Lets go of the logs of a push that the store has taken: nobody reads them any more.
 *
 * They would go by themselves, but late. Fibers and scopes are kept in Maps and Sets that never stop changing, and V8
 * links each outgrown table of one to the next: as soon as one of them is old, everything that any of them ever
 * mentioned, finished fibers with all their blocks, outlives every collection of young memory. Without this an event
 * costs a third more CPU.
 */
export const freeLogs = ({ blocks }: Push): void => {
  for (const { logs } of blocks) (logs as Array<Log>).length = 0
}
