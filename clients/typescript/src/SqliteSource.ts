/** Reads the stream of a chain in the ingestor's SQLite file. */
import { statSync } from "node:fs"
import type { DatabaseSync } from "node:sqlite"
import { setTimeout as sleep } from "node:timers/promises"
import { headOf } from "./Entry.ts"
import type { Entry, Head } from "./Entry.ts"
import { OptionError, textOf } from "./Errors.ts"
import { SourceUnavailable, extentOf } from "./Source.ts"
import type { Source } from "./Source.ts"

/** How often a file is asked for changes (milliseconds). */
const pollInterval = 50

const highest = String(Number.MAX_SAFE_INTEGER)

type Row = Record<string, unknown>

const columns = `events.id, chain_id, block_number, block_hash, tx_hash, log_index, contract, topics, data, timestamp, tx_index,
  removed, traceparent, event, args`
const table = "events LEFT JOIN decoded ON decoded.id = events.id"

const entryOf = ({ id, ...row }: Row): Entry => {
  const fields: Record<string, string> = {}
  for (const [name, value] of Object.entries(row)) {
    if (value !== null) fields[name] = name === "removed" ? String(value === 1) : String(value)
  }
  return { id: String(id), fields }
}

const open = async (path: string) => {
  const sqlite = await import("node:sqlite").catch(() => {
    throw new OptionError("sqlite needs Node 22.13 or later, which has node:sqlite")
  })
  return new sqlite.DatabaseSync(path, { timeout: 5000 })
}

const identityOf = (path: string): string | undefined => {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats && `${stats.dev}:${stats.ino}`
}

/** Which files are at a path: an older copy may replace them at any time. */
const filesAt = (path: string) => ({ file: identityOf(path), log: identityOf(`${path}-wal`) })

/** Opens the stream of a chain. @param path of the ingestor's file (`DATABASE_PATH`) */
export const openSqlite = (path: string, chain: number): Source => {
  let database: DatabaseSync | undefined
  let opened: ReturnType<typeof filesAt> = { file: undefined, log: undefined }

  const close = () => {
    database?.close()
    database = undefined
  }

  const run = async <A>(use: (database: DatabaseSync) => A): Promise<A> => {
    try {
      const found = filesAt(path)
      if (found.file !== opened.file || found.log !== opened.log) close()
      if (database !== undefined) return use(database)
      // It is not created.
      if (found.file === undefined) throw new Error("there is no such file")
      // SQLite would take the pages of that log for pages of this file, and this connection would keep the ingestor from deleting it.
      if (opened.file !== undefined && found.file !== opened.file && found.log === opened.log && found.log)
        throw new Error(
          "the file was replaced, but the write-ahead log beside it is still that of the file before",
        )
      database = await open(path)
      const result = use(database)
      // The first use creates a log if there is none.
      opened = found.log === undefined ? filesAt(path) : found
      return result
    } catch (error) {
      if (error instanceof OptionError) throw error
      close()
      throw new SourceUnavailable(`${path}: ${textOf(error)}`, { cause: error })
    }
  }

  const one = (database: DatabaseSync, sql: string, ...values: ReadonlyArray<string | number>) =>
    database.prepare(sql).get(...values) as Row | undefined

  const headFrom = (database: DatabaseSync): (Head & { readonly length: number }) | undefined => {
    const row = one(database, "SELECT * FROM heads WHERE chain_id = ?", chain)
    const journal = one(database, "SELECT * FROM journals WHERE chain_id = ?", chain)
    if (row === undefined) return undefined
    const filter = one(
      database,
      "SELECT content AS filter_content FROM filter_contents WHERE chain_id = ?",
      chain,
    )
    const fields = Object.fromEntries(
      Object.entries({ ...row, ...journal, ...filter }).flatMap(([name, value]) =>
        value === null ? [] : [[name, String(value)]],
      ),
    )
    const head = headOf(fields)
    return head && { ...head, length: Number(row["entries"]) }
  }

  const pageFrom = (database: DatabaseSync, after: string, upTo: string, count: number) =>
    database
      .prepare(
        `SELECT ${columns} FROM ${table} WHERE chain_id = ? AND events.id > ? AND events.id <= ? ORDER BY events.id LIMIT ?`,
      )
      .all(chain, Number(after), Number(upTo), count)
      .map((row) => entryOf(row))

  return {
    name: "SQLite",
    lowest: "0",
    compare: (one, other) => Number(one) - Number(other),

    snapshot: ({ known, after, upTo = highest, count }) =>
      run((database) => {
        database.exec("BEGIN")
        try {
          const head = headFrom(database)
          // Two queries: SQLite answers only a single min or max from the index.
          const ends = one(
            database,
            `SELECT (SELECT min(id) FROM events WHERE chain_id = ?) AS first,
                    (SELECT max(id) FROM events WHERE chain_id = ?) AS last`,
            chain,
            chain,
          )
          const idOf = (id: unknown) => (id === null || id === undefined ? undefined : String(id))
          return {
            head,
            length: head?.length ?? 0,
            first: idOf(ends?.["first"]),
            last: idOf(ends?.["last"]),
            known: known.map((id) => {
              const row = one(
                database,
                `SELECT ${columns} FROM ${table} WHERE events.id = ? AND chain_id = ?`,
                Number(id),
                chain,
              )
              return row && entryOf(row)
            }),
            page: count === 0 ? [] : pageFrom(database, after, upTo, count),
          }
        } finally {
          database.exec("COMMIT")
        }
      }),

    measure: (after, upTo, count) => run((database) => extentOf(pageFrom(database, after, upTo, count))),

    readBack: (from, count) =>
      run((database) =>
        database
          .prepare(
            `SELECT ${columns} FROM ${table} WHERE chain_id = ? AND events.id <= ? ORDER BY events.id DESC LIMIT ?`,
          )
          .all(chain, Number(from), count)
          .map((row) => entryOf(row)),
      ),

    changed: async (after, milliseconds, signal) => {
      const until = performance.now() + milliseconds
      while (!signal.aborted && performance.now() < until) {
        const found = await run((database) =>
          one(database, "SELECT 1 FROM events WHERE chain_id = ? AND id > ? LIMIT 1", chain, Number(after)),
        )
        if (found !== undefined) return
        await sleep(pollInterval, undefined, { signal }).catch(() => {})
      }
    },

    report: (reader, { id, offset, block, finality }) =>
      run((database) => {
        database
          .prepare(
            `INSERT INTO readers (chain_id, name, id, "offset", block, finality, seen) VALUES (?, ?, ?, ?, ?, ?, unixepoch())
             ON CONFLICT (chain_id, name) DO UPDATE SET id = excluded.id, "offset" = excluded."offset",
               block = excluded.block, finality = excluded.finality, seen = excluded.seen`,
          )
          .run(chain, reader, Number(id), offset, block, finality)
      }),

    close: async () => close(),
  }
}
