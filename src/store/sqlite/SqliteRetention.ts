/** How much of each chain is kept: trimming, and the pinned readers that delay it. */
import type { ChainId } from "../../Domain.ts"
import { pinnedFor } from "../Retention.ts"
import type { DelayingReader, Retention, Trimmed } from "../Retention.ts"
import type { Reader } from "../StoreAdmin.ts"
import type { Heads } from "./SqliteHeads.ts"
import type { Statements } from "./Statements.ts"

/** How far a chain may grow beyond `maxLength` before its oldest entries are trimmed, in one step. */
const trimSlack = 1000

/** The maximum of entries that one push trims, so that a lowered limit does not stall the chain. */
const maxTrimmed = 5000

export const make = (sql: Statements, { complete }: Heads, { maxLength, backlog }: Retention) => {
  const isLong = (entries: number) => maxLength > 0 && entries > maxLength + trimSlack

  /** The oldest entry that a pop needs. */
  const oldestNeeded = (chain: ChainId) => sql.oldestNeeded(chain)?.id ?? Number.MAX_SAFE_INTEGER

  /** The pinned reader furthest behind, if it holds entries that are needed for nothing else. */
  const holderOf = (chain: ChainId, entries: number) => {
    const pin = isLong(entries) ? sql.lowestPin(chain, pinnedFor) : undefined
    if (pin === undefined || pin.id >= oldestNeeded(chain)) return undefined
    const name = pin.name.replaceAll("'", "''")
    const release = `DELETE FROM readers WHERE chain_id = ${chain} AND name = '${name}'`
    return { ...pin, reader: `reader:${pin.name}`, release }
  }

  /** Trims the oldest entries beyond the limit, up to the last one that a pinned reader has read. */
  const drop = (chain: ChainId, entries: number): number => {
    const pin = sql.lowestPin(chain, pinnedFor)
    const below = Math.min(oldestNeeded(chain), pin === undefined ? Infinity : pin.id + 1)
    const last = sql.lastToTrim(chain, below, Math.min(entries - maxLength, maxTrimmed))?.id ?? null
    if (last === null) return 0
    sql.countMissed(last, chain, last)
    const { changes } = sql.trim(chain, last)
    sql.countTrimmed(changes, chain)
    complete(chain)
    return Number(changes)
  }

  /** Trims, and stores whether publishing is paused: see `trim` in retention.lua. */
  const trimmed = (chain: ChainId, before: number): Trimmed => {
    const dropped = isLong(before) ? drop(chain, before) : 0
    const length = before - dropped
    const holder = holderOf(chain, length)
    const limit = backlog * (sql.journal(chain)?.paused === 1 ? 0.9 : 1)
    const isPaused = holder !== undefined && length >= limit
    sql.setPaused(isPaused ? 1 : 0, chain, isPaused ? 1 : 0)
    if (holder === undefined) return { dropped, holder }
    const { reader, release } = holder
    const behind = sql.entriesAfter(chain, holder.id)!.entries
    return { dropped, holder: { reader, behind, length, paused: isPaused ? "backlog" : undefined, release } }
  }

  /** The pinned reader that delays trimming, as far as that is visible without trimming. */
  const delayingReader = (
    chain: ChainId,
    entries: number,
    readers: ReadonlyArray<Pick<Reader, "name" | "lag">>,
  ): DelayingReader | undefined => {
    const holder = holderOf(chain, entries)
    const lag = readers.find(({ name }) => name === holder?.name)?.lag
    if (holder === undefined || (lag ?? Infinity) <= maxLength) return undefined
    return { reader: holder.reader, lag, release: holder.release }
  }

  return { trimmed, delayingReader }
}

export type SqliteRetention = ReturnType<typeof make>
