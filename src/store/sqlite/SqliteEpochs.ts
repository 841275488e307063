/** The last entry of each chain, and epochs: whether it is still the one that an ingestor knows. See epoch.lua. */
import { randomUUID } from "node:crypto"
import type { ChainId } from "../../Domain.ts"
import type { Acknowledged, Added, EpochCheck, Known } from "../JournalStore.ts"
import type { Heads } from "./SqliteHeads.ts"
import type { EventRow, Statements } from "./Statements.ts"

/** The identity of an entry: block hash, log index, removed. */
const identityOf = (row: EventRow) =>
  `${row["block_hash"]}:${row["log_index"]}:${row.removed === 1 ? "true" : "false"}`

type EventId = Omit<Acknowledged, "epoch">

export const make = (sql: Statements, { head }: Heads) => {
  const lastEntry = (chain: ChainId): EventId | undefined => {
    const { last } = sql.bounds(chain, chain)!
    const row = last === null ? undefined : sql.eventAt(chain, last)
    return row && { id: String(row.id), identity: identityOf(row) }
  }

  /** The entries that a move has appended, if any. @param previous the last entry before the move */
  const addedSince = (chain: ChainId, previous: EventId | undefined): { readonly added?: Added } => {
    const last = lastEntry(chain)
    if (last === undefined || last.id === previous?.id) return {}
    const epoch = sql.journal(chain)?.epoch ?? ""
    return { added: { last: { ...last, epoch }, previous: previous && { ...previous, epoch } } }
  }

  /** Whether a known entry is lost, and was not trimmed: see epoch.lua. */
  const isLost = (chain: ChainId, { id, identity }: Acknowledged): boolean => {
    const found = sql.eventAt(chain, Number(id))
    if (found !== undefined) return identityOf(found) !== identity
    const { first } = sql.bounds(chain, chain)!
    if (first !== null) return Number(id) > first
    return (sql.highestEver()?.seq ?? 0) < Number(id)
  }

  const checkEpoch = (chain: ChainId, known: Known | undefined): EpochCheck => {
    const stored = head(chain)
    let { epoch } = sql.journal(chain) ?? {}
    let outcome: EpochCheck["outcome"] = "kept"
    const last = known?.last
    const past = sql.pastEpochs(chain).map(({ epoch }) => epoch)
    // An epoch that came before the known one: an older copy of the data, even if the entry is in it by now.
    const isOlder =
      last !== undefined && last.epoch !== "" && epoch !== last.epoch && known!.before.includes(epoch ?? "")
    if (stored === undefined && epoch === undefined) outcome = last === undefined ? "kept" : "emptied"
    else if (last !== undefined && (isOlder || isLost(chain, last))) {
      const isKnown = isOlder || last.epoch === "" || last.epoch === epoch
      outcome = isKnown ? "lost" : "new epoch"
      if (isKnown) {
        if (epoch !== undefined) {
          sql.keepEpoch(chain, epoch)
          sql.keepLastEpochs(chain)
          past.push(epoch)
        }
        epoch = randomUUID()
        sql.setEpoch(epoch, chain)
      }
    } else if (last !== undefined && last.epoch !== "" && last.epoch !== epoch) outcome = "new epoch"
    const entry = lastEntry(chain)
    return { outcome, known: { last: entry && { ...entry, epoch: epoch ?? "" }, before: past } }
  }

  return { lastEntry, addedSince, checkEpoch }
}

export type Epochs = ReturnType<typeof make>
