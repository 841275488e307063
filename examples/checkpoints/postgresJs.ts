/** A checkpoint by postgres.js: `follow({ checkpoint: postgres(postgresJs(sql)), … })`; handlers write by `tx`, a `TransactionSql`. */
import type { Dialect } from "../../clients/typescript/src/index.ts" // yours: "@event-ingestor/consumer"

/** What is used of `Sql`, by which `import postgres from "postgres"` connects. */
interface Sql<Tx> {
  begin(run: (tx: Tx) => Promise<unknown>): Promise<unknown>
  begin(options: string, run: (tx: Tx) => Promise<unknown>): Promise<unknown>
}

interface TransactionSql {
  unsafe(text: string, values: Array<never>): PromiseLike<ReadonlyArray<Record<string, unknown>>>
}

export const postgresJs = <Tx extends TransactionSql>(sql: Sql<Tx>): Dialect<Tx> => ({
  transaction: async <A>(run: (tx: Tx) => Promise<A>) => (await sql.begin(run)) as A,
  query: (tx, text, values) => Promise.resolve(tx.unsafe(text, [...values] as Array<never>)),
})
