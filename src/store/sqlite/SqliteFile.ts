/** The file of the store: opened, reopened where another one took its place, and its statements and transactions. */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as fs from "node:fs"
import { dirname } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { SQLInputValue, StatementResultingChanges, StatementSync } from "node:sqlite"
import { StoreError } from "../StoreError.ts"
import { endsConnection, storeError } from "./SqliteErrors.ts"

/** How long to wait for another process that is writing (milliseconds). The wait blocks the thread, so it is short. */
const busyTimeout = 250

/** The size to which the write-ahead log is truncated after a checkpoint (bytes); 4 MB are usual. */
const logSizeLimit = 16 * 1024 * 1024

/** A write-ahead log larger than this (bytes) is not being checkpointed: a reader holds a transaction open. */
const largestLog = 64 * 1024 * 1024

/** How many transactions pass between two checks of the log's size. */
const logCheckInterval = 32

/** SQLite reports that it cannot open a file, but not why. The system does. */
const openFailure = (path: string): string => {
  try {
    const exists = fs.statSync(path, { throwIfNoEntry: false }) !== undefined
    if (exists) fs.closeSync(fs.openSync(path, "r+"))
    fs.accessSync(dirname(path), fs.constants.W_OK)
    return ""
  } catch (error) {
    return ` (${(error as Error).message})`
  }
}

/** An open file, and its identity: another file may take its name. */
interface Connection {
  readonly database: DatabaseSync
  /** The file, its log and the log's index, by suffix; empty for a database in memory. */
  readonly files: ReadonlyMap<string, fs.Stats>
}

const fileParts = ["", "-wal", "-shm"]

const isSame = (a: fs.Stats | undefined, b: fs.Stats | undefined) => a?.ino === b?.ino && a?.dev === b?.dev

const statOf = (path: string) => fs.statSync(path, { throwIfNoEntry: false })

const open = (path: string): Connection => {
  const inMemory = path === ":memory:"
  if (!inMemory) fs.mkdirSync(dirname(path), { recursive: true })
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(path, { timeout: busyTimeout })
    database.exec(
      `PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;
       PRAGMA journal_size_limit = ${logSizeLimit}`,
    )
    database.exec(fs.readFileSync(new URL("schema.sql", import.meta.url), "utf8"))
  } catch (cause) {
    database?.close()
    if (!inMemory) (cause as Error).message += openFailure(path)
    throw cause
  }
  const files = new Map<string, fs.Stats>()
  for (const part of inMemory ? [] : fileParts) {
    const stats = statOf(path + part)
    if (stats !== undefined) files.set(part, stats)
  }
  return { database, files }
}

export interface SqliteFile {
  /** Executes a statement that cannot be prepared. */
  readonly exec: (sql: string) => void
  /** Prepares a statement that changes rows. Placeholders are never numbered: Node 22.19 and 24.0 to 24.6 cannot bind them. */
  readonly run: (sql: string) => (...values: ReadonlyArray<SQLInputValue>) => StatementResultingChanges
  /** Prepares a query of at most one row. */
  readonly row: <Row>(sql: string) => (...values: ReadonlyArray<SQLInputValue>) => Row | undefined
  /** Prepares a query of several rows. */
  readonly rows: <Row>(sql: string) => (...values: ReadonlyArray<SQLInputValue>) => ReadonlyArray<Row>
  /** Runs statements that do not have to be atomic. */
  readonly attempt: <A>(operation: string, body: () => A) => Effect.Effect<A, StoreError>
  /** Runs statements as one transaction. */
  readonly atomically: <A>(operation: string, body: () => A) => Effect.Effect<A, StoreError>
}

/** The connection to a file; another one where the file was deleted or replaced, or after `close`. */
const openHandle = (path: string) => {
  let connection: Connection | undefined = open(path)
  let { database } = connection

  const close = () => {
    connection?.database.close()
    connection = undefined
  }
  const reopen = () => {
    connection = open(path)
    database = connection.database
  }
  /** Reopens a file that was deleted or replaced: what is written to the old one would be lost. */
  const check = () => {
    if (connection === undefined) return reopen()
    const { files } = connection
    const now = files.size === 0 ? undefined : statOf(path)
    if (isSame(now, files.get(""))) return
    close()
    // A log that stays behind would be copied into the new file.
    for (const part of ["-wal", "-shm"]) {
      if (files.has(part) && isSame(statOf(path + part), files.get(part)))
        fs.rmSync(path + part, { force: true })
    }
    reopen()
    throw new StoreError({
      operation: "file check",
      reason: "unreachable",
      detail: `${path} was ${now === undefined ? "deleted" : "replaced"} while it was open: reopening it, and backfilling from where this process started`,
    })
  }
  return { database: () => database, check, close }
}

/** Warns once when the write-ahead log has grown, until it is smaller again. To be run after each transaction. */
const watchLog = (path: string): Effect.Effect<void> => {
  let transactions = 0
  let isLarge = false
  return Effect.suspend(() => {
    if (transactions++ % logCheckInterval !== 0) return Effect.void
    const { size = 0 } = statOf(`${path}-wal`) ?? {}
    const wasLarge = isLarge
    isLarge = size > largestLog
    if (!isLarge || wasLarge) return Effect.void
    return Effect.logWarning(
      `${path}-wal has grown to ${Math.round(size / 1e6)} MB: a reader holds a transaction open, so that it cannot be checkpointed; end that reader (lsof ${path} names the processes)`,
    )
  })
}

/** Opens the file at a path (`:memory:` for none) for as long as the scope. */
export const make = Effect.fnUntraced(function* (
  path: string,
): Effect.fn.Return<SqliteFile, StoreError, Scope.Scope> {
  const { database, check, close } = yield* Effect.acquireRelease(
    Effect.try({ try: () => openHandle(path), catch: (cause) => storeError("open", path, cause) }),
    (handle) => Effect.sync(handle.close),
  )
  const checkLog = watchLog(path)

  const prepared = <A>(
    sql: string,
    use: (statement: StatementSync, values: ReadonlyArray<SQLInputValue>) => A,
  ) => {
    let preparedFor = database()
    let statement = preparedFor.prepare(sql)
    return (...values: ReadonlyArray<SQLInputValue>): A => {
      if (preparedFor !== database()) {
        preparedFor = database()
        statement = preparedFor.prepare(sql)
      }
      return use(statement, values)
    }
  }

  const attempt = <A>(operation: string, body: () => A): Effect.Effect<A, StoreError> =>
    Effect.try({
      try: () => {
        check()
        return body()
      },
      catch: (cause) => {
        const error = storeError(operation, path, cause)
        // Data that is inconsistent stays inconsistent on another connection, so an error of our own keeps this one.
        if (error !== cause && endsConnection.has(error.reason)) close()
        return error
      },
    })

  const atomically = <A>(operation: string, body: () => A): Effect.Effect<A, StoreError> =>
    attempt(operation, () => {
      database().exec("BEGIN IMMEDIATE")
      try {
        const result = body()
        database().exec("COMMIT")
        return result
      } catch (cause) {
        if (database().isTransaction) database().exec("ROLLBACK")
        throw cause
      }
    }).pipe(Effect.tap(checkLog))

  return {
    exec: (sql) => database().exec(sql),
    run: (sql) => prepared(sql, (statement, values) => statement.run(...values)),
    row: <Row>(sql: string) =>
      prepared(sql, (statement, values) => statement.get(...values) as Row | undefined),
    rows: <Row>(sql: string) =>
      prepared(sql, (statement, values) => statement.all(...values) as unknown as ReadonlyArray<Row>),
    attempt,
    atomically,
  }
})
