/** Applies what a move changes (Journal.ts) to the tables, inside a transaction. */
import type { Block, ChainId } from "../../Domain.ts"
import { changesOf, isWritten, rejectionOf } from "../Journal.ts"
import type { CallLimits, Changes, Conflict, FilterChanged, Finalize, Move, Pop, Push } from "../Journal.ts"
import type { FinalizeResult, PopResult, PushResult } from "../JournalStore.ts"
import type { Epochs } from "./SqliteEpochs.ts"
import { digestMark } from "../StoredHead.ts"
import type { Heads, StoredState } from "./SqliteHeads.ts"
import type { SqliteRetention } from "./SqliteRetention.ts"
import type { Statements } from "./Statements.ts"

/** The first and the last entry of a block. */
interface Range {
  readonly first: number
  readonly last: number
}

/** @param limits how many logs one pop retracts */
export const make = (
  sql: Statements,
  { head, complete, stateOf, begin }: Heads,
  { lastEntry, addedSince }: Epochs,
  { trimmed }: SqliteRetention,
  limits: CallLimits,
) => {
  /** Applies a move if the journal takes it. */
  const applyMove = <Result>(
    chain: ChainId,
    filter: string,
    move: Move,
    apply: (stored: StoredState, changes: Changes) => Result,
  ): Result | Conflict | FilterChanged => {
    const stored = stateOf(chain)
    if (stored === undefined) return { _tag: "Conflict", head: undefined }
    return rejectionOf(stored, filter, move) ?? apply(stored, changesOf(stored, move, limits.logs))
  }

  /** Writes the changes beside the entries. @param ranges the appended or remaining entries of each block, by hash */
  const write = (
    chain: ChainId,
    { row, top }: StoredState,
    { head, start, final, dropsTop, records }: Changes,
    ranges: ReadonlyMap<string, Range | undefined>,
    appended: number,
  ) => {
    if (dropsTop) sql.forget(chain, top!.number)
    for (const { number, hash, parentHash, count } of records) {
      const { first, last } = ranges.get(hash) ?? { first: 0, last: 0 }
      sql.record(chain, number, hash, parentHash, hash === top?.hash ? top.first_id : first, last, count)
    }
    sql.moveHead(head.number, head.hash, head.part, start.hash, appended, appended, chain)
    const added = row.added + appended
    const digest = head.digest === undefined ? "" : digestMark({ ...head, added }) + head.digest
    if (digest !== (row.part_digest ?? "")) sql.setDigest(digest, chain)
    if (final === undefined) return
    sql.setFinalized(final.number, final.hash, chain)
    sql.forgetUpTo(chain, final.number)
  }

  const append = (
    chain: ChainId,
    { number, hash, timestamp, traceparent, logs }: Block,
  ): Range | undefined => {
    let first: number | undefined
    let last = 0
    for (const { txHash, index, contract, topics, data, txIndex } of logs) {
      const values = [txHash, index, contract, JSON.stringify(topics), data, timestamp, txIndex] as const
      last = Number(sql.append(chain, number, hash, ...values, traceparent ?? null).lastInsertRowid)
      first ??= last
    }
    return first === undefined ? undefined : { first, last }
  }

  const push = (chain: ChainId, filter: string, push: Push): PushResult => {
    const { blocks, expected } = push
    if (expected.hash === "" && head(chain) === undefined) begin(chain, expected.number + 1, filter)
    // Checked before the head is compared: the pushes that follow in the pipeline must wait as well.
    if (head(chain)?.paused === 1) return { _tag: "Paused" }
    const result = applyMove(chain, filter, push, (stored, changes): PushResult => {
      const { row } = stored
      // The digest of a part is written into what completes a journal of version 1.
      if (row.version === null) complete(chain)
      const previous = lastEntry(chain)
      const ranges = new Map(blocks.map((block) => [block.hash, append(chain, block)]))
      const appended = blocks.reduce((sum, { logs }) => sum + logs.length, 0)
      write(chain, stored, changes, ranges, appended)
      if (row.added === 0) complete(chain)
      trimmed(chain, row.entries + appended)
      return { _tag: "Pushed", ...addedSince(chain, previous) }
    })
    const isDuplicate =
      result._tag === "Conflict" &&
      result.head !== undefined &&
      isWritten(push, result.head, (number) => sql.recordAt(chain, number))
    return isDuplicate ? { _tag: "Duplicate" } : result
  }

  const pop = (chain: ChainId, filter: string, pop: Pop): PopResult =>
    applyMove(chain, filter, pop, (stored, changes): PopResult => {
      const { hash, first_id: first, last_id: last } = stored.top!
      const { retracted, records } = changes
      const isWhole = records.length === 0
      const from = isWhole ? first : (sql.firstToRetract(chain, first, last, retracted - 1)?.id ?? first)
      const previous = lastEntry(chain)
      const removed = retracted === 0 ? 0 : Number(sql.appendRemovals(chain, from, last).changes)
      write(chain, stored, changes, new Map([[hash, { first, last: from - 1 }]]), removed)
      return { _tag: "Popped", removed, missing: retracted - removed, ...addedSince(chain, previous) }
    })

  const finalize = (chain: ChainId, filter: string, finalize: Finalize): FinalizeResult =>
    applyMove(chain, filter, finalize, (stored, changes): FinalizeResult => {
      if (changes.final !== undefined) {
        write(chain, stored, changes, new Map(), 0)
        trimmed(chain, stored.row.entries)
      }
      return { _tag: "Finalized" }
    })

  return { push, pop, finalize }
}
