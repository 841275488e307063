/**
 * The store is restored to an older copy while no ingestor runs, so that none can detect it: the epoch stays, and readers
 * detect it by their cursors. The reader here follows rules 1 and 2 of docs/CONSUMING.md ("Without a library") exactly.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import type { Scope } from "effect"
import { renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { directory } from "../support/directory.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { accelerated } from "../support/acceleratedClock.ts"
import { openSqlite, startIngestor, variablesFor } from "../support/ingestor.ts"
import type { Client } from "../support/ingestor.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import { storeRegressions } from "../../src/observability/ChainMetrics.ts"

const hurry = 20

type Row = Readonly<Record<string, string>>

/** What a reader fetches, in one transaction. */
interface Snapshot {
  readonly epoch: string
  readonly finalNumber: number
  readonly firstId: string | undefined
  /** The entry of this id, if there is one. */
  readonly mine: Row | undefined
  readonly page: ReadonlyArray<readonly [id: string, entry: Row]>
}

interface Kind {
  readonly name: string
  readonly open: Effect.Effect<Client, unknown, Scope.Scope>
  readonly fetch: (cursor: string | undefined) => Promise<Snapshot>
  readonly isAbove: (one: string, other: string) => boolean
  /** Copies the data; returns a function that restores the copy while the store is closed. */
  readonly copy: () => Promise<() => Promise<unknown>>
}

const redisKind = Effect.gen(function* () {
  const { client, port } = yield* RedisServer.start()
  const keys = ["events:1", "{events:1}:head", "{events:1}:window"]
  const rowOf = (fields: ReadonlyArray<string>): Row =>
    Object.fromEntries(fields.flatMap((field, i) => (i % 2 === 0 ? [[field, fields[i + 1]!]] : [])))
  const kind: Kind = {
    name: "Redis",
    open: openRedis(standalone(port), "events", 0, `${5 * hurry} seconds`),
    fetch: async (cursor = "0-0") => {
      const [head, first, mine, page] = (await client
        .multi()
        .hgetall("{events:1}:head")
        .xrange("events:1", "-", "+", "COUNT", 1)
        .xrange("events:1", cursor, cursor)
        .xrange("events:1", `(${cursor}`, "+", "COUNT", 10)
        .exec())!.map(([, reply]) => reply) as [Row, ...ReadonlyArray<Array<[string, Array<string>]>>]
      return {
        epoch: head["epoch"]!,
        finalNumber: Number(head["final_number"] ?? -1),
        firstId: first![0]?.[0],
        mine: mine![0] && rowOf(mine![0][1]),
        page: page!.map(([id, fields]) => [id, rowOf(fields)] as const),
      }
    },
    isAbove: (one, other) => {
      const [[a = 0, b = 0], [c = 0, d = 0]] = [one.split("-").map(Number), other.split("-").map(Number)]
      return a > c || (a === c && b > d)
    },
    copy: async () => {
      const saved = await Promise.all(keys.map((key) => client.dumpBuffer(key)))
      return async () => {
        const all = client.multi().del(...keys)
        for (const [i, dump] of saved.entries()) all.restore(keys[i]!, 0, dump!)
        await all.exec()
      }
    },
  }
  return kind
})

const sqliteKind = Effect.gen(function* () {
  const path = join(yield* directory, "events.db")
  const reading = <A>(use: (database: DatabaseSync) => A) => {
    const database = new DatabaseSync(path, { timeout: 5000 })
    try {
      return use(database)
    } finally {
      database.close()
    }
  }
  const rowOf = (row: Record<string, unknown>): Row =>
    Object.fromEntries(
      Object.entries(row).map(([field, value]) => [
        field,
        field === "removed" ? String(value === 1) : String(value),
      ]),
    )
  const kind: Kind = {
    name: "SQLite",
    open: openSqlite(path),
    fetch: async (cursor = "0") =>
      reading((database) => {
        database.exec("BEGIN")
        const one = (sql: string, ...values: ReadonlyArray<number>) => database.prepare(sql).get(...values)
        const mine = one("SELECT * FROM events WHERE chain_id = 1 AND id = ?", Number(cursor))
        const first = one("SELECT min(id) AS id FROM events WHERE chain_id = 1")?.["id"]
        return {
          epoch: String(one("SELECT epoch FROM journals WHERE chain_id = 1")?.["epoch"]),
          finalNumber: Number(
            one("SELECT final_number FROM heads WHERE chain_id = 1")?.["final_number"] ?? -1,
          ),
          firstId: first === null || first === undefined ? undefined : String(first),
          mine: mine && rowOf(mine),
          page: database
            .prepare("SELECT * FROM events WHERE chain_id = 1 AND id > ? ORDER BY id LIMIT 10")
            .all(Number(cursor))
            .map((row) => [String(row["id"]), rowOf(row)] as const),
        }
      }),
    isAbove: (one, other) => Number(one) > Number(other),
    copy: async () => {
      reading((database) => database.prepare("VACUUM INTO ?").run(`${path}.older`))
      return async () => {
        for (const part of ["-wal", "-shm"]) rmSync(path + part, { force: true })
        renameSync(`${path}.older`, path)
      }
    },
  }
  return kind
})

const identityOf = (entry: Row) => `${entry["block_hash"]}:${entry["log_index"]}`
const whichOf = (entry: Row) => `${identityOf(entry)}:${entry["removed"]}`

/** A reader with its own table and cursor. */
const reader = ({ isAbove, fetch }: Kind) => {
  const table = new Map<string, number>()
  let cursor:
    | { readonly id: string; readonly which: string; readonly epoch: string; readonly finalNumber: number }
    | undefined
  let setBack = 0
  return {
    table,
    setBack: () => setBack,
    epoch: () => cursor?.epoch,
    read: async () => {
      for (;;) {
        const { epoch, finalNumber, firstId, mine, page } = await fetch(cursor?.id)
        if (cursor !== undefined) {
          const wasTrimmed = firstId !== undefined && isAbove(firstId, cursor.id)
          const isMine = mine !== undefined && whichOf(mine) === cursor.which
          if (epoch !== cursor.epoch || (!isMine && !wasTrimmed)) {
            setBack++
            for (const [log, number] of table) if (number > cursor.finalNumber) table.delete(log)
            cursor = undefined
            continue
          }
        }
        if (page.length === 0) return
        for (const [, entry] of page) {
          if (entry["removed"] === "true") table.delete(identityOf(entry))
          else table.set(identityOf(entry), Number(entry["block_number"]))
        }
        const [id, entry] = page.at(-1)!
        cursor = { id, which: whichOf(entry), epoch, finalNumber }
      }
    },
  }
}

const expected = (chain: FakeChain) =>
  chain
    .blocks()
    .flatMap(({ hash, logs }) => logs.map(({ index }) => `${hash}:${index}`))
    .sort()

describe("a store that is restored to an older copy while no ingestor runs", () => {
  for (const [name, makeKind] of [
    ["Redis", redisKind],
    ["SQLite", sqliteKind],
  ] as const) {
    it.live(
      `begins no epoch, and readers detect it by their cursors, at once or after finality: ${name} [G-205]`,
      () =>
        Effect.gen(function* () {
          const kind = yield* makeKind
          const chain = new FakeChain({ id: 1, finality: 16 })
          const node = new FakeNode(chain)
          const [prompt, late, never] = [reader(kind), reader(kind), reader(kind)]
          /** Runs a new ingestor until it has stored this many more blocks of two logs. */
          const go = Effect.fnUntraced(function* (blocks: number) {
            const store = yield* kind.open
            const { status } = yield* startIngestor(
              store,
              { one: node },
              variablesFor({ ethereum: [chain, "one"] }),
            )
            for (let i = 0; i < blocks; i++) {
              chain.extend(2)
              yield* Effect.sleep("2 seconds")
            }
            for (let i = 0; i < 120 * hurry && status.stored !== chain.head.number; i++)
              yield* Effect.sleep("500 millis")
            assert.strictEqual(status.stored, chain.head.number)
            return status
          }, Effect.scoped)
          const read = (one: ReturnType<typeof reader>) => Effect.promise(one.read)

          yield* go(20)
          const bringBack = yield* Effect.promise(kind.copy)
          yield* read(never)
          yield* go(4)
          yield* read(prompt)
          yield* read(late)
          const epoch = prompt.epoch()
          assert.deepStrictEqual([...late.table.keys()].sort(), expected(chain))

          // The last of the lost blocks are replaced by others when they are written again.
          yield* Effect.promise(bringBack)
          chain.fork(3, 2, 2, 2)
          const regressions = (yield* go(1)).count(storeRegressions)
          yield* read(prompt)
          assert.deepStrictEqual([...prompt.table.keys()].sort(), expected(chain))
          // The replacements of the lost blocks are final by now.
          chain.jump(...Array.from({ length: 20 }, () => 1))
          yield* go(4)
          for (const one of [prompt, late, never]) {
            yield* read(one)
            assert.deepStrictEqual([...one.table.keys()].sort(), expected(chain))
          }
          assert.deepStrictEqual([prompt.setBack(), late.setBack(), never.setBack()], [1, 1, 0])
          assert.strictEqual(late.epoch(), epoch, "the loss was not detectable")
          assert.strictEqual(regressions, 0)
        }).pipe(Effect.scoped, accelerated(hurry), Effect.provide(Layer.fresh(Logger.layer([])))),
      60_000,
    )
  }
})
