/** The rows of the tables (schema.sql), and every statement on them. */
import { journalVersion } from "../Journal.ts"
import type { BlockRecord } from "../Journal.ts"
import type { StoredHead } from "../StoredHead.ts"
import type { Epoch } from "../StoreAdmin.ts"
import type { SqliteFile } from "./SqliteFile.ts"

export interface HeadRow extends StoredHead {
  readonly number: number
  readonly part: number
  readonly added: number
  readonly start_number: number
  readonly filter: string
  readonly entries: number
  /** Only in version 2. */
  readonly version: number | null
  readonly first_number: number | null
  readonly abi: string | null
  readonly paused: number | null
}

export interface RecordRow extends BlockRecord {
  readonly first_id: number
  readonly last_id: number
}

export interface EventKey {
  readonly id: number
  readonly block_hash: string
  readonly log_index: number
  readonly removed: number
}

export interface EventRow {
  readonly id: number
  readonly block_number: number
  readonly removed: number
  readonly traceparent: string | null
  readonly [column: string]: string | number | null
}

/** The entries of a chain: what identifies them. */
const selectKeys = "SELECT id, block_hash, log_index, removed FROM events WHERE chain_id = ?"

/** The records of a chain. */
const selectRecords = 'SELECT *, parent AS "parentHash" FROM window WHERE chain_id = ?'

/** Deletes all rows of a chain but the last twenty. */
const allButLast = (table: "epochs" | "filters") =>
  `DELETE FROM ${table} WHERE chain_id = ?
   AND id NOT IN (SELECT id FROM ${table} AS kept WHERE kept.chain_id = ${table}.chain_id ORDER BY id DESC LIMIT 20)`

export const make = ({ run, row, rows }: Pick<SqliteFile, "run" | "row" | "rows">) => ({
  headOf: row<HeadRow>(
    `SELECT heads.*, version, first_number, part_digest, abi, paused
     FROM heads LEFT JOIN journals USING (chain_id) WHERE chain_id = ?`,
  ),
  createHead: run("INSERT INTO heads VALUES (?, ?, '', 0, NULL, NULL, ?, '', ?, ?, ?, 0)"),
  moveHead: run(
    "UPDATE heads SET number = ?, hash = ?, part = ?, start_hash = ?, entries = ?, added = ? WHERE chain_id = ?",
  ),
  journal: row<{
    readonly version: number
    readonly epoch: string
    readonly epoch_reason: Epoch["reason"]
    readonly paused: number
  }>("SELECT version, epoch, epoch_reason, paused FROM journals WHERE chain_id = ?"),
  createJournal: run(`INSERT OR REPLACE INTO journals VALUES (?, ${journalVersion}, ?, ?, ?, '', '', 0)`),
  setAbi: run("UPDATE journals SET abi = ? WHERE chain_id = ?"),
  setDigest: run("UPDATE journals SET part_digest = ? WHERE chain_id = ?"),
  lastEvent: row<EventKey>(`${selectKeys} ORDER BY id DESC LIMIT 1`),
  eventAt: row<EventKey>(`${selectKeys} AND id = ?`),
  highestEver: row<{ readonly seq: number }>("SELECT seq FROM sqlite_sequence WHERE name = 'events'"),
  pastEpochs: rows<{ readonly epoch: string }>("SELECT epoch FROM epochs WHERE chain_id = ? ORDER BY id"),
  keepEpoch: run("INSERT INTO epochs (chain_id, epoch) VALUES (?, ?)"),
  keepLastEpochs: run(allButLast("epochs")),
  setEpoch: run("UPDATE journals SET epoch = ?, epoch_reason = 'lost' WHERE chain_id = ?"),
  setPaused: run("UPDATE journals SET paused = ? WHERE chain_id = ? AND paused <> ?"),
  setFirst: run("UPDATE journals SET first_number = ? WHERE chain_id = ?"),
  forgetFilter: run("DELETE FROM filters WHERE chain_id = ? AND filter = ?"),
  keepFilter: run("INSERT INTO filters (chain_id, filter) VALUES (?, ?)"),
  keepLastFilters: run(allButLast("filters")),
  wasReplaced: row<{ readonly id: number }>("SELECT id FROM filters WHERE chain_id = ? AND filter = ?"),
  configVersion: row<{ readonly version: number }>("SELECT version FROM config_versions WHERE chain_id = ?"),
  setConfigVersion: run("INSERT OR REPLACE INTO config_versions VALUES (?, ?)"),
  deleteConfigVersion: run("DELETE FROM config_versions WHERE chain_id = ?"),
  describeFilter: run(
    `INSERT INTO filter_contents VALUES (?, ?)
     ON CONFLICT DO UPDATE SET content = excluded.content WHERE content <> excluded.content`,
  ),
  setFinalized: run("UPDATE heads SET final_number = ?, final_hash = ? WHERE chain_id = ?"),
  changeFilter: run("UPDATE heads SET filter = ?, filter_since = ?, part = ? WHERE chain_id = ?"),

  records: rows<RecordRow>(`${selectRecords} ORDER BY number`),
  highestRecords: rows<RecordRow>(`${selectRecords} ORDER BY number DESC LIMIT 2`),
  recordAt: row<RecordRow>(`${selectRecords} AND number = ?`),
  oldestNeeded: row<{ readonly id: number }>(
    "SELECT min(first_id) AS id FROM window WHERE chain_id = ? AND count > 0",
  ),
  record: run("INSERT INTO window VALUES (?, ?, ?, ?, ?, ?, ?)"),
  forget: run("DELETE FROM window WHERE chain_id = ? AND number = ?"),
  forgetUpTo: run("DELETE FROM window WHERE chain_id = ? AND number <= ?"),

  setWriter: run(
    "INSERT INTO writers VALUES (?, ?) ON CONFLICT DO UPDATE SET token = excluded.token WHERE token <> excluded.token",
  ),
  skipIds: run("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'"),
  append: run("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"),
  appendDecoded: run("INSERT INTO decoded VALUES (?, ?, ?)"),
  firstToRetract: row<{ readonly id: number }>(
    "SELECT id FROM events WHERE chain_id = ? AND id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1 OFFSET ?",
  ),
  appendRemovals: run(
    `INSERT INTO events SELECT NULL, chain_id, block_number, block_hash, tx_hash, log_index, contract, topics, data,
       timestamp, tx_index, 1, traceparent
     FROM events WHERE chain_id = ? AND id BETWEEN ? AND ? ORDER BY id DESC`,
  ),
  /** Copies what was decoded to the removals, which `appendRemovals` has given consecutive ids. */
  copyDecoded: run(
    `INSERT INTO decoded SELECT ? + place, event, args FROM
       (SELECT id, row_number() OVER (ORDER BY id DESC) AS place FROM events WHERE chain_id = ? AND id BETWEEN ? AND ?)
       JOIN decoded USING (id)`,
  ),
  lastToTrim: row<{ readonly id: number | null }>(
    "SELECT max(id) AS id FROM (SELECT id FROM events WHERE chain_id = ? AND id < ? ORDER BY id LIMIT ?)",
  ),
  countMissed: run(
    `INSERT INTO missed
       SELECT chain_id, name,
         (SELECT count(*) FROM events WHERE chain_id = readers.chain_id AND id > readers.id AND id <= ?)
       FROM readers WHERE chain_id = ? AND id < ?
     ON CONFLICT DO UPDATE SET entries = entries + excluded.entries`,
  ),
  lowestPin: row<{ readonly name: string; readonly id: number }>(
    "SELECT name, id FROM readers WHERE chain_id = ? AND seen > unixepoch() - ? ORDER BY id LIMIT 1",
  ),
  entriesAfter: row<{ readonly entries: number }>(
    "SELECT count(*) AS entries FROM events WHERE chain_id = ? AND id > ?",
  ),
  readersOf: rows<{
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
  ),
  writeHeartbeat: run(
    `INSERT INTO heartbeats VALUES (?, unixepoch())
     ON CONFLICT DO UPDATE SET at = excluded.at WHERE abs(excluded.at - at) >= 10`,
  ),
  lastHeartbeat: row<{ readonly ago: number }>(
    "SELECT unixepoch() - at AS ago FROM heartbeats WHERE chain_id = ?",
  ),
  trim: run("DELETE FROM events WHERE chain_id = ? AND id <= ?"),
  countTrimmed: run("UPDATE heads SET entries = entries - ? WHERE chain_id = ?"),

  deleteHead: run("DELETE FROM heads WHERE chain_id = ?"),
  deleteMissed: run("DELETE FROM missed WHERE chain_id = ?"),
  deleteFilters: run("DELETE FROM filters WHERE chain_id = ?"),
  deleteEvents: run("DELETE FROM events WHERE chain_id = ?"),

  eventsAfter: rows<EventRow>(
    `SELECT events.*, event, args FROM events LEFT JOIN decoded USING (id)
     WHERE chain_id = ? AND events.id > ? ORDER BY events.id LIMIT ?`,
  ),
  about: row<{ readonly version: string; readonly bytes: number }>(
    "SELECT sqlite_version() AS version, page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size",
  ),
  bounds: row<{ readonly first: number | null; readonly last: number | null }>(
    // One query for both would scan the whole index.
    `SELECT (SELECT min(id) FROM events WHERE chain_id = ?) AS first,
            (SELECT max(id) FROM events WHERE chain_id = ?) AS last`,
  ),
  userVersion: row<{ readonly user_version: number }>("PRAGMA user_version"),
})

export type Statements = ReturnType<typeof make>
