/**
 * The store in one file: `node:sqlite`, the default when no Redis is configured.
 *
 * Each move is one transaction. With `synchronous=NORMAL` a power loss may lose the last transactions, but never their
 * order; the missing tail is then pushed again. Several processes may share the file.
 */
import { Effect, Layer } from "effect"
import type { Entries } from "../Entries.ts"
import { callLimits } from "../Journal.ts"
import type { CallLimits } from "../Journal.ts"
import type { JournalStore } from "../JournalStore.ts"
import type { Retention } from "../Retention.ts"
import { contextOf } from "../Store.ts"
import type { StoreAdmin } from "../StoreAdmin.ts"
import type { StoreError } from "../StoreError.ts"
import * as SqliteAdmin from "./SqliteAdmin.ts"
import * as SqliteEntries from "./SqliteEntries.ts"
import * as SqliteEpochs from "./SqliteEpochs.ts"
import { storeError } from "./SqliteErrors.ts"
import * as SqliteFile from "./SqliteFile.ts"
import * as SqliteHeads from "./SqliteHeads.ts"
import * as SqliteJournal from "./SqliteJournal.ts"
import * as SqliteRetention from "./SqliteRetention.ts"
import * as Statements from "./Statements.ts"

const make = Effect.fnUntraced(function* (path: string, kept: Retention, limits: CallLimits) {
  const file = yield* SqliteFile.make(path)
  const sql = Statements.make(file)
  const heads = SqliteHeads.make(sql)
  const retention = SqliteRetention.make(sql, heads, kept)
  const epochs = SqliteEpochs.make(sql, heads)
  return contextOf({
    ...SqliteJournal.make(sql, file, heads, epochs, retention, limits),
    ...SqliteEntries.make(sql, file),
    ...SqliteAdmin.make(path, sql, file, heads, retention),
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
