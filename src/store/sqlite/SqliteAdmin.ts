/** The figures of each chain and of the file, and starting over. */
import { Effect } from "effect"
import { randomUUID } from "node:crypto"
import type { ChainId } from "../../Domain.ts"
import type { ResetOptions, Stats, StoreAdmin } from "../StoreAdmin.ts"
import type { SqliteFile } from "./SqliteFile.ts"
import type { Heads } from "./SqliteHeads.ts"
import type { SqliteRetention } from "./SqliteRetention.ts"
import type { Statements } from "./Statements.ts"

/** The maximum of unread entries that are counted per reader unless an exact count is requested. */
const mostCounted = 1000

export const make = (
  path: string,
  sql: Statements,
  { attempt, atomically }: SqliteFile,
  { head, begin }: Heads,
  { delayingReader }: SqliteRetention,
): StoreAdmin["Service"] => {
  const stats = (chain: ChainId, exactly: boolean): Stats => {
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

  const reset = (chain: ChainId, { from, filter, delete: all }: ResetOptions) => {
    // Throws if a later release wrote the journal.
    head(chain)
    sql.deleteHead(chain)
    sql.forgetUpTo(chain, Number.MAX_SAFE_INTEGER)
    sql.deleteMissed(chain)
    sql.deleteFilters(chain)
    if (all) sql.deleteEvents(chain)
    sql.createJournal(chain, randomUUID(), "reset", from ?? 0)
    if (from !== undefined) begin(chain, from, filter)
  }

  return {
    description: `sqlite ${path}`,
    stats: (chain, exactly = true) => attempt("stats", () => stats(chain, exactly)),
    refused: () => Effect.succeed([]),
    reset: (chain, options) => atomically("reset", () => reset(chain, options)),
    info: attempt("info", () => {
      const { version, bytes } = sql.about()!
      const persistence = path === ":memory:" ? "none" : "write-ahead log, synchronous=NORMAL"
      return { version: `sqlite ${version}`, bytes, limit: 0, evictionPolicy: undefined, persistence }
    }),
  }
}
