/** A checkpoint in Postgres, by `pg` or by any other library. */
import type { Checkpoint } from "../Checkpoint.ts"
import { ddlOf, flavours, sqlCheckpoint } from "./Sql.ts"
import type { Dialect, Tables } from "./Sql.ts"

/** What is used of a client of `pg`. */
export interface PgClient {
  query(text: string, values?: Array<unknown>): Promise<{ readonly rows: Array<Record<string, unknown>> }>
  release(error?: Error | boolean): void
}

/** What is used of a `pg.Pool`. */
export interface PgPool<Client extends PgClient = PgClient> {
  connect(): Promise<Client>
}

/** The clients of a pool. `pg` overloads `connect` with a form that takes a callback. */
type ClientOf<Pool extends PgPool> = Pool["connect"] extends {
  (): Promise<infer Client>
  (callback: never): unknown
}
  ? Client
  : Awaited<ReturnType<Pool["connect"]>>

const dialectOf = <Client extends PgClient>(pool: PgPool<Client>): Dialect<Client> => ({
  transaction: async (run) => {
    const client = await pool.connect()
    let broken: Error | undefined
    try {
      await client.query("BEGIN")
      const result = await run(client)
      await client.query("COMMIT")
      return result
    } catch (error) {
      await client.query("ROLLBACK").catch((failure: Error) => (broken = failure))
      throw error
    } finally {
      // A connection whose transaction may still be open is not used again.
      client.release(broken)
    }
  },
  query: async (client, text, values) => (await client.query(text, [...values])).rows,
})

/**
 * Stores the state in Postgres: exactly once in effect. Handlers write through `tx`, a client of the pool.
 *
 * @param database a `pg.Pool`, or how another library runs a transaction and a query (docs/CONSUMING.md has some)
 * @param tables where its tables are; they are created at the first start. `postgres.ddl(tables)` prints the statements
 */
export const postgres: {
  <Pool extends PgPool>(pool: Pool, tables?: Tables): Checkpoint<ClientOf<Pool>>
  <Tx>(dialect: Dialect<Tx>, tables?: Tables): Checkpoint<Tx>
  readonly ddl: (tables?: Tables) => string
} = Object.assign(
  <Tx>(database: PgPool<Tx & PgClient> | Dialect<Tx>, tables: Tables = {}): Checkpoint<Tx> =>
    sqlCheckpoint<Tx>(
      "transaction" in database ? database : (dialectOf(database) as unknown as Dialect<Tx>),
      tables,
      flavours.postgres,
    ),
  { ddl: (tables: Tables = {}) => ddlOf(tables, flavours.postgres) },
)
