/** The figures of each chain: its entries, its readers and the one that delays trimming. */
import type { ChainId } from "../../Domain.ts"
import type { Stats } from "../StoreAdmin.ts"
import type { Heads } from "./SqliteHeads.ts"
import type { SqliteRetention } from "./SqliteRetention.ts"
import type { Statements } from "./Statements.ts"

/** The maximum of unread entries that are counted per reader unless an exact count is requested. */
const mostCounted = 1000

export const make =
  (sql: Statements, { head }: Heads, delayingReader: SqliteRetention["delayingReader"]) =>
  (chain: ChainId, exactly: boolean): Stats => {
    const { first, last } = sql.bounds(chain, chain)!
    const text = (id: number | null) => (id === null ? undefined : String(id))
    const current = head(chain)
    const { epoch, epoch_reason: reason, paused } = sql.journal(chain) ?? {}
    const entries = exactly || current === undefined ? sql.entriesAfter(chain, 0)!.entries : current.entries
    const added = current?.added ?? 0
    const most = exactly ? -1 : mostCounted + 1
    const readers = sql.readersOf(most, chain).map(({ id, lag, ...reader }) => ({
      ...reader,
      id: String(id),
      lag: lag === most ? undefined : lag,
    }))
    return {
      entries,
      trimmed: Math.max(added - entries, 0),
      previous: Math.max(entries - added, 0),
      firstId: text(first),
      lastId: text(last),
      firstNumber: current?.first_number ?? undefined,
      epoch: epoch === undefined ? undefined : { token: epoch, reason: reason! },
      bytes: undefined,
      groups: [],
      readers,
      holder: delayingReader(chain, entries, readers),
      paused: paused === 1,
      aliveAgo: sql.lastHeartbeat(chain)?.ago,
    }
  }
