/**
 * What a reader does about the entries that it has read: which blocks it undoes and applies, and where it is then. Pure.
 *
 * The stream is the journal of a stack: an entry is added on top, and removed from the top. Whether a block survives is therefore
 * shown by the lowest block number that comes after it: every later entry is above a block that is still there.
 */
import { hashOf, identityOf, isRemoval, logOf, numberOf } from "./Entry.ts"
import type { Entry, Head, Log, RawBlock } from "./Entry.ts"
import type { AppliedBlock, Position, State } from "./Position.ts"

/** Which blocks are delivered: all, only final ones, or those with so many blocks above them. */
export type Finality = "latest" | "finalized" | number

/** What a reader asks for. */
export interface Wanted {
  readonly finality: Finality
  readonly matches: (log: Log) => boolean
}

/** The entries in hand. */
export interface View {
  /** The entries after the position. The last block may be cut. */
  readonly entries: ReadonlyArray<Entry>
  /** The head of the journal at the end of these entries, or of a later page. */
  readonly horizon: Pick<Head, "number" | "hash" | "part" | "finalNumber">
  /** Whether these entries go up to the horizon. */
  readonly isAtHorizon: boolean
  /** The lowest block number of the entries between these and the horizon; `Infinity` without any. */
  readonly laterMinimum: number
}

/** One call of a handler, and the position after it. */
export interface Step {
  readonly kind: "apply" | "undo"
  readonly block: RawBlock
  readonly position: Position
  /** The applied blocks after it that are not final. */
  readonly stack: ReadonlyArray<AppliedBlock>
}

export interface Plan {
  readonly steps: ReadonlyArray<Step>
  /** The state after all of them, and after entries that need no handler. */
  readonly state: State
  /** The number of the first block that must wait for finality or confirmations. */
  readonly held: number | undefined
  /** Nothing could be done, because these entries are a part of one block. */
  readonly isCut: boolean
}

/** Successive entries of one block. */
interface Run {
  readonly hash: string
  readonly number: number
  readonly removal: boolean
  readonly entries: Array<Entry>
}

export const runsOf = (entries: ReadonlyArray<Entry>): Array<Run> => {
  const runs: Array<Run> = []
  for (const entry of entries) {
    const [hash, removal, last] = [hashOf(entry), isRemoval(entry), runs.at(-1)]
    if (last?.hash === hash && last.removal === removal) last.entries.push(entry)
    else runs.push({ hash, number: numberOf(entry), removal, entries: [entry] })
  }
  return runs
}

/** The highest block of the journal that is complete. */
export const wholeNumber = ({ number, part }: Pick<Head, "number" | "part">): number =>
  part === 0 ? number : number - 1

/** The highest block that may be delivered. */
export const limitOf = (finality: Finality, horizon: View["horizon"]): number => {
  if (finality === "latest") return Infinity
  if (finality === "finalized") return horizon.finalNumber
  return wholeNumber(horizon) - finality
}

/** The position after a run. */
export const after = (position: Position, { entries }: Pick<Run, "entries">): Position => {
  const last = entries.at(-1)!
  return {
    ...position,
    id: last.id,
    identity: identityOf(last),
    offset: position.offset + entries.length,
  }
}

const blockOf = (run: Run, finalized: boolean, matches: Wanted["matches"]): RawBlock => {
  const logs = run.entries.map(logOf).filter(matches)
  const { chain_id: chain, timestamp } = run.entries[0]!.fields
  return {
    chain: Number(chain),
    number: run.number,
    hash: run.hash as RawBlock["hash"],
    timestamp: Number(timestamp),
    finalized,
    logs,
  }
}

/** For each run, the lowest block number that comes after it. */
const minimaAfter = (runs: ReadonlyArray<Run>, laterMinimum: number): Array<number> => {
  const minima: Array<number> = []
  let minimum = laterMinimum
  for (let i = runs.length - 1; i >= 0; i--) {
    minima[i] = minimum
    minimum = Math.min(minimum, runs[i]!.number)
  }
  return minima
}

/**
 * Plans what to do about the entries in hand.
 *
 * - A run of adds whose block does not survive up to the horizon is skipped, and so is its removal.
 * - The first removed entry of an applied block undoes it, and what was applied above it.
 * - A block on top of an applied one that has its number or a higher one replaces it, even if entries of its removal are missing.
 * - What is final, and what was applied already, is skipped: after a failover, entries may come again under new ids.
 */
export const plan = (state: State, view: View, { finality, matches }: Wanted): Plan => {
  const { horizon, isAtHorizon } = view
  const limit = limitOf(finality, horizon)
  const runs = runsOf(view.entries)
  const minima = minimaAfter(runs, view.laterMinimum)
  const steps: Array<Step> = []
  let { position } = state
  let stack = [...state.stack]
  let held: number | undefined
  let isCut = false
  let isWaitingForRest = false

  const undo = (top: AppliedBlock, next: Position) => {
    stack = stack.slice(0, -1)
    position = next
    if (!top.skipped) steps.push({ kind: "undo", block: top, position, stack })
  }

  for (const [i, run] of runs.entries()) {
    const isLast = i === runs.length - 1
    const isWhole = !isLast || (isAtHorizon && !(horizon.part > 0 && horizon.hash === run.hash))
    const next = after(position, run)
    const known = stack.findIndex(({ hash }) => hash === run.hash)
    // Its handler may not have run.
    const isPending = stack[known]?.pending === true
    if (run.removal) {
      // If the consumer ends between two of these, the next one finds the rest by the same entries.
      const above = known === -1 ? [] : stack.slice(known).reverse()
      for (const top of above) undo(top, top.hash === run.hash ? next : position)
      position = next
      continue
    }
    if (!isWhole) {
      isCut = i === 0 && !isAtHorizon
      isWaitingForRest = isAtHorizon
      break
    }
    const survives = minima[i]! > run.number
    if (survives && run.number > limit && run.number > position.final && known === -1) {
      held = run.number
      break
    }
    const isFinal = survives && run.number <= horizon.finalNumber
    if (run.number <= position.final || (known >= 0 && !isPending) || !survives) {
      position = next
      continue
    }
    if (isPending) stack = stack.slice(0, known)
    while (stack.length > 0 && stack.at(-1)!.number >= run.number) undo(stack.at(-1)!, position)
    const block = blockOf(run, isFinal, matches)
    position = { ...next, block: run.number, final: isFinal ? run.number : position.final }
    if (isFinal) stack = []
    if (block.logs.length === 0) continue
    if (!isFinal) stack = [...stack, { ...block, skipped: false, pending: false }]
    steps.push({ kind: "apply", block, position, stack })
  }

  const isConsumed = position.id === (view.entries.at(-1)?.id ?? position.id)
  if (held !== undefined || isWaitingForRest || (isAtHorizon && isConsumed)) {
    position = {
      ...position,
      block: Math.min(wholeNumber(horizon), limit),
      final: Math.max(position.final, Math.min(horizon.finalNumber, limit)),
    }
  }
  stack = stack.filter(({ number }) => number > position.final)
  return { steps, state: { position, stack }, held, isCut }
}
