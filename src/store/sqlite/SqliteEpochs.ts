/** The last entry of each chain, and epochs: whether it is still the one that an ingestor knows. See epoch.lua. */
import { randomUUID } from "node:crypto"
import type { ChainId } from "../../Domain.ts"
import type { Acknowledged, Added, EpochCheck, Known } from "../JournalStore.ts"
import type { Heads } from "./SqliteHeads.ts"
import type { EventKey, Statements } from "./Statements.ts"

/** The identity of an entry: block hash, log index, removed. */
const identityOf = ({ block_hash, log_index, removed }: EventKey) =>
  `${block_hash}:${log_index}:${removed === 1}`

type EventId = Omit<Acknowledged, "epoch">

export const make = (sql: Statements, { head }: Heads) => {
  const lastEntry = (chain: ChainId): EventId | undefined => {
    const row = sql.lastEvent(chain)
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

  const outcomeOf = (
    chain: ChainId,
    { last, before }: Known,
    epoch: string | undefined,
    isEmpty: boolean,
  ) => {
    if (last === undefined) return "kept"
    if (isEmpty) return "emptied"
    const isOther = last.epoch !== "" && last.epoch !== epoch
    // An epoch that came before the known one: an older copy of the data, even if the entry is in it by now.
    const isOlder = isOther && before.includes(epoch ?? "")
    if (isOlder || (!isOther && isLost(chain, last))) return "lost"
    return isOther ? "new epoch" : "kept"
  }

  const checkEpoch = (chain: ChainId, known: Known = { last: undefined, before: [] }): EpochCheck => {
    let { epoch } = sql.journal(chain) ?? {}
    const isEmpty = head(chain) === undefined && epoch === undefined
    const before = sql.pastEpochs(chain).map(({ epoch }) => epoch)
    const outcome = outcomeOf(chain, known, epoch, isEmpty)
    if (outcome === "lost") {
      if (epoch !== undefined) {
        sql.keepEpoch(chain, epoch)
        sql.keepLastEpochs(chain)
        before.push(epoch)
      }
      epoch = randomUUID()
      sql.setEpoch(epoch, chain)
    }
    const last = lastEntry(chain)
    return { outcome, known: { last: last && { ...last, epoch: epoch ?? "" }, before } }
  }

  return { lastEntry, addedSince, checkEpoch }
}

export type Epochs = ReturnType<typeof make>
