/**
 * The store in one file: `node:sqlite`, the default when no Redis is configured.
 *
 * Each move is one transaction. With `synchronous=NORMAL` a power loss may lose the last transactions, but never their
 * order; the missing tail is then pushed again. Several processes may share the file.
 */
import { Effect, Layer, Random } from "effect"
import { randomUUID } from "node:crypto"
import type { ChainId } from "../../Domain.ts"
import { callLimits } from "../Journal.ts"
import type { CallLimits } from "../Journal.ts"
import type { Retention } from "../Retention.ts"
import { contextOf } from "../Store.ts"
import type { Contracts } from "../Store.ts"
import type { ResetOptions, Stats, StoreAdmin } from "../StoreAdmin.ts"
import type { StoreError } from "../StoreError.ts"
import * as SqliteEntries from "./SqliteEntries.ts"
import * as SqliteEpochs from "./SqliteEpochs.ts"
import { storeError } from "./SqliteErrors.ts"
import * as SqliteFile from "./SqliteFile.ts"
import * as SqliteHeads from "./SqliteHeads.ts"
import * as SqliteJournal from "./SqliteJournal.ts"
import * as SqliteRetention from "./SqliteRetention.ts"
import * as Statements from "./Statements.ts"

/** The maximum of unread entries that are counted per reader unless an exact count is requested. */
const mostCounted = 1000

const adminOf = (
  path: string,
  sql: Statements.Statements,
  { attempt, atomically }: SqliteFile.SqliteFile,
  { head, begin }: SqliteHeads.Heads,
  { delayingReader }: SqliteRetention.SqliteRetention,
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
    sql.deleteConfigVersion(chain)
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

const make = Effect.fnUntraced(function* (path: string, kept: Retention, limits: CallLimits) {
  const file = yield* SqliteFile.make(path)
  const sql = Statements.make(file)
  const heads = SqliteHeads.make(sql)
  const retention = SqliteRetention.make(sql, heads, kept)
  const epochs = SqliteEpochs.make(sql, heads)
  const { nextDoubleUnsafe: random } = yield* Random.Random
  return contextOf({
    ...SqliteJournal.make(sql, file, heads, epochs, retention, limits, random),
    ...SqliteEntries.make(sql, file),
    ...adminOf(path, sql, file, heads, retention),
  })
})

/**
 * A store in the file at `path` (`:memory:` for a database in memory).
 *
 * @param retention how much of each stream is kept
 * @param limits how much a move carries
 */
export const layer = (
  path: string,
  retention: Retention,
  limits: CallLimits = callLimits,
): Layer.Layer<Contracts, StoreError> =>
  Layer.effectContext(
    // A database with tables of another program: its statements cannot be prepared.
    Effect.catchDefect(make(path, retention, limits), (cause) =>
      Effect.fail(storeError("open", path, cause)),
    ),
  )
