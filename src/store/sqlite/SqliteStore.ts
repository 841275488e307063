/**
 * The store in one file: `node:sqlite`, the default when no Redis is configured.
 *
 * Each move is one transaction. With `synchronous=NORMAL` a power loss may lose the last transactions, but never their
 * order; the missing tail is then pushed again. Several processes may share the file.
 */
import { Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import {
  accessSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs"
import type { Stats as FileStats } from "node:fs"
import { dirname } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { SQLInputValue } from "node:sqlite"
import { entryFields } from "../../Domain.ts"
import type { ChainId, Entry, Hex } from "../../Domain.ts"
import { afterPush, callLimits, finalizedHead, journalVersion, samePosition } from "../Journal.ts"
import type { CallLimits, Finalize, Journal, Pop, Position, Push } from "../Journal.ts"
import { pinnedFor } from "../Retention.ts"
import type { Retention, Trimmed } from "../Retention.ts"
import { corruptJournal, newerJournal, Store, StoreError } from "../Store.ts"
import type {
  Acknowledged,
  Conflict,
  Epoch,
  EpochCheck,
  FilterChanged,
  FinalizeResult,
  Known,
  PopResult,
  PushResult,
  ResetOptions,
  StoreReason,
} from "../Store.ts"

/** How far a chain may grow beyond `maxLength` before its oldest entries are trimmed, in one step. */
const trimSlack = 1000

/** The maximum of entries that one push trims, so that a lowered limit does not stall the chain. */
const maxTrimmed = 5000

/** How long to wait for another process that is writing (milliseconds). The wait blocks the thread, so it is short. */
const busyTimeout = 250

/** The size to which the write-ahead log is truncated after a checkpoint (bytes); 4 MB are usual. */
const logSizeLimit = 16 * 1024 * 1024

/** A write-ahead log larger than this (bytes) is not being checkpointed: a reader holds a transaction open. */
const largestLog = 64 * 1024 * 1024

/** How many transactions pass between two checks of the log's size. */
const logCheckInterval = 32

/** The maximum of unread entries that are counted per reader unless an exact count is requested. */
const mostCounted = 1000

interface HeadRow {
  readonly number: number
  readonly hash: Hex | ""
  readonly part: number
  readonly final_number: number | null
  readonly final_hash: Hex | null
  readonly start_number: number
  readonly start_hash: Hex | ""
  readonly filter: string
  readonly filter_since: number
  readonly entries: number
  readonly added: number
  /** Only in version 2. */
  readonly version: number | null
  readonly first_number: number | null
  readonly part_digest: string | null
  readonly paused: number | null
}

interface RecordRow {
  readonly number: number
  readonly hash: Hex
  readonly parent: Hex
  readonly first_id: number
  readonly last_id: number
  readonly count: number
}

interface EventRow {
  readonly id: number
  readonly block_number: number
  readonly removed: number
  readonly traceparent: string | null
  readonly [column: string]: string | number | null
}

/** SQLite's primary result codes, https://www.sqlite.org/rescode.html. */
const reasons: Readonly<Record<number, StoreReason>> = {
  5: "timeout",
  6: "timeout",
  8: "read-only",
  10: "unreachable",
  11: "corrupt",
  13: "full",
  14: "unreachable",
  26: "corrupt",
}

/** Thrown inside a transaction: this release does not know the version of the journal. */
class NewerVersion {
  readonly version: number
  constructor(version: number) {
    this.version = version
  }
}

/** Error codes of the system, from creating directories and inspecting files. */
const systemReasons: Readonly<Record<string, StoreReason>> = {
  EROFS: "read-only",
  ENOSPC: "full",
  EDQUOT: "full",
}

const storeError = (operation: string, path: string, cause: unknown): StoreError => {
  if (cause instanceof NewerVersion) return newerJournal(operation, cause.version)
  if (cause instanceof StoreError) return cause
  const { code, errcode, message } = cause as NodeJS.ErrnoException & { readonly errcode?: number }
  const reason =
    errcode === undefined && (cause as NodeJS.ErrnoException).syscall !== undefined
      ? (systemReasons[code ?? ""] ?? "unreachable")
      : (reasons[(errcode ?? 0) & 0xff] ?? "refused")
  return new StoreError({ operation, reason, detail: `${path}: ${message ?? String(cause)}` })
}

/** After these errors a new connection may succeed where this one cannot, such as one to a file that was read-only. */
const endsConnection: ReadonlySet<StoreReason> = new Set(["read-only", "unreachable", "corrupt"])

const markOf = ({ hash, part }: Pick<Position, "hash" | "part">, added: number) => `${hash}:${part}:${added}:`

const positionOf = ({ number, hash, part, added, part_digest: stored }: HeadRow): Position => {
  const mark = markOf({ hash, part }, added)
  return { number, hash, part, ...(stored?.startsWith(mark) && { digest: stored.slice(mark.length) }) }
}

const conflict = (head: Position | undefined): Conflict => ({ _tag: "Conflict", head })

const entryOf = (row: EventRow): Entry => {
  const entry: Record<string, string> = {}
  for (const field of entryFields) {
    const value = field === "removed" ? row.removed === 1 : row[field]
    if (value !== null) entry[field] = String(value)
  }
  return entry as Entry
}

/** The identity of an entry: block hash, log index, removed. */
const identityOf = (row: EventRow) =>
  `${row["block_hash"]}:${row["log_index"]}:${row.removed === 1 ? "true" : "false"}`

type EventId = Omit<Acknowledged, "epoch">

/** SQLite reports that it cannot open a file, but not why. The system does. */
const openFailure = (path: string): string => {
  try {
    const exists = statSync(path, { throwIfNoEntry: false }) !== undefined
    if (exists) closeSync(openSync(path, "r+"))
    accessSync(dirname(path), constants.W_OK)
    return ""
  } catch (error) {
    return ` (${(error as Error).message})`
  }
}

/** An open file, and its identity: another file may take its name. */
interface Connection {
  readonly database: DatabaseSync
  /** The file, its log and the log's index, by suffix; empty for a database in memory. */
  readonly files: ReadonlyMap<string, FileStats>
}

const fileParts = ["", "-wal", "-shm"]

const isSame = (a: FileStats | undefined, b: FileStats | undefined) => a?.ino === b?.ino && a?.dev === b?.dev

const statOf = (path: string) => statSync(path, { throwIfNoEntry: false })

const open = (path: string): Connection => {
  const inMemory = path === ":memory:"
  if (!inMemory) mkdirSync(dirname(path), { recursive: true })
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(path, { timeout: busyTimeout })
    database.exec(
      `PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;
       PRAGMA journal_size_limit = ${logSizeLimit}`,
    )
    database.exec(readFileSync(new URL("schema.sql", import.meta.url), "utf8"))
  } catch (cause) {
    database?.close()
    if (!inMemory) (cause as Error).message += openFailure(path)
    throw cause
  }
  const files = new Map<string, FileStats>()
  for (const part of inMemory ? [] : fileParts) {
    const stats = statOf(path + part)
    if (stats !== undefined) files.set(part, stats)
  }
  return { database, files }
}

const make = Effect.fnUntraced(function* (path: string, retention: Retention, limits: CallLimits) {
  let connection: Connection | undefined = yield* Effect.acquireRelease(
    Effect.try({ try: () => open(path), catch: (cause) => storeError("open", path, cause) }),
    () => Effect.sync(() => connection?.database.close()),
  )
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
  const checkFile = () => {
    if (connection === undefined) return reopen()
    const { files } = connection
    const now = files.size === 0 ? undefined : statOf(path)
    if (isSame(now, files.get(""))) return
    close()
    // A log that stays behind would be copied into the new file.
    for (const part of ["-wal", "-shm"]) {
      if (files.has(part) && isSame(statOf(path + part), files.get(part)))
        rmSync(path + part, { force: true })
    }
    reopen()
    throw new StoreError({
      operation: "file check",
      reason: "unreachable",
      detail: `${path} was ${now === undefined ? "deleted" : "replaced"} while it was open: reopening it, and backfilling from where this process started`,
    })
  }

  const prepared = (sql: string) => {
    let statement = database.prepare(sql)
    let preparedFor = database
    return () => {
      if (preparedFor !== database) {
        statement = database.prepare(sql)
        preparedFor = database
      }
      return statement
    }
  }
  // Placeholders are never numbered: Node 22.19 and 24.0 to 24.6 cannot bind them.
  const run = (sql: string) => {
    const statement = prepared(sql)
    return (...values: ReadonlyArray<SQLInputValue>) => statement().run(...values)
  }
  const row = <Row>(sql: string) => {
    const statement = prepared(sql)
    return (...values: ReadonlyArray<SQLInputValue>) => statement().get(...values) as Row | undefined
  }
  const rows = <Row>(sql: string) => {
    const statement = prepared(sql)
    return (...values: ReadonlyArray<SQLInputValue>) =>
      statement().all(...values) as unknown as ReadonlyArray<Row>
  }

  const headOf = row<HeadRow>(
    `SELECT heads.*, version, first_number, part_digest, paused
     FROM heads LEFT JOIN journals USING (chain_id) WHERE chain_id = ?`,
  )
  const createHead = run("INSERT INTO heads VALUES (?, ?, '', 0, NULL, NULL, ?, '', ?, ?, ?, 0)")
  const moveHead = run(
    `UPDATE heads SET number = ?, hash = ?, part = ?, start_hash = ?, entries = entries + ?, added = added + ?
     WHERE chain_id = ?`,
  )
  const journal = row<{
    readonly version: number
    readonly epoch: string
    readonly epoch_reason: Epoch["reason"]
    readonly paused: number
  }>("SELECT version, epoch, epoch_reason, paused FROM journals WHERE chain_id = ?")
  const createJournal = run(
    `INSERT OR REPLACE INTO journals VALUES (?, ${journalVersion}, ?, ?, ?, '', '', 0)`,
  )
  const setDigest = run("UPDATE journals SET part_digest = ? WHERE chain_id = ?")
  const eventAt = row<EventRow>("SELECT * FROM events WHERE chain_id = ? AND id = ?")
  const highestEver = row<{ readonly seq: number }>("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
  const pastEpochs = rows<{ readonly epoch: string }>(
    "SELECT epoch FROM epochs WHERE chain_id = ? ORDER BY id",
  )
  const keepEpoch = run("INSERT INTO epochs (chain_id, epoch) VALUES (?, ?)")
  const keepLastEpochs = run(
    `DELETE FROM epochs WHERE chain_id = ?
     AND id NOT IN (SELECT id FROM epochs AS kept WHERE kept.chain_id = epochs.chain_id ORDER BY id DESC LIMIT 20)`,
  )
  const setEpoch = run("UPDATE journals SET epoch = ?, epoch_reason = 'lost' WHERE chain_id = ?")
  const setPaused = run("UPDATE journals SET paused = ? WHERE chain_id = ? AND paused <> ?")
  const setFirst = run("UPDATE journals SET first_number = ? WHERE chain_id = ?")
  const forgetFilter = run("DELETE FROM filters WHERE chain_id = ? AND filter = ?")
  const keepFilter = run("INSERT INTO filters (chain_id, filter) VALUES (?, ?)")
  const keepLastFilters = run(
    `DELETE FROM filters WHERE chain_id = ?
     AND id NOT IN (SELECT id FROM filters AS kept WHERE kept.chain_id = filters.chain_id ORDER BY id DESC LIMIT 20)`,
  )
  const setFinalized = run("UPDATE heads SET final_number = ?, final_hash = ? WHERE chain_id = ?")
  const changeFilter = run("UPDATE heads SET filter = ?, filter_since = ?, part = ? WHERE chain_id = ?")

  const records = rows<RecordRow>("SELECT * FROM window WHERE chain_id = ? ORDER BY number")
  const top = row<RecordRow>("SELECT * FROM window WHERE chain_id = ? ORDER BY number DESC LIMIT 1")
  const recordAt = row<RecordRow>("SELECT * FROM window WHERE chain_id = ? AND number = ?")
  const oldestNeeded = row<{ readonly id: number }>(
    "SELECT min(first_id) AS id FROM window WHERE chain_id = ? AND count > 0",
  )
  const record = run("INSERT INTO window VALUES (?, ?, ?, ?, ?, ?, ?)")
  const shorten = run("UPDATE window SET last_id = ?, count = ? WHERE chain_id = ? AND number = ?")
  const forget = run("DELETE FROM window WHERE chain_id = ? AND number = ?")
  const forgetUpTo = run("DELETE FROM window WHERE chain_id = ? AND number <= ?")

  const append = run("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)")
  const firstToRetract = row<{ readonly id: number }>(
    "SELECT id FROM events WHERE chain_id = ? AND id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1 OFFSET ?",
  )
  const appendRemovals = run(
    `INSERT INTO events SELECT NULL, chain_id, block_number, block_hash, tx_hash, log_index, contract, topics, data,
       timestamp, tx_index, 1, traceparent
     FROM events WHERE chain_id = ? AND id BETWEEN ? AND ? ORDER BY id DESC`,
  )
  const lastToTrim = row<{ readonly id: number | null }>(
    "SELECT max(id) AS id FROM (SELECT id FROM events WHERE chain_id = ? AND id < ? ORDER BY id LIMIT ?)",
  )
  const countMissed = run(
    `INSERT INTO missed
       SELECT chain_id, name,
         (SELECT count(*) FROM events WHERE chain_id = readers.chain_id AND id > readers.id AND id <= ?)
       FROM readers WHERE chain_id = ? AND id < ?
     ON CONFLICT DO UPDATE SET entries = entries + excluded.entries`,
  )
  const lowestPin = row<{ readonly name: string; readonly id: number }>(
    "SELECT name, id FROM readers WHERE chain_id = ? AND seen > unixepoch() - ? ORDER BY id LIMIT 1",
  )
  const unread = row<{ readonly entries: number }>(
    "SELECT count(*) AS entries FROM events WHERE chain_id = ? AND id > ?",
  )
  const readersOf = rows<{
    readonly name: string
    readonly id: number
    readonly block: number
    readonly seen: number
    readonly missed: number
    readonly lag: number
  }>(
    `SELECT name, id, block, seen, coalesce((SELECT entries FROM missed WHERE chain_id = readers.chain_id AND reader = name), 0) AS missed,
       (SELECT count(*) FROM (SELECT 1 FROM events WHERE chain_id = readers.chain_id AND events.id > readers.id LIMIT ?)) AS lag
     FROM readers WHERE chain_id = ? ORDER BY id`,
  )
  const writeHeartbeat = run(
    `INSERT INTO heartbeats VALUES (?, unixepoch())
     ON CONFLICT DO UPDATE SET at = excluded.at WHERE abs(excluded.at - at) >= 10`,
  )
  const lastHeartbeat = row<{ readonly ago: number }>(
    "SELECT unixepoch() - at AS ago FROM heartbeats WHERE chain_id = ?",
  )
  const trim = run("DELETE FROM events WHERE chain_id = ? AND id <= ?")
  const countTrimmed = run("UPDATE heads SET entries = entries - ? WHERE chain_id = ?")

  const deleteHead = run("DELETE FROM heads WHERE chain_id = ?")
  const deleteMissed = run("DELETE FROM missed WHERE chain_id = ?")
  const deleteFilters = run("DELETE FROM filters WHERE chain_id = ?")
  const deleteEvents = run("DELETE FROM events WHERE chain_id = ?")

  const readAfter = rows<EventRow>("SELECT * FROM events WHERE chain_id = ? AND id > ? ORDER BY id LIMIT ?")
  const entryCount = row<{ readonly entries: number }>(
    "SELECT count(*) AS entries FROM events WHERE chain_id = ?",
  )
  const about = row<{ readonly version: string; readonly bytes: number }>(
    "SELECT sqlite_version() AS version, page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size",
  )
  const bounds = row<{ readonly first: number | null; readonly last: number | null }>(
    // One query for both would scan the whole index.
    `SELECT (SELECT min(id) FROM events WHERE chain_id = ?) AS first,
            (SELECT max(id) FROM events WHERE chain_id = ?) AS last`,
  )

  const attempt = <A>(operation: string, body: () => A): Effect.Effect<A, StoreError> =>
    Effect.try({
      try: () => {
        checkFile()
        return body()
      },
      catch: (cause) => {
        const error = storeError(operation, path, cause)
        // Data that is inconsistent stays inconsistent on another connection, so an error of our own keeps this one.
        if (error !== cause && endsConnection.has(error.reason)) close()
        return error
      },
    })

  let transactions = 0
  let isLogLarge = false
  /** Warns once when the log has grown, until it is smaller again. */
  const checkLog = Effect.suspend(() => {
    if (transactions++ % logCheckInterval !== 0 || !connection?.files.size) return Effect.void
    const { size = 0 } = statOf(`${path}-wal`) ?? {}
    const wasLarge = isLogLarge
    isLogLarge = size > largestLog
    return isLogLarge && !wasLarge
      ? Effect.logWarning(
          `${path}-wal has grown to ${Math.round(size / 1e6)} MB: a reader holds a transaction open, so that it cannot be checkpointed; end that reader (lsof ${path} names the processes)`,
        )
      : Effect.void
  })

  const atomically = <A>(operation: string, body: () => A): Effect.Effect<A, StoreError> =>
    attempt(operation, () => {
      database.exec("BEGIN IMMEDIATE")
      try {
        const result = body()
        database.exec("COMMIT")
        return result
      } catch (cause) {
        if (database.isTransaction) database.exec("ROLLBACK")
        throw cause
      }
    }).pipe(Effect.tap(checkLog))

  const userVersion = row<{ readonly user_version: number }>("PRAGMA user_version")

  const head = (chain: ChainId): HeadRow | undefined => {
    const current = headOf(chain)
    const version = current === undefined ? journal(chain)?.version : current.version
    if ((version ?? 1) > journalVersion) throw new NewerVersion(version!)
    return current
  }

  /** The block from which on every entry is stored: see firstNumber in journal.lua. */
  const firstNumberOf = (chain: ChainId, { added, entries, number, start_number }: HeadRow): number => {
    if (added === 0 || entries > added) return start_number
    const first = readAfter(chain, 0, 1)[0]
    if (first === undefined) return number + 1
    const isFirst =
      entries === added ||
      recordAt(chain, first.block_number)?.first_id === first.id ||
      (first["log_index"] === 0 && first.removed === 0)
    return isFirst ? first.block_number : first.block_number + 1
  }

  /** How the stored head, window and entries of a chain contradict each other, if they do: see load.lua. */
  const inconsistency = (chain: ChainId, current: HeadRow | undefined, last: RecordRow | undefined) => {
    const { last: lastId } = bounds(chain, chain)!
    if (current === undefined) {
      if (last !== undefined) return "it has records of blocks and no head"
      return lastId !== null && journal(chain) === undefined ? "it has entries and no head" : undefined
    }
    const { added, final_number, hash, number, start_number } = current
    if (last === undefined) {
      if (number !== start_number - 1 && number !== final_number)
        return `its head is block ${number}, which is not final, and it has no records`
    } else if (last.number !== number || last.hash !== hash)
      return `its head is block ${number} and its last record is block ${last.number}`
    if (added > 0 && lastId === null) return "it has a head and no entries"
    return undefined
  }

  /** Keeps the fields of version 2 up to date. A journal of version 1 begins an epoch. */
  const complete = (chain: ChainId) => {
    const current = head(chain)
    if (current === undefined) return
    const first = firstNumberOf(chain, current)
    if (current.version === null) createJournal(chain, randomUUID(), "begun", first)
    else if (current.first_number !== first) setFirst(first, chain)
  }

  /**
   * The head, if it is the expected one and belongs to this filter. Rows that were deleted since the journal was loaded are
   * a conflict, so that it is loaded again.
   */
  const compare = (
    chain: ChainId,
    filter: string,
    expected: Position,
  ): HeadRow | Conflict | FilterChanged => {
    const current = head(chain)
    if (current === undefined) return conflict(undefined)
    if (current.filter !== filter) return { _tag: "FilterChanged", filter: current.filter }
    const position = positionOf(current)
    if (!samePosition(position, expected)) return conflict(position)
    return inconsistency(chain, current, top(chain)) === undefined ? current : conflict(position)
  }

  /** Whether a push that conflicts was written before, by an earlier attempt or by another ingestor. */
  const isDuplicate = (chain: ChainId, head: Position, push: Push): boolean => {
    const next = afterPush(push)
    const known = recordAt(chain, next.number)
    if (known === undefined || known.hash !== next.hash) return false
    if (head.hash !== next.hash || head.part === 0) return true
    return next.digest !== undefined && head.part === next.part && head.digest === next.digest
  }

  /** The pinned reader furthest behind, if there are enough entries to trim some. */
  const pinOf = (chain: ChainId, entries: number) => {
    const { maxLength } = retention
    return entries > maxLength + trimSlack && maxLength > 0 ? lowestPin(chain, pinnedFor) : undefined
  }

  /** Whether a pinned reader holds entries that are needed for nothing else. */
  const isHeldBy = <Pin extends { readonly id: number }>(
    chain: ChainId,
    pin: Pin | undefined,
    length: number,
  ): pin is Pin =>
    pin !== undefined &&
    length > retention.maxLength + trimSlack &&
    (oldestNeeded(chain)?.id ?? Infinity) > pin.id

  const releaseOf = (chain: ChainId, name: string) =>
    `DELETE FROM readers WHERE chain_id = ${chain} AND name = '${name.replaceAll("'", "''")}'`

  /** Trims, and stores whether publishing is paused: see `trim` in journal.lua. */
  const trimmed = (chain: ChainId, before: number): Trimmed => {
    const { backlog } = retention
    const pin = pinOf(chain, before)
    const dropped = drop(chain, before, pin?.id ?? null)
    const length = before - dropped
    const isHeld = isHeldBy(chain, pin, length)
    const isPaused = isHeld && length >= backlog * (journal(chain)?.paused === 1 ? 0.9 : 1)
    setPaused(isPaused ? 1 : 0, chain, isPaused ? 1 : 0)
    if (!isHeld) return { dropped, holder: undefined }
    const behind = unread(chain, pin.id)!.entries
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
      oldestNeeded(chain)?.id ?? Number.MAX_SAFE_INTEGER,
      (pin ?? Number.MAX_SAFE_INTEGER - 1) + 1,
    )
    const last = lastToTrim(chain, below, Math.min(entries - maxLength, maxTrimmed))?.id ?? null
    if (last === null) return 0
    countMissed(last, chain, last)
    const { changes } = trim(chain, last)
    countTrimmed(changes, chain)
    complete(chain)
    return Number(changes)
  }

  /** Begins a journal. Entries of an earlier one count, so that they are trimmed. */
  const begin = (chain: ChainId, start: number, filter: string) => {
    createHead(chain, start - 1, start, filter, start, entryCount(chain)!.entries)
    complete(chain)
  }

  const lastEntry = (chain: ChainId): EventId | undefined => {
    const { last } = bounds(chain, chain)!
    const row = last === null ? undefined : eventAt(chain, last)
    return row && { id: String(row.id), identity: identityOf(row) }
  }

  const addedOf = (chain: ChainId, last: EventId | undefined, previous: EventId | undefined) => {
    const epoch = journal(chain)?.epoch ?? ""
    return last && { added: { last: { ...last, epoch }, previous: previous && { ...previous, epoch } } }
  }

  const push = (chain: ChainId, filter: string, push: Push): PushResult => {
    if (push.expected.hash === "" && head(chain) === undefined) begin(chain, push.expected.number + 1, filter)
    // Checked before the head is compared: the pushes that follow in the pipeline must wait as well.
    if (head(chain)?.paused === 1) return { _tag: "Paused" }
    const current = compare(chain, filter, push.expected)
    if ("_tag" in current) {
      if (current._tag === "Conflict" && current.head && isDuplicate(chain, current.head, push)) {
        return { _tag: "Duplicate" }
      }
      return current
    }
    const next = afterPush(push)
    const start = current.start_number
    const first = push.blocks[0]
    const below = top(chain)
    let unfinished: RecordRow | undefined
    if (below !== undefined) {
      if (current.part > 0) unfinished = below
      if (current.part > 0 || (below.count === 0 && below.number !== start)) forget(chain, below.number)
    }
    let startHash = current.start_hash
    let appended = 0
    const previous = lastEntry(chain)
    let last: EventId | undefined
    for (const block of push.blocks) {
      let firstId = block === first && unfinished ? unfinished.first_id : 0
      let lastId = 0
      for (const log of block.logs) {
        lastId = Number(
          append(
            chain,
            block.number,
            block.hash,
            log.txHash,
            log.index,
            log.contract,
            JSON.stringify(log.topics),
            log.data,
            block.timestamp,
            log.txIndex,
            block.traceparent ?? null,
          ).lastInsertRowid,
        )
        if (firstId === 0) firstId = lastId
      }
      const lastLog = block.logs.at(-1)
      if (lastLog !== undefined)
        last = { id: String(lastId), identity: `${block.hash}:${lastLog.index}:false` }
      appended += block.logs.length
      const count = block.logs.length + (block === first && unfinished ? unfinished.count : 0)
      if (block.number === start) startHash = block.hash
      if (count > 0 || block.number === start || block === push.blocks.at(-1)) {
        record(chain, block.number, block.hash, block.parentHash, firstId, lastId, count)
      }
    }
    moveHead(next.number, next.hash, next.part, startHash, appended, appended, chain)
    if (current.version === null || current.added === 0) complete(chain)
    const digest = next.digest === undefined ? "" : markOf(next, current.added + appended) + next.digest
    if (digest !== (current.part_digest ?? "")) setDigest(digest, chain)
    if (push.final && next.part === 0) {
      setFinalized(next.number, next.hash, chain)
      forgetUpTo(chain, next.number)
    }
    trimmed(chain, current.entries + appended)
    return { _tag: "Pushed", ...addedOf(chain, last, previous) }
  }

  const pop = (chain: ChainId, filter: string, pop: Pop): PopResult => {
    const current = compare(chain, filter, pop.expected)
    if ("_tag" in current) return current
    const retracted = top(chain)
    if (retracted === undefined) return conflict(positionOf(current))
    const most = Math.min(retracted.count, limits.logs)
    const left = retracted.count - most
    const from =
      left === 0
        ? retracted.first_id
        : (firstToRetract(chain, retracted.first_id, retracted.last_id, most - 1)?.id ?? retracted.first_id)
    const previous = lastEntry(chain)
    const removed = most === 0 ? 0 : Number(appendRemovals(chain, from, retracted.last_id).changes)
    let position: Position = { number: retracted.number, hash: retracted.hash, part: -left }
    let startHash = current.start_hash
    if (left > 0) {
      shorten(from - 1, left, chain, retracted.number)
    } else {
      forget(chain, retracted.number)
      if (retracted.number === current.start_number) startHash = ""
      const below = top(chain)
      position = below
        ? { number: below.number, hash: below.hash, part: 0 }
        : finalizedHead(journalOf(current, []))
    }
    moveHead(position.number, position.hash, position.part, startHash, removed, removed, chain)
    if (current.part_digest) setDigest("", chain)
    const last = removed === 0 ? undefined : lastEntry(chain)
    return {
      _tag: "Popped",
      removed,
      missing: most - removed,
      ...addedOf(chain, last, previous),
    }
  }

  const finalize = (chain: ChainId, filter: string, { expected, number, hash }: Finalize): FinalizeResult => {
    const current = compare(chain, filter, expected)
    if ("_tag" in current) return current
    // The finalized head never moves down: see finalize.lua.
    if (current.final_number !== null && number <= current.final_number) return { _tag: "Finalized" }
    const known = recordAt(chain, number)
    const reachable = number < current.number || (number === current.number && current.part === 0)
    if (!reachable || (known !== undefined && known.hash !== hash)) return conflict(positionOf(current))
    setFinalized(number, hash, chain)
    forgetUpTo(chain, number)
    trimmed(chain, current.entries)
    return { _tag: "Finalized" }
  }

  /** Whether a known entry is lost, and was not trimmed: see epoch.lua. */
  const isLost = (chain: ChainId, { id, identity }: Acknowledged): boolean => {
    const found = eventAt(chain, Number(id))
    if (found !== undefined) return identityOf(found) !== identity
    const { first } = bounds(chain, chain)!
    if (first !== null) return Number(id) > first
    return (highestEver()?.seq ?? 0) < Number(id)
  }

  const checkEpoch = (chain: ChainId, known: Known | undefined): EpochCheck => {
    const stored = head(chain)
    let { epoch } = journal(chain) ?? {}
    let outcome: EpochCheck["outcome"] = "kept"
    const last = known?.last
    const past = pastEpochs(chain).map(({ epoch }) => epoch)
    if (stored === undefined && epoch === undefined) outcome = last === undefined ? "kept" : "emptied"
    else if (last !== undefined && isLost(chain, last)) {
      const isKnown = last.epoch === "" || [last.epoch, ...known!.before].includes(epoch ?? "")
      outcome = isKnown ? "lost" : "new epoch"
      if (isKnown) {
        if (epoch !== undefined) {
          keepEpoch(chain, epoch)
          keepLastEpochs(chain)
          past.push(epoch)
        }
        epoch = randomUUID()
        setEpoch(epoch, chain)
      }
    } else if (last !== undefined && last.epoch !== "" && last.epoch !== epoch) outcome = "new epoch"
    const entry = lastEntry(chain)
    return { outcome, known: { last: entry && { ...entry, epoch: epoch ?? "" }, before: past } }
  }

  const replaceFilter = (chain: ChainId, filter: string) => {
    const current = head(chain)
    if (current === undefined) return
    const since = current.part === 0 ? current.number + 1 : current.number
    changeFilter(filter, since, current.part > 0 ? -current.part : current.part, chain)
    setDigest("", chain)
    if (current.filter === filter) return
    for (const known of [current.filter, filter]) forgetFilter(chain, known)
    keepFilter(chain, current.filter)
    keepLastFilters(chain)
  }

  const reset = (chain: ChainId, { from, filter, delete: all }: ResetOptions) => {
    head(chain)
    deleteHead(chain)
    forgetUpTo(chain, Number.MAX_SAFE_INTEGER)
    deleteMissed(chain)
    deleteFilters(chain)
    if (all) deleteEvents(chain)
    createJournal(chain, randomUUID(), "reset", from ?? 0)
    if (from !== undefined) begin(chain, from, filter)
  }

  const seek = (chain: ChainId, block: number): string | undefined => {
    let { first: low, last: high } = bounds(chain, chain)!
    if (low === null || high === null) return undefined
    let after: number | undefined
    while (low <= high) {
      const middle: number = Math.floor((low + high) / 2)
      const found: EventRow | undefined = readAfter(chain, middle - 1, 1)[0]
      if (found === undefined || found.block_number >= block) {
        high = middle - 1
      } else {
        after = found.id
        low = found.id + 1
      }
    }
    return after === undefined ? undefined : String(after)
  }

  return Store.of({
    description: `sqlite ${path}`,
    limits,
    // An empty transaction succeeds even in a read-only file, so this one writes.
    ping: () =>
      atomically("ping", () => database.exec(`PRAGMA user_version = ${userVersion()!.user_version}`)),
    load: (chain) =>
      atomically("load", () => {
        const current = head(chain)
        const window = records(chain)
        const why = inconsistency(chain, current, window.at(-1))
        if (why !== undefined) throw corruptJournal(chain, why)
        return current && journalOf(current, window)
      }),
    push: (chain, filter, move) => atomically("push", () => push(chain, filter, move)),
    pop: (chain, filter, move) => atomically("pop", () => pop(chain, filter, move)),
    finalize: (chain, filter, move) => atomically("finalize", () => finalize(chain, filter, move)),
    checkEpoch: (chain, known) => atomically("epoch check", () => checkEpoch(chain, known)),
    changeFilter: (chain, filter) => atomically("filter change", () => replaceFilter(chain, filter)),
    read: (chain, after, limit) =>
      attempt("read", () =>
        readAfter(chain, Number(after ?? 0), limit).map((row) => ({
          id: String(row.id),
          entry: entryOf(row),
        })),
      ),
    seek: (chain, block) => attempt("seek", () => seek(chain, block)),
    stats: (chain, exactly = true) =>
      attempt("stats", () => {
        const { first, last } = bounds(chain, chain)!
        const text = (id: number | null) => (id === null ? undefined : String(id))
        const current = head(chain)
        const { epoch, epoch_reason: reason, paused } = journal(chain) ?? {}
        const entries = exactly || current === undefined ? entryCount(chain)!.entries : current.entries
        const added = current?.added ?? 0
        const most = exactly ? -1 : mostCounted + 1
        const readers = readersOf(most, chain).map(({ id, lag, ...reader }) => ({
          ...reader,
          id: String(id),
          lag: lag === most ? undefined : lag,
        }))
        const pin = pinOf(chain, entries)
        const lag = readers.find(({ name }) => name === pin?.name)?.lag
        const isHeld = isHeldBy(chain, pin, entries) && (lag ?? Infinity) > retention.maxLength
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
          holder: isHeld
            ? { reader: `reader:${pin.name}`, lag, release: releaseOf(chain, pin.name) }
            : undefined,
          paused: paused === 1,
          aliveAgo: lastHeartbeat(chain)?.ago,
        }
      }),
    refused: () => Effect.succeed([]),
    trim: (chain) =>
      atomically("trim", () => {
        const current = head(chain)
        const outcome = trimmed(chain, current?.entries ?? 0)
        complete(chain)
        if (current !== undefined) writeHeartbeat(chain)
        return outcome
      }),
    reset: (chain, options) => atomically("reset", () => reset(chain, options)),
    info: attempt("info", () => {
      const { version, bytes } = about()!
      const persistence = path === ":memory:" ? "none" : "write-ahead log, synchronous=NORMAL"
      return { version: `sqlite ${version}`, bytes, limit: 0, evictionPolicy: undefined, persistence }
    }),
  })
})

const journalOf = (row: HeadRow, records: ReadonlyArray<RecordRow>): Journal => ({
  head: positionOf(row),
  final:
    row.final_number === null || row.final_hash === null
      ? undefined
      : { number: row.final_number, hash: row.final_hash },
  start: { number: row.start_number, hash: row.start_hash },
  filter: row.filter,
  filterSince: row.filter_since,
  window: records.map(({ number, hash, parent, count }) => ({ number, hash, parentHash: parent, count })),
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
): Layer.Layer<Store, StoreError> =>
  Layer.effect(
    Store,
    // A database with tables of another program: its statements cannot be prepared.
    Effect.catchDefect(make(path, retention, limits), (cause) =>
      Effect.fail(storeError("open", path, cause)),
    ),
  )
