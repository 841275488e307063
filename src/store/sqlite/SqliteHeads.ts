/** The stored head of each chain, its consistency with window and entries, and its comparison with the expected one. */
import { randomUUID } from "node:crypto"
import type { ChainId } from "../../Domain.ts"
import { heightOf, journalVersion } from "../Journal.ts"
import type { Journal, Move } from "../Journal.ts"
import { journalOf } from "../StoredHead.ts"
import { NewerVersion } from "./SqliteErrors.ts"
import type { HeadRow, RecordRow, Statements } from "./Statements.ts"

/** A stored journal, of which a move has read what it needs. */
export interface StoredState {
  readonly row: HeadRow
  readonly top: RecordRow | undefined
  /** Its window holds only the records that the move reads. */
  readonly journal: Journal
  readonly contradiction: string | undefined
}

export const make = (sql: Statements) => {
  /** The stored head. Throws `NewerVersion` if a later release wrote it. */
  const head = (chain: ChainId): HeadRow | undefined => {
    const current = sql.headOf(chain)
    const version = current === undefined ? sql.journal(chain)?.version : current.version
    if ((version ?? 1) > journalVersion) throw new NewerVersion({ version: version! })
    return current
  }

  /** The block from which on every entry is stored: see firstNumber in common.lua. */
  const firstNumberOf = (chain: ChainId, { added, entries, number, start_number }: HeadRow): number => {
    if (added === 0 || entries > added) return start_number
    const first = sql.eventsAfter(chain, 0, 1)[0]
    if (first === undefined) return number + 1
    const isFirst =
      entries === added ||
      sql.recordAt(chain, first.block_number)?.first_id === first.id ||
      (first["log_index"] === 0 && first.removed === 0)
    return isFirst ? first.block_number : first.block_number + 1
  }

  /** How the stored head, window and entries of a chain contradict each other, if they do: see load.lua. */
  const contradictionOf = (chain: ChainId, current: HeadRow | undefined, last: RecordRow | undefined) => {
    const { last: lastId } = sql.bounds(chain, chain)!
    if (current === undefined) {
      if (last !== undefined) return "it has records of blocks and no head"
      return lastId !== null && sql.journal(chain) === undefined ? "it has entries and no head" : undefined
    }
    const { added, final_number, hash, number, start_number } = current
    if (last === undefined) {
      if (number !== start_number - 1 && number !== final_number)
        return `its head is block ${number}, which is not final, and it has no records`
    } else if (last.number !== number || last.hash !== hash)
      return `its head is block ${number} and its last record is block ${last.number}`
    if (added > 0 && lastId === null) return "it has a head and no entries"
    return undefined
  }

  /** Keeps the fields of version 2 up to date. A journal of version 1 begins an epoch. */
  const complete = (chain: ChainId) => {
    const current = head(chain)
    if (current === undefined) return
    const first = firstNumberOf(chain, current)
    if (current.version === null) sql.createJournal(chain, randomUUID(), "begun", first)
    else if (current.first_number !== first) sql.setFirst(first, chain)
  }

  /** Reads what a move needs. */
  const stateOf = (chain: ChainId, move: Move): StoredState | undefined => {
    const row = head(chain)
    if (row === undefined) return undefined
    const [top, below] = sql.highestRecords(chain)
    const height = heightOf(move)
    const named = top !== undefined && height < top.number ? sql.recordAt(chain, height) : undefined
    const window = [named, below, top].filter((record) => record !== undefined)
    return { row, top, journal: journalOf(row, window), contradiction: contradictionOf(chain, row, top) }
  }

  /** Begins a journal. Entries of an earlier one count, so that they are trimmed. */
  const begin = (chain: ChainId, start: number, filter: string) => {
    sql.createHead(chain, start - 1, start, filter, start, sql.entriesAfter(chain, 0)!.entries)
    complete(chain)
  }

  return { head, contradictionOf, complete, stateOf, begin }
}

export type Heads = ReturnType<typeof make>
