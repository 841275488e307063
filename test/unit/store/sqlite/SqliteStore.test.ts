import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, Stream } from "effect"
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { Block } from "../../../../src/Domain.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import type { Push } from "../../../../src/store/Journal.ts"
import * as SqliteStore from "../../../../src/store/sqlite/SqliteStore.ts"
import { keeping, openStore } from "../../../support/ingestor.ts"
import { blocks } from "../../../support/blocks.ts"
import { directory } from "../../../support/directory.ts"
import { contract } from "../StoreContract.ts"
import type { Harness } from "../StoreContract.ts"

const open = (path: string, maxLength = 0) => openStore(SqliteStore.layer(path, keeping(maxLength)))

const fresh = Effect.map(directory, (directory): Harness => {
  const live = join(directory, "events.db")
  const tables = ["events", "heads", "window", "journals", "filters", "epochs", "readers", "missed"]
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
    putReader: (chain, name, id, seen = 0) =>
      sql(
        `INSERT OR REPLACE INTO readers VALUES (${chain}, '${name}', ${parseInt(id)}, 0, 0, 'latest', ${seen})`,
      ),
    missed: (chain, reader) =>
      query(`SELECT entries FROM missed WHERE chain_id = ${chain} AND reader = '${reader}'`).pipe(
        Effect.map(([row]) => Number(row?.["entries"] ?? 0)),
      ),
    abi: (chain) =>
      query(`SELECT abi FROM journals WHERE chain_id = ${chain}`).pipe(
        Effect.map(([row]) => String(row?.["abi"] ?? "")),
      ),
    filters: (chain) =>
      query(`SELECT filter FROM filters WHERE chain_id = ${chain} ORDER BY id`).pipe(
        Effect.map((rows) => rows.map(({ filter }) => String(filter))),
      ),
  }
})

contract("SqliteStore", fresh)

describe("SqliteStore", () => {
  it.live("upgrades a file of version 1 that version 1 can still write", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "events.db")
      const old = new DatabaseSync(path)
      old.exec(readFileSync(new URL("../../../fixtures/journal-v1/sqlite.sql", import.meta.url), "utf8"))
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
      assert.strictEqual((yield* store.push(7, "none", move))._tag, "Pushed")
      const { epoch, firstNumber } = yield* store.stats(7)
      assert.deepStrictEqual([epoch?.reason, firstNumber], ["begun", 100])

      old.prepare(begin).run(8, 4, 5, "none", 5, 0)
      assert.strictEqual((yield* store.load(8))!.head.number, 4)
      old.close()
    }).pipe(Effect.scoped),
  )

  it.live("gives no id of a lost entry again where another ingestor continues an older copy", () =>
    Effect.gen(function* () {
      const folder = yield* directory
      const path = join(folder, "events.db")
      const next = blocks(100, "a", [1, 2, 2, 1])
      const start = { number: 99, hash: "", part: 0 } as const
      const moves = (limit: number) => [
        ...pushes(start, next, false, { logs: 1000, bytes: 1_000_000, blocks: limit }),
      ]
      const one = yield* open(path)
      const [first, ...rest] = moves(1) as [Push, ...ReadonlyArray<Push>]
      yield* one.push(7, "none", first)
      const older = new DatabaseSync(path)
      older.exec(`VACUUM INTO '${join(folder, "older.db")}'`)
      for (const move of rest) yield* one.push(7, "none", move)
      const { last } = (yield* one.checkEpoch(7, undefined)).known
      older.exec(`ATTACH '${join(folder, "older.db")}' AS older`)
      for (const table of ["events", "heads", "journals", "window", "writers", "sqlite_sequence"])
        older.exec(`DELETE FROM main.${table}; INSERT INTO main.${table} SELECT * FROM older.${table}`)
      older.close()
      const two = yield* open(path)
      for (const move of rest) yield* two.push(7, "none", move)
      assert.strictEqual((yield* one.checkEpoch(7, { last, before: [] })).outcome, "lost")
    }).pipe(Effect.scoped),
  )

  it.live("applies no move while rows of a chain are missing [G-158]", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "events.db")
      const store = yield* open(path)
      const next = blocks(100, "a", [1, 2, 3])
      const [first, second] = [
        ...pushes({ number: 99, hash: "", part: 0 }, next, false, { ...store.limits, blocks: 2 }),
      ] as [Push, Push]
      yield* store.push(7, "none", first)
      const { head } = (yield* store.load(7))!
      const moves = [
        store.push(7, "none", second),
        store.pop(7, "none", { _tag: "Pop", expected: head }),
        store.finalize(7, "none", { _tag: "Finalize", expected: head, number: 100, hash: next[0]!.hash }),
      ]
      const other = new DatabaseSync(path)
      other.exec("ATTACH ':memory:' AS aside")
      for (const table of ["events", "heads", "window"]) {
        other.exec(`CREATE TABLE aside.${table} AS SELECT * FROM main.${table}; DELETE FROM main.${table}`)
        for (const move of moves) assert.strictEqual((yield* move)._tag, "Conflict", table)
        assert.strictEqual((yield* Effect.flip(store.load(7))).reason, "corrupt", table)
        assert.isUndefined(other.prepare(`SELECT * FROM main.${table}`).get())
        other.exec(`INSERT INTO main.${table} SELECT * FROM aside.${table}`)
      }
      other.close()
      assert.strictEqual((yield* moves[0]!)._tag, "Pushed")
      assert.strictEqual((yield* store.stats(7)).entries, 6)
    }).pipe(Effect.scoped),
  )

  /** The first push of a journal of chain 7. */
  const begin = (logs: ReadonlyArray<number>) => {
    const [move] = [...pushes({ number: 99, hash: "", part: 0 }, blocks(100, "a", logs), false)] as [Push]
    return move
  }

  for (const [what, replace] of [
    ["deleted", (path: string) => rmSync(path)],
    ["replaced", (path: string) => renameSync(`${path}.copy`, path)],
  ] as const) {
    it.live(`detects that its file was ${what}, reports it once, and continues in the new file [G-129]`, () =>
      Effect.gen(function* () {
        const path = join(yield* directory, "events.db")
        const store = yield* open(path)
        // This block is only in the write-ahead log. It belongs to this file, not to the one that replaces it.
        copyFileSync(path, `${path}.copy`)
        yield* store.push(7, "none", begin([1, 2]))
        const other = new DatabaseSync(`${path}.copy`)
        other.exec(readFileSync(new URL("../../../../src/store/sqlite/schema.sql", import.meta.url), "utf8"))
        other.close()

        replace(path)
        const error = yield* Effect.flip(store.push(7, "none", begin([1, 2])))
        assert.deepStrictEqual([error._tag, error.reason], ["StoreError", "unreachable"])
        assert.include(error.message, `${path} was ${what}`)
        yield* store.ping(7)
        assert.isUndefined(yield* store.load(7))
        assert.strictEqual((yield* store.push(7, "none", begin([1, 2])))._tag, "Pushed")
        const reader = new DatabaseSync(path, { readOnly: true })
        assert.deepInclude(reader.prepare("SELECT count(*) AS entries FROM events").get(), { entries: 3 })
        assert.deepInclude(reader.prepare("PRAGMA integrity_check").get(), { integrity_check: "ok" })
        reader.close()

        rmSync(path)
        assert.include((yield* Effect.flip(store.ping(7))).message, "deleted")
        rmSync(path)
        assert.include((yield* Effect.flip(Stream.runCollect(store.after(7)))).message, "deleted")
        assert.deepStrictEqual(yield* Stream.runCollect(store.after(7)), [])
      }).pipe(Effect.scoped),
    )
  }

  it.live("fails its probe on a read-only file, and writes again when the file is writable [G-130]", () =>
    Effect.gen(function* () {
      const place = yield* directory
      const path = join(place, "events.db")
      yield* Effect.scoped(Effect.flatMap(open(path), (store) => store.push(7, "none", begin([1]))))
      // For root no file is read-only.
      if (process.getuid!() === 0) {
        chmodSync(place, 0o777)
        yield* Effect.acquireRelease(
          Effect.sync(() => process.seteuid!(65_534)),
          () => Effect.sync(() => process.seteuid!(0)),
        )
        copyFileSync(path, `${path}.mine`)
        renameSync(`${path}.mine`, path)
      }
      chmodSync(path, 0o444)
      const store = yield* open(path)
      const error = yield* Effect.flip(store.ping(7))
      assert.strictEqual(error.reason, "read-only")
      assert.include(error.message, path)
      assert.strictEqual((yield* store.load(7))!.head.number, 100)
      // SQLite creates its log and index with the permissions of the file.
      for (const part of ["", "-wal", "-shm"]) chmodSync(path + part, 0o644)
      yield* Effect.ignore(store.ping(7))
      yield* store.ping(7)
      yield* store.push(7, "none", begin([1]))
    }).pipe(Effect.scoped),
  )

  it.live("names the path and the cause when it cannot be opened [G-131]", () =>
    Effect.gen(function* () {
      const place = yield* directory
      const folder = join(place, "folder.db")
      mkdirSync(folder)
      const text = join(place, "text.db")
      writeFileSync(text, "not a database, but a text that is long enough for SQLite to read it. ".repeat(20))
      const below = join(text, "events.db")
      for (const [path, reason, cause] of [
        [folder, "unreachable", "EISDIR"],
        [text, "corrupt", "not a database"],
        [below, "unreachable", "EEXIST"],
      ] as const) {
        const error = yield* Effect.flip(Effect.scoped(open(path)))
        assert.strictEqual(error.reason, reason, error.message)
        assert.include(error.message, path)
        assert.include(error.message, cause)
      }
    }).pipe(Effect.scoped),
  )

  it.live(
    "warns once when a reader blocks the checkpoint of its log, and truncates the log afterwards [G-132]",
    () =>
      Effect.gen(function* () {
        const path = join(yield* directory, "events.db")
        const store = yield* open(path)
        const said: Array<string> = []
        const logger = Logger.make(({ message }) => void said.push(String(message)))
        const first = begin([1])
        yield* store.push(7, "none", first)
        const reader = new DatabaseSync(path)
        reader.exec("BEGIN; SELECT * FROM heads")
        reader.prepare("SELECT * FROM heads").all()
        const writer = new DatabaseSync(path)
        writer.exec("CREATE TABLE ballast (data BLOB)")
        for (let i = 0; i < 7; i++) writer.exec("INSERT INTO ballast VALUES (zeroblob(10000000))")
        const work = Effect.provide(Effect.repeat(store.ping(7), { times: 99 }), Logger.layer([logger]))
        yield* work
        assert.strictEqual(said.length, 1, said.join("\n"))
        assert.match(said[0]!, /events\.db-wal has grown to 7\d MB: a reader holds a transaction open/)
        reader.exec("COMMIT")
        reader.close()
        writer.exec("PRAGMA wal_checkpoint(PASSIVE)")
        writer.close()
        yield* work
        assert.isBelow(statSync(`${path}-wal`).size, 17 * 1024 * 1024)
        assert.strictEqual(said.length, 1)
      }).pipe(Effect.scoped),
  )
})
