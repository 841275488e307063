import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { Block } from "../../src/Domain.ts"
import { pushes } from "../../src/store/Journal.ts"
import type { Push } from "../../src/store/Journal.ts"
import * as SqliteStore from "../../src/store/SqliteStore.ts"
import { Store } from "../../src/store/Store.ts"
import { blocks } from "../support/blocks.ts"
import { directory } from "../support/directory.ts"
import { contract } from "./StoreContract.ts"
import type { Harness } from "./StoreContract.ts"

const open = (path: string, maxLength = 0) =>
  Effect.map(Layer.build(SqliteStore.layer(path, maxLength)), (context) => Context.get(context, Store))

const fresh = Effect.map(directory, (directory): Harness => {
  const live = join(directory, "events.db")
  const tables = ["events", "heads", "window", "journals", "filters", "readers", "missed"]
  const sql = (...statements: ReadonlyArray<string>) =>
    Effect.sync(() => {
      const database = new DatabaseSync(live)
      for (const statement of statements) database.exec(statement)
      database.close()
    })
  const query = (statement: string) =>
    Effect.sync(() => {
      const database = new DatabaseSync(live)
      const rows = database.prepare(statement).all()
      database.close()
      return rows
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
    setVersion: (chain, version) => sql(`UPDATE journals SET version = ${version} WHERE chain_id = ${chain}`),
    putReader: (chain, name, id) =>
      sql(`INSERT INTO readers VALUES (${chain}, '${name}', ${parseInt(id)}, 0, 0, 'latest', 0)`),
    missed: (chain, reader) =>
      query(`SELECT entries FROM missed WHERE chain_id = ${chain} AND reader = '${reader}'`).pipe(
        Effect.map(([row]) => Number(row?.["entries"] ?? 0)),
      ),
    filters: (chain) =>
      query(`SELECT filter FROM filters WHERE chain_id = ${chain} ORDER BY id`).pipe(
        Effect.map((rows) => rows.map(({ filter }) => String(filter))),
      ),
  }
})

contract("SqliteStore", fresh)

describe("SqliteStore", () => {
  it.live("takes over a file of version 1, which version 1 can then still write", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "events.db")
      const old = new DatabaseSync(path)
      old.exec(readFileSync(new URL("../fixtures/journal-v1/sqlite.sql", import.meta.url), "utf8"))
      // As version 1 begins a chain and writes its first block, of one log.
      const begin = "INSERT INTO heads VALUES (?, ?, '', 0, NULL, NULL, ?, '', ?, ?, ?, 0)"
      const [first, second] = blocks(100, "a", [1, 2]) as [Block, Block]
      old.prepare(begin).run(7, 99, 100, "none", 100, 0)
      const { txHash, contract: address, data } = first.logs[0]!
      const values = [7, 100, first.hash, txHash, 0, address, "[]", data, first.timestamp, 0, null]
      old.prepare("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)").run(...values)
      old.prepare("INSERT INTO window VALUES (7, 100, ?, ?, 1, 1, 1)").run(first.hash, first.parentHash)
      old
        .prepare("UPDATE heads SET number = 100, hash = ?, start_hash = ?, entries = 1, added = 1")
        .run(first.hash, first.hash)

      const store = yield* open(path)
      const { head } = (yield* store.load(7))!
      assert.deepStrictEqual(head, { number: 100, hash: first.hash, part: 0 })
      assert.isUndefined((yield* store.stats(7)).epoch)
      const [move] = [...pushes(head, [second], false)] as [Push]
      assert.deepStrictEqual(yield* store.push(7, "none", move), { _tag: "Pushed" })
      const { epoch, firstNumber } = yield* store.stats(7)
      assert.deepStrictEqual([epoch?.reason, firstNumber], ["begun", 100])

      old.prepare(begin).run(8, 4, 5, "none", 5, 0)
      assert.strictEqual((yield* store.load(8))!.head.number, 4)
      old.close()
    }).pipe(Effect.scoped),
  )
})
