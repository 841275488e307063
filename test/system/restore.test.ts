/**
 * Backups of both stores, and of a reader's own database, as docs/DEPLOY.md describes them: taken while everything runs, restored after
 * further blocks and reorgs, one of which happens while the store is down. Journals and readers are compared with the node.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync, backup } from "node:sqlite"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import * as Readers from "../support/readers.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"
import { shell } from "../support/shell.ts"

/** No reorg of these tests is deeper. A service finalizes when it starts, and once a minute. */
const finality = { DEVNET_FINALITY: "depth", DEVNET_FINALITY_DEPTH: "5" }

const stream = `events:${Devnet.chainId}`
const head = `{${stream}}:head`

/** Upserts and deletes by identity, with the position that Redis keeps for a group. */
const groupOf = (client: Redis) => {
  const rows = new Map<string, number>()
  return {
    rows,
    create: Effect.promise(() => client.xgroup("CREATE", stream, "group", "0", "MKSTREAM")),
    /** Reads to the end of the stream. */
    read: Effect.promise(async () => {
      for (;;) {
        const reply = await client.xreadgroup("GROUP", "group", "one", "COUNT", 100, "STREAMS", stream, ">")
        const [[, entries]] = (reply ?? [[stream, []]]) as [[string, Array<[string, Array<string>]>]]
        if (entries.length === 0) return
        for (const [id, fields] of entries) {
          const log: Record<string, string> = {}
          for (let i = 0; i < fields.length; i += 2) log[fields[i]!] = fields[i + 1]!
          const key = Readers.keyOf(log["block_hash"]!, log["log_index"]!)
          if (log["removed"] === "true") rows.delete(key)
          else rows.set(key, Number(log["block_number"]))
          await client.xack(stream, "group", id)
        }
      }
    }),
  }
}

const epochs = (client: Redis) =>
  Effect.promise(async () => {
    const [epoch, reason, before] = await client.hmget(head, "epoch", "epoch_reason", "epoch_before")
    return { epoch, reason, before }
  })

describe("a backup that is restored", { concurrent: true }, () => {
  it.live(
    "of Redis, under a running ingestor: the missing blocks are written again in a new epoch, and readers end equal to the chain [G-226]",
    () =>
      Effect.gen(function* () {
        const devnet = yield* Devnet.start()
        for (let i = 0; i < 8; i++) yield* devnet.block(2)
        const server = yield* RedisServer.start()
        const { client } = server
        yield* Effect.promise(() => client.config("SET", "appendonly", "yes"))
        const store = yield* openRedis(standalone(server.port))
        const group = groupOf(client)
        yield* group.create
        const variables = { ...finality, REDIS_URL: server.url }
        yield* Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
        const reader = yield* Readers.start(server.url)
        const settled = Effect.gen(function* () {
          yield* Devnet.reached(store, devnet.head)
          yield* Devnet.assertEqual(store, devnet)
          yield* Readers.assertEqual(reader, devnet)
          yield* group.read
          assert.deepStrictEqual([...group.rows.keys()].sort(), yield* Readers.keysOfNode(devnet))
        })
        yield* devnet.block(3)
        yield* devnet.reorg(2)
        yield* settled

        // The backup, while blocks are written.
        const final = Number(yield* Effect.promise(() => client.hget(head, "final_number")))
        assert.isAbove(final, 0)
        const copy = join(server.directory, "backup.rdb")
        const saving = yield* shell(`exec redis-cli -u ${server.url} --rdb ${copy}`, {})
        yield* devnet.block(1, 1)
        yield* saving.says(/Transfer finished with success/)

        for (let i = 0; i < 3; i++) yield* devnet.block(4)
        yield* devnet.reorg(4)
        yield* devnet.block(2)
        yield* settled
        const before = yield* epochs(client)

        // Redis is lost, and the blocks that readers have read last are replaced before it is back.
        server.kill("SIGKILL")
        yield* devnet.reorg(3)
        yield* devnet.block(1)
        rmSync(join(server.directory, "appendonlydir"), { recursive: true, force: true })
        renameSync(copy, join(server.directory, "dump.rdb"))
        yield* server.restart
        yield* Effect.promise(() => client.config("SET", "appendonly", "yes"))
        for (const [key, number] of group.rows) if (number > final) group.rows.delete(key)
        yield* Effect.promise(() => client.xgroup("SETID", stream, "group", "0"))
        yield* settled
        const { epoch, reason, before: earlier } = yield* epochs(client)
        assert.notStrictEqual(epoch, before.epoch)
        assert.deepStrictEqual([reason, earlier], ["lost", before.epoch])
        yield* devnet.block(2)
        yield* settled
      }).pipe(Effect.scoped),
    60_000,
  )

  it.live(
    "of SQLite, with the ingestor stopped: it resumes, and a reader detects the loss by its cursor and ends equal to the chain [G-227]",
    () =>
      Effect.gen(function* () {
        const devnet = yield* Devnet.start()
        for (let i = 0; i < 8; i++) yield* devnet.block(2)
        const place = yield* directory
        const path = join(place, "events.db")
        const variables = { ...finality, DATABASE_PATH: path }
        const start = Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
        let service = yield* start
        yield* service.port
        const reader = yield* Readers.start(path)
        const settled = Effect.gen(function* () {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const store = yield* Devnet.openSqlite(path)
              yield* Devnet.reached(store, devnet.head)
              yield* Devnet.assertEqual(store, devnet)
            }),
          )
          yield* Readers.assertEqual(reader, devnet)
        })
        const methods: ReadonlyArray<(from: DatabaseSync, to: string) => unknown> = [
          (from, to) => from.prepare("VACUUM INTO ?").run(to),
          // As `.backup` of the program sqlite3.
          (from, to) => backup(from, to),
        ]
        for (const [i, method] of methods.entries()) {
          yield* devnet.block(3)
          yield* devnet.reorg(2)
          yield* settled
          const copy = join(place, `backup-${i}.db`)
          yield* Effect.promise(async () => {
            const database = new DatabaseSync(path, { timeout: 5000 })
            await method(database, copy)
            database.close()
          })
          for (let i = 0; i < 3; i++) yield* devnet.block(4)
          yield* devnet.reorg(4)
          yield* devnet.block(2)
          yield* settled

          service.kill("SIGTERM")
          assert.strictEqual(yield* service.exit, 0)
          yield* devnet.reorg(3)
          yield* devnet.block(1)
          for (const part of ["-wal", "-shm"]) rmSync(`${path}${part}`, { force: true })
          renameSync(copy, path)
          service = yield* start
          yield* settled
        }
      }).pipe(Effect.scoped),
    60_000,
  )

  it.live(
    "of a reader's own database: it reads again from the position in it, and ends equal to the chain [G-228]",
    () =>
      Effect.gen(function* () {
        const devnet = yield* Devnet.start()
        const place = yield* directory
        const [source, path] = [join(place, "events.db"), join(place, "reader.db")]
        yield* Service.start({
          env: Devnet.environment(devnet.anvil.url, { DATABASE_PATH: source }),
        })
        yield* devnet.block(3)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const reader = yield* Readers.start(source, path)
            yield* Readers.assertEqual(reader, devnet)
            const database = new DatabaseSync(path, { timeout: 5000 })
            database.prepare("VACUUM INTO ?").run(`${path}.backup`)
            database.close()
            yield* devnet.block(4)
            yield* devnet.reorg(2)
            yield* devnet.block(2)
            yield* Readers.assertEqual(reader, devnet)
          }),
        )
        for (const part of ["-wal", "-shm"]) rmSync(`${path}${part}`, { force: true })
        renameSync(`${path}.backup`, path)
        yield* devnet.reorg(1)
        yield* devnet.block(1)
        yield* Readers.assertEqual(yield* Readers.start(source, path), devnet)
      }).pipe(Effect.scoped),
    60_000,
  )
})
