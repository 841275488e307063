/** A checkpoint in a SQLite database of the user, by `node:sqlite` or `better-sqlite3`. */
import type { Checkpoint } from "../Checkpoint.ts"
import { Mutex } from "../Mutex.ts"
import { ddlOf, flavours, sqlCheckpoint } from "./Sql.ts"
import type { Tables } from "./Sql.ts"

/** What is used of a `DatabaseSync`, or of a `Database` of better-sqlite3. */
export interface SqliteDatabase {
  exec(sql: string): unknown
  prepare(sql: string): {
    all(...values: Array<never>): Array<unknown>
    run(...values: Array<never>): unknown
  }
}

/** One transaction at a time runs on a connection. */
const locks = new WeakMap<SqliteDatabase, Mutex>()

const lockOf = (database: SqliteDatabase): Mutex => {
  const lock = locks.get(database) ?? new Mutex()
  locks.set(database, lock)
  return lock
}

const bound = (value: unknown) => value as never

/**
 * Stores the state in SQLite: exactly once in effect. Handlers write through `tx`, which is this database. What else the program
 * writes by this connection while a handler runs becomes a part of the transaction: give it a connection of its own.
 *
 * @param database an open connection; set a `timeout`, if other processes write to the file
 * @param tables where its tables are; they are created at the first start. `sqlite.ddl(tables)` prints the statements
 */
export const sqlite = Object.assign(
  <Database extends SqliteDatabase>(
    database: Database,
    tables: Omit<Tables, "schema"> = {},
  ): Checkpoint<Database> => {
    const statements = new Map<string, ReturnType<SqliteDatabase["prepare"]>>()
    const prepared = (text: string) => {
      const statement = statements.get(text) ?? database.prepare(text)
      statements.set(text, statement)
      return statement
    }
    return sqlCheckpoint<Database>(
      {
        transaction: (run) =>
          lockOf(database).run(async () => {
            database.exec("BEGIN IMMEDIATE")
            try {
              const result = await run(database)
              database.exec("COMMIT")
              return result
            } catch (error) {
              // SQLite itself ends a transaction after some errors.
              try {
                database.exec("ROLLBACK")
              } catch {}
              throw error
            }
          }),
        query: async (_, text, values) => {
          // Each parameter is used once, in order.
          const sql = text.replace(/\$\d+/g, "?")
          if (sql.startsWith("SELECT")) return prepared(sql).all(...values.map(bound)) as never
          if (values.length > 0) prepared(sql).run(...values.map(bound))
          else database.exec(sql)
          return []
        },
      },
      tables,
      flavours.sqlite,
    )
  },
  { ddl: (tables: Omit<Tables, "schema"> = {}) => ddlOf(tables, flavours.sqlite) },
)
