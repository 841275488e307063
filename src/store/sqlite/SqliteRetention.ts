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

export const make = (sql: Statements, { complete }: Heads, retention: Retention) => {
  /** The pinned reader furthest behind, if there are enough entries to trim some. */
  const pinOf = (chain: ChainId, entries: number) => {
    const { maxLength } = retention
    return entries > maxLength + trimSlack && maxLength > 0 ? sql.lowestPin(chain, pinnedFor) : undefined
  }

  /** Whether a pinned reader holds entries that are needed for nothing else. */
  const isHeldBy = <Pin extends { readonly id: number }>(
    chain: ChainId,
    pin: Pin | undefined,
    length: number,
  ): pin is Pin =>
    pin !== undefined &&
    length > retention.maxLength + trimSlack &&
    (sql.oldestNeeded(chain)?.id ?? Infinity) > pin.id

  /** The statement that releases a reader. */
  const releaseOf = (chain: ChainId, name: string) =>
    `DELETE FROM readers WHERE chain_id = ${chain} AND name = '${name.replaceAll("'", "''")}'`

  /** Trims, and stores whether publishing is paused: see `trim` in journal.lua. */
  const trimmed = (chain: ChainId, before: number): Trimmed => {
    const { backlog } = retention
    const pin = pinOf(chain, before)
    const dropped = drop(chain, before, pin?.id ?? null)
    const length = before - dropped
    const isHeld = isHeldBy(chain, pin, length)
    const isPaused = isHeld && length >= backlog * (sql.journal(chain)?.paused === 1 ? 0.9 : 1)
    sql.setPaused(isPaused ? 1 : 0, chain, isPaused ? 1 : 0)
    if (!isHeld) return { dropped, holder: undefined }
    const behind = sql.entriesAfter(chain, pin.id)!.entries
    return {
      dropped,
      holder: {
        reader: `reader:${pin.name}`,
        behind,
        length,
        paused: isPaused ? "backlog" : undefined,
        release: releaseOf(chain, pin.name),
      },
    }
  }

  /** Trims the oldest entries beyond the limit, up to the last one that a pinned reader has read. */
  const drop = (chain: ChainId, entries: number, pin: number | null): number => {
    const { maxLength } = retention
    if (maxLength === 0 || entries <= maxLength + trimSlack) return 0
    const below = Math.min(
      sql.oldestNeeded(chain)?.id ?? Number.MAX_SAFE_INTEGER,
      (pin ?? Number.MAX_SAFE_INTEGER - 1) + 1,
    )
    const last = sql.lastToTrim(chain, below, Math.min(entries - maxLength, maxTrimmed))?.id ?? null
    if (last === null) return 0
    sql.countMissed(last, chain, last)
    const { changes } = sql.trim(chain, last)
    sql.countTrimmed(changes, chain)
    complete(chain)
    return Number(changes)
  }

  /** The pinned reader that delays trimming, as far as that is visible without trimming. */
  const delayingReader = (
    chain: ChainId,
    entries: number,
    readers: ReadonlyArray<Pick<Reader, "name" | "lag">>,
  ): DelayingReader | undefined => {
    const pin = pinOf(chain, entries)
    const lag = readers.find(({ name }) => name === pin?.name)?.lag
    const isHeld = isHeldBy(chain, pin, entries) && (lag ?? Infinity) > retention.maxLength
    return isHeld ? { reader: `reader:${pin.name}`, lag, release: releaseOf(chain, pin.name) } : undefined
  }

  return { trimmed, delayingReader }
}

export type SqliteRetention = ReturnType<typeof make>
