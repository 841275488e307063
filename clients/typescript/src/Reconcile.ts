/**
 * After the store was set back (a failover to a lagging replica, an older copy of the data): finds which applied blocks the stream
 * no longer has, and where to go on reading.
 */
import { isRemoval, logOf, numberOf } from "./Entry.ts"
import type { Entry, Head } from "./Entry.ts"
import { TrimmedError } from "./Errors.ts"
import { after, runsOf } from "./Plan.ts"
import type { Step, Wanted } from "./Plan.ts"
import type { Position, State } from "./Position.ts"
import { firstNumberOf } from "./Source.ts"
import type { Snapshot, Source } from "./Source.ts"

/** How the entry of a position, and the epoch, relate to the stream. */
export type Standing = "continues" | "empty" | "trimmed" | "reset" | "set back"

/**
 * Compares a position with a snapshot whose first known entry is that of the position.
 *
 * Where the entry is missing, the number of entries that were trimmed tells whether it was trimmed or lost.
 */
export const standingOf = (
  position: Position,
  { head, length, first, known }: Snapshot,
  { compare, lowest }: Pick<Source, "compare" | "lowest">,
  identity: (entry: Entry) => string,
): Standing => {
  if (head === undefined) return "empty"
  const isNewEpoch = position.epoch !== head.epoch
  if (isNewEpoch && head.epochReason === "reset") return "reset"
  const gone = head.added - length
  if (known[0] !== undefined && identity(known[0]) === position.identity) return "continues"
  if (isNewEpoch || (first !== undefined && compare(first, position.id) <= 0)) return "set back"
  // An earlier version of the ingestor does not count.
  if (gone === position.offset || (gone < 0 && position.id === lowest)) return "continues"
  return gone > position.offset ? "trimmed" : "set back"
}

const pageSize = 1000

/** The entries from the last one that adds a block at or below `final` on, in order, or all of them. */
const tailAbove = async (source: Source, last: string | undefined, final: number) => {
  const tail: Array<Entry> = []
  let from = last
  while (from !== undefined) {
    const page = await source.readBack(from, pageSize)
    // The lower end of a page is the upper end of the next one.
    for (const entry of page.slice(tail.length === 0 ? 0 : 1)) {
      if (!isRemoval(entry) && numberOf(entry) <= final) return { entries: tail.toReversed(), below: entry }
      tail.push(entry)
    }
    from = page.length === pageSize ? page.at(-1)!.id : undefined
  }
  return { entries: tail.toReversed(), below: undefined }
}

interface Reconciled {
  /** The blocks to undo, and the new position after the last of them. */
  readonly steps: ReadonlyArray<Step>
  readonly state: State
}

/**
 * Folds the tail of the stream, keeps the applied blocks that it has, undoes the others, and goes on after the last one kept.
 *
 * @returns `undefined` if the stream has changed meanwhile: another snapshot is needed
 * @throws TrimmedError if entries above the final block are not in the stream
 */
export const reconcile = async (
  source: Source,
  state: State,
  snapshot: Snapshot & { readonly head: Head },
  { chain, matches, pinned }: Pick<Wanted, "matches"> & { readonly chain: number; readonly pinned: boolean },
  identity: (entry: Entry) => string,
): Promise<Reconciled | undefined> => {
  const { position } = state
  const { head, first, last, length } = snapshot
  const firstNumber = firstNumberOf(head, snapshot)
  const { entries, below } = await tailAbove(source, last, position.final)
  // Some of it was trimmed between the snapshot and its reading.
  if (below === undefined && entries.length < length) return undefined
  const trimmed = () =>
    new TrimmedError(chain, `entries after block ${position.final} are needed again`, firstNumber)
  const isIncomplete = below === undefined && firstNumber > position.final + 1
  // Without a set-back, what comes before the position is read again only for a block that must be applied again.
  let isKept = standingOf(position, snapshot, source, identity) === "continues"
  // Only final blocks are trimmed, and what a pinned reader has not read is kept.
  const isBelow = first !== undefined && source.compare(first, position.id) <= 0
  const isRead = isKept || isBelow || (pinned && head.added - length <= position.offset)
  if (isIncomplete && !isRead) throw trimmed()
  const start: Position = {
    ...position,
    epoch: head.epoch,
    filter: head.filter,
    id: below?.id ?? source.lowest,
    identity: below === undefined ? "" : identity(below),
    // Counted from the end: what lies before may have been trimmed meanwhile.
    offset: head.added - entries.length,
  }
  // The blocks that the tail leaves, with the position after each. The first entries of the first one may have been trimmed.
  let end = start
  const surviving: Array<{
    readonly hash: string
    readonly matches: boolean
    readonly isCut: boolean
    readonly begin: string
    readonly end: Position
  }> = []
  for (const [i, run] of runsOf(entries).entries()) {
    end = after(end, run)
    if (!run.removal)
      surviving.push({
        hash: run.hash,
        matches: run.number > position.final && run.entries.some((entry) => matches(logOf(entry))),
        isCut: isIncomplete && i === 0 && run.number < firstNumber,
        begin: run.entries[0]!.id,
        end,
      })
    else if (surviving.at(-1)?.hash === run.hash) surviving.pop()
  }
  if (head.part > 0 && surviving.at(-1)?.hash === head.hash) surviving.pop()
  let stack = state.stack.filter(({ number }) => number > position.final)
  let kept = 0
  // An applied block whose entries were trimmed is still there if no later entry has its number or a lower one.
  const lowest = isIncomplete
    ? entries.reduce((lowest, entry) => Math.min(lowest, numberOf(entry)), firstNumber)
    : -Infinity
  for (; kept < stack.length && stack[kept]!.number < lowest; kept++) {
    // It would have to be applied again.
    if (stack[kept]!.pending) throw trimmed()
  }
  let next = start
  for (const block of surviving) {
    const known = stack[kept]
    const isKnown = known?.hash === block.hash
    if (isKnown) kept++
    // It is applied, or applied again.
    if (isKnown ? known.pending : block.matches) {
      if (block.isCut) throw trimmed()
      isKept &&= source.compare(block.begin, position.id) > 0
      break
    }
    next = block.end
  }
  if (isKept && source.compare(next.id, position.id) < 0)
    next = { ...position, epoch: head.epoch, filter: head.filter }
  const steps: Array<Step> = []
  for (let i = stack.length - 1; i >= kept; i--) {
    const block = stack[i]!
    stack = stack.slice(0, i)
    // Until the last one is retracted, the old position stays, with its epoch: a consumer that ends between two of them
    // reconciles again.
    if (!block.skipped)
      steps.push({
        kind: "undo",
        block,
        position: i === kept ? { ...next, block: position.block } : position,
        stack,
      })
  }
  return { steps, state: { position: next, stack } }
}
