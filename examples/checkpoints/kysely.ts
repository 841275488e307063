/** A checkpoint by Kysely: `follow({ checkpoint: postgres(kysely(db, CompiledQuery.raw)), … })`; handlers write by `tx`, a `Transaction`. */
import type { Dialect } from "../../clients/typescript/src/index.ts" // yours: "@event-ingestor/consumer"

/** What is used of `Kysely<Database>`. */
interface Kysely<Tx> {
  transaction(): { execute<A>(run: (tx: Tx) => Promise<A>): Promise<A> }
}

interface Transaction<Query> {
  executeQuery(query: Query): Promise<{ readonly rows: ReadonlyArray<unknown> }>
}

/** @param raw `CompiledQuery.raw` */
export const kysely = <Query, Tx extends Transaction<Query>>(
  db: Kysely<Tx>,
  raw: (text: string, values: Array<unknown>) => Query,
): Dialect<Tx> => ({
  transaction: (run) => db.transaction().execute(run),
  query: async (tx, text, values) =>
    (await tx.executeQuery(raw(text, [...values]))).rows as ReadonlyArray<Record<string, unknown>>,
})
