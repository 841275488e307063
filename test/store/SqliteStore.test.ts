import { Context, Effect, Layer } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as SqliteStore from "../../src/store/SqliteStore.ts"
import { Store } from "../../src/store/Store.ts"
import { contract } from "./StoreContract.ts"
import type { Harness } from "./StoreContract.ts"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "event-ingestor-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })),
)

const open = (path: string, maxLength = 0) =>
  Effect.map(Layer.build(SqliteStore.layer(path, maxLength)), (context) => Context.get(context, Store))

const fresh = Effect.map(directory, (directory): Harness => {
  const live = join(directory, "events.db")
  const tables = ["events", "heads", "window"]
  const sql = (...statements: ReadonlyArray<string>) =>
    Effect.sync(() => {
      const database = new DatabaseSync(live)
      for (const statement of statements) database.exec(statement)
      database.close()
    })
  return {
    open: (maxLength) => open(live, maxLength),
    snapshot: Effect.gen(function* () {
      const copy = join(directory, "copy.db")
      yield* sql(`VACUUM INTO '${copy}'`)
      return sql(
        `ATTACH '${copy}' AS copy`,
        ...tables.flatMap((table) => [
          `DELETE FROM ${table}`,
          `INSERT INTO ${table} SELECT * FROM copy.${table}`,
        ]),
      )
    }),
    wipe: sql(...tables.map((table) => `DELETE FROM ${table}`)),
    deleteEntries: (_, ids) => sql(`DELETE FROM events WHERE id IN (${ids.join(",")})`),
  }
})

contract("SqliteStore", fresh)
