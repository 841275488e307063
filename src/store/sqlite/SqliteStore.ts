/**
 * The store in one file: `node:sqlite`, the default when no Redis is configured.
 *
 * Each move is one transaction. With `synchronous=NORMAL` a power loss may lose the last transactions, but never their
 * order; the missing tail is then pushed again. Several processes may share the file.
 */
import { Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import { entryFields } from "../../Domain.ts"
import type { ChainId, Entry } from "../../Domain.ts"
import { callLimits } from "../Journal.ts"
import type { CallLimits } from "../Journal.ts"
import type { Retention } from "../Retention.ts"
import { pageSize, paged } from "../Entries.ts"
import type { Entries } from "../Entries.ts"
import type { JournalStore } from "../JournalStore.ts"
import type { StoreAdmin } from "../StoreAdmin.ts"
import { contextOf } from "../Store.ts"
import { corruptJournal } from "../StoreError.ts"
import type { ResetOptions } from "../StoreAdmin.ts"
import type { StoreError } from "../StoreError.ts"
import { storeError } from "./SqliteErrors.ts"
import * as SqliteEpochs from "./SqliteEpochs.ts"
import * as SqliteFile from "./SqliteFile.ts"
import * as SqliteHeads from "./SqliteHeads.ts"
import { journalOf } from "../StoredHead.ts"
import * as SqliteMoves from "./SqliteMoves.ts"
import * as SqliteRetention from "./SqliteRetention.ts"
import * as SqliteStats from "./SqliteStats.ts"
import * as Statements from "./Statements.ts"
import type { EventRow } from "./Statements.ts"

const entryOf = (row: EventRow): Entry => {
  const entry: Record<string, string> = {}
  for (const field of entryFields) {
    const value = field === "removed" ? row.removed === 1 : row[field]
    if (value !== null) entry[field] = String(value)
  }
  return entry as Entry
}

const make = Effect.fnUntraced(function* (path: string, retention: Retention, limits: CallLimits) {
  const file = yield* SqliteFile.make(path)
  const { attempt, atomically } = file
  const sql = Statements.make(file)
  const heads = SqliteHeads.make(sql)
  const { head, inconsistency, complete, begin } = heads
  const keeping = SqliteRetention.make(sql, heads, retention)
  const epochs = SqliteEpochs.make(sql, heads)
  const { push, pop, finalize } = SqliteMoves.make(sql, heads, epochs, keeping, limits)
  const stats = SqliteStats.make(sql, heads, keeping.delayingReader)

  const replaceFilter = (chain: ChainId, filter: string) => {
    const current = head(chain)
    if (current === undefined) return
    const since = current.part === 0 ? current.number + 1 : current.number
    sql.changeFilter(filter, since, current.part > 0 ? -current.part : current.part, chain)
    sql.setDigest("", chain)
    if (current.filter === filter) return
    for (const known of [current.filter, filter]) sql.forgetFilter(chain, known)
    sql.keepFilter(chain, current.filter)
    sql.keepLastFilters(chain)
  }

  const reset = (chain: ChainId, { from, filter, delete: all }: ResetOptions) => {
    head(chain)
    sql.deleteHead(chain)
    sql.forgetUpTo(chain, Number.MAX_SAFE_INTEGER)
    sql.deleteMissed(chain)
    sql.deleteFilters(chain)
    if (all) sql.deleteEvents(chain)
    sql.createJournal(chain, randomUUID(), "reset", from ?? 0)
    if (from !== undefined) begin(chain, from, filter)
  }

  const seek = (chain: ChainId, block: number): string | undefined => {
    let { first: low, last: high } = sql.bounds(chain, chain)!
    if (low === null || high === null) return undefined
    let after: number | undefined
    while (low <= high) {
      const middle: number = Math.floor((low + high) / 2)
      const found: EventRow | undefined = sql.readAfter(chain, middle - 1, 1)[0]
      if (found === undefined || found.block_number >= block) {
        high = middle - 1
      } else {
        after = found.id
        low = found.id + 1
      }
    }
    return after === undefined ? undefined : String(after)
  }

  return contextOf({
    description: `sqlite ${path}`,
    limits,
    // An empty transaction succeeds even in a read-only file, so this one writes.
    ping: () =>
      atomically("ping", () => file.exec(`PRAGMA user_version = ${sql.userVersion()!.user_version}`)),
    load: (chain) =>
      atomically("load", () => {
        const current = head(chain)
        const window = sql.records(chain)
        const why = inconsistency(chain, current, window.at(-1))
        if (why !== undefined) throw corruptJournal(chain, why)
        const records = window.map(({ number, hash, parentHash, count }) => ({
          number,
          hash,
          parentHash,
          count,
        }))
        return current && journalOf(current, records)
      }),
    push: (chain, filter, move) => atomically("push", () => push(chain, filter, move)),
    pop: (chain, filter, move) => atomically("pop", () => pop(chain, filter, move)),
    finalize: (chain, filter, move) => atomically("finalize", () => finalize(chain, filter, move)),
    checkEpoch: (chain, known) => atomically("epoch check", () => epochs.checkEpoch(chain, known)),
    changeFilter: (chain, filter) => atomically("filter change", () => replaceFilter(chain, filter)),
    after: (chain, after) => {
      const page = (after: string | undefined) =>
        attempt("read", () =>
          sql.readAfter(chain, Number(after ?? 0), pageSize).map((row) => ({
            id: String(row.id),
            entry: entryOf(row),
          })),
        )
      return paged(page, after)
    },
    seek: (chain, block) => attempt("seek", () => seek(chain, block)),
    stats: (chain, exactly = true) => attempt("stats", () => stats(chain, exactly)),
    refused: () => Effect.succeed([]),
    trim: (chain) =>
      atomically("trim", () => {
        const current = head(chain)
        const outcome = keeping.trimmed(chain, current?.entries ?? 0)
        complete(chain)
        if (current !== undefined) sql.writeHeartbeat(chain)
        return outcome
      }),
    reset: (chain, options) => atomically("reset", () => reset(chain, options)),
    info: attempt("info", () => {
      const { version, bytes } = sql.about()!
      const persistence = path === ":memory:" ? "none" : "write-ahead log, synchronous=NORMAL"
      return { version: `sqlite ${version}`, bytes, limit: 0, evictionPolicy: undefined, persistence }
    }),
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
): Layer.Layer<JournalStore | Entries | StoreAdmin, StoreError> =>
  Layer.effectContext(
    // A database with tables of another program: its statements cannot be prepared.
    Effect.catchDefect(make(path, retention, limits), (cause) =>
      Effect.fail(storeError("open", path, cause)),
    ),
  )
