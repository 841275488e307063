/** A checkpoint by Drizzle: `follow({ checkpoint: postgres(drizzle(db, sql)), … })`; handlers write by `tx`, a `PgTransaction`. */
import type { Dialect } from "../../clients/typescript/src/index.ts" // yours: "@event-ingestor/consumer"

/** What is used of `drizzle(pool)`, of drizzle-orm/node-postgres or drizzle-orm/postgres-js. */
interface Drizzle<Tx> {
  transaction<A>(run: (tx: Tx) => Promise<A>): Promise<A>
}

interface Transaction<Sql> {
  execute(query: Sql): PromiseLike<unknown>
}

/** What is used of `import { sql } from "drizzle-orm"`. */
interface SqlTag<Sql> {
  (parts: TemplateStringsArray, ...values: Array<unknown>): Sql
  raw(text: string): Sql
  join(parts: Array<Sql>): Sql
}

type Rows = ReadonlyArray<Record<string, unknown>>

export const drizzle = <Sql, Tx extends Transaction<Sql>>(
  db: Drizzle<Tx>,
  sql: SqlTag<Sql>,
): Dialect<Tx> => ({
  transaction: (run) => db.transaction(run),
  query: async (tx, text, values) => {
    // Each of $1, $2, … is used once, in order.
    const [first, ...rest] = text.split(/\$\d+/)
    const parts = rest.flatMap((part, i) => [sql`${values[i]}`, sql.raw(part)])
    const result = await tx.execute(sql.join([sql.raw(first!), ...parts]))
    // postgres.js answers an array of rows, and pg an object with them.
    return (Array.isArray(result) ? result : (result as { readonly rows: Rows }).rows) as Rows
  },
})
