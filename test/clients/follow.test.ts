/** `follow` and `changes` on a real Redis, with checkpoints in real databases. */
import { assert, describe, it, vi } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Redis } from "ioredis"
import { DatabaseSync } from "node:sqlite"
import { Pool } from "pg"
import { changes as effectChanges } from "../../clients/typescript/src/effect.ts"
import {
  ConsumerError,
  atLeastOnce,
  changes,
  follow,
  memory,
  postgres,
  redis as redisCheckpoint,
  sqlite,
} from "../../clients/typescript/src/index.ts"
import type {
  Block,
  Checkpoint,
  FollowOptions,
  PgClient,
  TrimmedError,
} from "../../clients/typescript/src/index.ts"
import * as PostgresServer from "../support/PostgresServer.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { shell } from "../support/shell.ts"
import * as StreamWriter from "./StreamWriter.ts"
import { named } from "./StreamWriter.ts"

/** A pool whose idle clients may lose their server when a test ends. */
const poolOf = (url: string) => {
  const pool = new Pool({ connectionString: url })
  pool.on("error", () => {})
  return pool
}

const promise = <A>(run: () => Promise<A>) => Effect.promise(run)

/** Waits until it holds. */
const until = (holds: () => boolean | Promise<boolean>) =>
  vi.waitUntil(holds, { interval: 10, timeout: 60_000 })

const nameOf = ({ number }: Block) => String(number)

/** A consumer that records its changes, with the options that matter to a test. */
const recorder = (options: Partial<FollowOptions<never, never>>) => {
  const seen: Array<string> = []
  const warnings: Array<Error> = []
  const stop = new AbortController()
  const ended = follow({
    chain: 1,
    name: "reader",
    from: "earliest",
    finality: "latest",
    checkpoint: memory(),
    signal: stop.signal,
    onWarning: (warning: Error) => void warnings.push(warning),
    apply: ({ block }: { readonly block: Block }) => void seen.push(`+${nameOf(block)}`),
    undo: ({ block }: { readonly block: Block }) => void seen.push(`-${nameOf(block)}`),
    ...options,
  } as FollowOptions<never, never>).then(
    () => undefined,
    (error: unknown) => error,
  )
  return {
    seen,
    warnings,
    /** Stops it when it has seen so many changes. */
    after: async (count: number) => {
      await Promise.race([until(() => seen.length >= count), ended])
      stop.abort()
      const error = await ended
      if (error !== undefined) throw error
      return seen
    },
    /** The error that ends it. */
    failure: async () => {
      const error = await ended
      assert.instanceOf(error, ConsumerError)
      return error
    },
  }
}

describe("follow", () => {
  it.live("applies blocks, undoes those that a reorg replaced, and publishes its position", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      const reader = recorder({ redis: stream.url })
      yield* promise(async () => {
        await stream.push(["1a", "2a", "3a"])
        await until(() => reader.seen.length === 3)
        await stream.popTo(1)
        await stream.push(["2b", "3b", "4b"])
        assert.deepStrictEqual(await reader.after(8), ["+1", "+2", "+3", "-3", "-2", "+2", "+3", "+4"])
        const report = JSON.parse((await stream.client.hget("{events:1}:readers", "reader"))!)
        assert.deepStrictEqual(Object.keys(report), ["id", "offset", "block", "finality", "seen"])
        assert.deepStrictEqual(reader.warnings, [])
      })
    }),
  )

  it.live("delivers a block of 30 000 logs whole, also while it is written in parts", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      const sizes: Array<number> = []
      const database = new DatabaseSync(":memory:")
      const reader = recorder({
        redis: stream.url,
        checkpoint: sqlite(database) as never,
        apply: ({ block }) => void sizes.push(block.logs.length),
      })
      yield* promise(async () => {
        await stream.push(["1a", named("2a", 30_000), "3a"])
        await until(() => sizes.length === 3)
        assert.deepStrictEqual(sizes, [2, 30_000, 2])
        await reader.after(0)
      })
    }),
  )

  it.live("begins at a block, or now, and reports what is not in the stream", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start([], 200)
      yield* promise(async () => {
        for (let i = 1; i <= 300; i += 100)
          await stream.push(
            Array.from({ length: 100 }, (_, j) => named(`${i + j}a`, 5)),
            true,
          )
        await stream.trim()
        const first = Number(await stream.client.hget("{events:1}:head", "first_number"))
        assert.isAbove(first, 100)
        for (const from of ["earliest", first - 1] as const) {
          const error = await recorder({ redis: stream.url, from }).failure()
          assert.deepStrictEqual([error.code, (error as TrimmedError).firstNumber], ["TRIMMED", first])
          assert.include(error.message, `from: ${first}`)
        }
        assert.deepStrictEqual((await recorder({ redis: stream.url, from: first }).after(1))[0], `+${first}`)
        const now = recorder({ redis: stream.url, name: "now", from: "now" })
        await until(async () => (await stream.client.hexists("{events:1}:readers", "now")) === 1)
        await stream.push(["301a"])
        assert.deepStrictEqual(await now.after(1), ["+301"])
      })
    }),
  )

  it.live("begins before the first entry, and reconciles, where the first blocks have no logs", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        await stream.push([named("1a", 0), named("2a", 0), "3a"])
        const keys = ["events:1", "{events:1}:head", "{events:1}:window"]
        const saved = await Promise.all(keys.map((key) => stream.client.dumpBuffer(key)))
        await stream.trim()
        assert.strictEqual(await stream.client.hget(keys[1]!, "first_number"), "3")
        const reader = recorder({ redis: stream.url })
        await stream.push(["4a"])
        await until(() => reader.seen.length === 2)
        const all = stream.client.multi().del(...keys)
        for (const [i, dump] of saved.entries()) all.restore(keys[i]!, 0, dump!)
        await all.exec()
        await stream.push(["4b"])
        await stream.trim()
        assert.deepStrictEqual(await reader.after(4), ["+3", "+4", "-4", "+4"])
      })
    }),
  )

  it.live("retries a handler that throws, skips it into dead letters, or stops", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(() => stream.push(["1a", "2a", "3a"], true))
      yield* promise(async () => {
        const database = new DatabaseSync(":memory:")
        const attempts: Array<number> = []
        const failing = (decision: "retry" | "skip" | "stop") => ({
          redis: stream.url,
          name: decision,
          checkpoint: sqlite(database) as never,
          onError: (_: unknown, __: unknown, attempt: number) => {
            attempts.push(attempt)
            return attempt < 3 ? ("retry" as const) : decision
          },
        })
        const bad = (seen: Array<string>, until = Infinity) => {
          let calls = 0
          return {
            apply: ({ block }: { readonly block: Block }) => {
              if (block.number === 2 && ++calls <= until) throw new Error("not now")
              seen.push(`+${nameOf(block)}`)
            },
          }
        }
        const retried: Array<string> = []
        const one = recorder({ ...failing("retry"), ...bad(retried, 3) } as never)
        await until(() => retried.length >= 3 && retried.at(-1) === "+3")
        await one.after(0)
        // The first attempt was in a batch, whose first block was applied again, in a transaction of its own.
        assert.deepStrictEqual(retried, ["+1", "+1", "+2", "+3"])
        assert.deepStrictEqual(attempts.splice(0), [1, 2])

        const skipped: Array<string> = []
        const two = recorder({ ...failing("skip"), ...bad(skipped) } as never)
        await until(() => skipped.at(-1) === "+3")
        await two.after(0)
        const letters = database
          .prepare("SELECT name, kind, number, error FROM event_ingestor_dead_letters")
          .all()
        assert.deepStrictEqual(
          letters.map((letter) => ({ ...letter })),
          [{ name: "skip", kind: "apply", number: 2, error: "not now, after 3 attempts" }],
        )

        const stopped = await recorder({ ...failing("stop"), ...bad([]) } as never).failure()
        assert.strictEqual(stopped.code, "STOPPED")
        assert.include(stopped.message, "block 2")
        assert.include(stopped.message, "not now")
      })
    }),
  )

  it.live("goes on with a filter that still includes what it asks for, and with no other one", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      const [wanted, other] = [`0x${"ab".repeat(20)}`, `0x${"cd".repeat(20)}`] as const
      const of = (name: string) => {
        const block = named(name, 1)
        return { ...block, logs: block.logs.map((log) => ({ ...log, contract: wanted })) }
      }
      const changed: Array<string | undefined> = []
      const reader = recorder({
        redis: stream.url,
        addresses: [wanted],
        onFilterChanged: ({ content }) => void changed.push(content),
      })
      const silent = recorder({ redis: stream.url, name: "silent", addresses: [wanted] })
      yield* promise(async () => {
        await stream.push([of("1a")])
        await until(() => reader.seen.length === 1 && silent.seen.length === 1)
        await stream.changeFilter({ addresses: [wanted, other], topics: [] })
        await stream.push([of("2a")])
        await until(() => reader.seen.length === 2 && silent.seen.length === 2)
        assert.deepStrictEqual(changed, [JSON.stringify([[wanted, other], []])])
        await stream.changeFilter({ addresses: [other], topics: [] })
        for (const one of [reader, silent]) {
          const error = await one.failure()
          assert.strictEqual(error.code, "FILTER")
          assert.include(error.message, "does not include")
        }
        const late = await recorder({ redis: stream.url, name: "late", addresses: [wanted] }).failure()
        assert.strictEqual(late.code, "FILTER")
        // Whatever the ingestor stores is enough for a reader that names nothing, until that may become less.
        const all = recorder({ redis: stream.url, name: "all" })
        await until(() => all.seen.length === 2)
        await stream.changeFilter({ addresses: [wanted], topics: [] })
        assert.include((await all.failure()).message, "may have included more")
      })
    }),
  )

  it.live("undoes nothing for a block that was skipped", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        const seen: Array<string> = []
        const database = new DatabaseSync(":memory:")
        const reader = recorder({
          redis: stream.url,
          checkpoint: sqlite(database) as never,
          onError: () => "skip",
          apply: ({ block }: { readonly block: Block }) => {
            if (block.number === 2) throw new Error("no")
            seen.push(`+${nameOf(block)}`)
          },
          undo: ({ block }: { readonly block: Block }) => void seen.push(`-${nameOf(block)}`),
        } as never)
        await stream.push(["1a", "2a", "3a"])
        await until(() => seen.length === 2)
        await stream.popTo(1)
        await stream.push(["2b", "3b"])
        await until(() => seen.at(-1) === "+3" && seen.length === 4)
        await reader.after(0)
        assert.deepStrictEqual(seen, ["+1", "+3", "-3", "+3"])
      })
    }),
  )

  it.live("applies again what its own database has lost", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        const seen: Array<string> = []
        const database = new DatabaseSync(":memory:")
        const positions: Array<unknown> = []
        const reader = recorder({
          redis: stream.url,
          checkpoint: sqlite(database) as never,
          apply: ({ block }: { readonly block: Block }) => {
            positions.push(database.prepare("SELECT position FROM event_ingestor_readers").get()!["position"])
            seen.push(`+${nameOf(block)}`)
          },
        } as never)
        await stream.push(["1a"])
        await until(() => seen.length === 1)
        await stream.push(["2a"])
        await until(() => seen.length === 2 && !database.isTransaction)
        // A failover to a replica of it that has not got the last transaction.
        database.prepare("UPDATE event_ingestor_readers SET position = ?").run(positions[1] as string)
        database.exec("DELETE FROM event_ingestor_blocks WHERE number = 2")
        await stream.push(["3a"])
        await until(() => seen.at(-1) === "+3")
        await reader.after(0)
        assert.deepStrictEqual(seen, ["+1", "+2", "+2", "+3"])
      })
    }),
  )

  it.live("refuses a replica, and one whose user lacks a right, with what to do", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      const replica = yield* RedisServer.start(["--replicaof", `127.0.0.1 ${stream.port}`])
      yield* promise(async () => {
        await stream.push(["1a"])
        assert.strictEqual((await recorder({ redis: replica.url }).failure()).code, "REPLICA")
        const rights =
          "+xrange +xrevrange +xread +xlen +hgetall +hset +multi +exec +role +info +ping +select +hello +client"
        const keys = ["%R~events:1", "%R~{events:1}:head"]
        await stream.client.call("ACL", "SETUSER", "poor", "on", ">secret", ...keys, ...rights.split(" "))
        const url = `redis://poor:secret@127.0.0.1:${stream.port}`
        const error = await recorder({ redis: url }).failure()
        assert.strictEqual(error.code, "PERMISSION")
        assert.include(error.message, "%RW~{events:1}:readers")
        assert.deepStrictEqual(await recorder({ redis: url, pinned: false }).after(1), ["+1"])
        await stream.client.call("ACL", "SETUSER", "poor", "%RW~{events:1}:readers")
        assert.deepStrictEqual(await recorder({ redis: url }).after(1), ["+1"])
      })
    }),
  )

  it.live("catches up alike with and without the right to run scripts", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        const names = (from: number, to: number, fork: string) =>
          Array.from({ length: to - from + 1 }, (_, i) => named(`${from + i}${fork}`, 5))
        await stream.push(names(1, 300, "a"))
        await stream.popTo(250)
        await stream.push(names(251, 400, "b"))
        await stream.client.call("ACL", "SETUSER", "poor", "on", ">secret", "~*", "+@all", "-@scripting")
        const scripts = async () =>
          Number(/cmdstat_eval_ro:calls=(\d+)/.exec(await stream.client.info("commandstats"))?.[1] ?? 0)
        const urls = [`redis://poor:secret@127.0.0.1:${stream.port}`, stream.url]
        for (const [i, redis] of urls.entries()) {
          assert.deepStrictEqual(
            await recorder({ redis, name: `reader-${i}` }).after(400),
            names(1, 400, "a").map(({ number }) => `+${number}`),
          )
          assert.strictEqual((await scripts()) > 0, i === 1)
        }
      })
    }),
  )

  it.live("reconnects with the next password that its factory reads", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        await stream.client.call("ACL", "SETUSER", "app", "on", ">one", "~*", "+@all")
        let password = "one"
        const reader = recorder({
          redis: () =>
            new Redis({
              port: stream.port,
              username: "app",
              password,
              lazyConnect: true,
              maxRetriesPerRequest: 0,
              retryStrategy: () => null,
            }),
        })
        await stream.push(["1a"])
        await until(() => reader.seen.length === 1)
        await stream.client.call("ACL", "SETUSER", "app", "resetpass", ">two")
        password = "two"
        await stream.client.call("CLIENT", "KILL", "USER", "app")
        await stream.push(["2a"])
        assert.deepStrictEqual(await reader.after(2), ["+1", "+2"])
      })
    }),
  )

  it.live("survives a Redis that restarts", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start(["--appendonly", "yes", "--appendfsync", "always"])
      const reader = recorder({ redis: stream.url })
      yield* promise(async () => {
        await stream.push(["1a"])
        await until(() => reader.seen.length === 1)
      })
      yield* stream.restart
      yield* promise(async () => {
        await stream.push(["2a"])
        assert.deepStrictEqual(await reader.after(2), ["+1", "+2"])
        assert.isAbove(reader.warnings.length, 0)
      })
    }),
  )

  it.live("runs logs of one key in order and others at the same time, with an at-least-once checkpoint", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        await stream.push(
          Array.from({ length: 40 }, (_, i) => named(`${i + 1}a`, 5)),
          true,
        )
        const order = new Map<string, Array<number>>()
        let [running, most, done] = [0, 0, 0]
        const reader = recorder({
          redis: stream.url,
          checkpoint: redisCheckpoint(stream.client) as never,
          concurrency: { by: ({ index }: { readonly index: number }) => String(index), limit: 4 },
          apply: async ({ block }: { readonly block: Block }) => {
            most = Math.max(most, ++running)
            const [log] = block.logs
            await new Promise(setImmediate)
            const numbers = order.get(String(log!.index)) ?? []
            order.set(String(log!.index), [...numbers, block.number])
            running--
            done++
          },
        } as never)
        await until(() => done === 200)
        await reader.after(0)
        assert.strictEqual(most, 4)
        for (const numbers of order.values())
          assert.deepStrictEqual(
            numbers,
            numbers.toSorted((a, b) => a - b),
          )
        const position = JSON.parse((await stream.client.get("consumer:{1:reader}:position"))!)
        assert.strictEqual(position.final, 40)
      })
    }),
  )

  it.live("skips only the logs of the key that failed, and undoes the others", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        const database = new DatabaseSync(":memory:")
        const applied: Array<string> = []
        const keyOf = ({ index }: { readonly index: number }) => String(index)
        const reader = recorder({
          redis: stream.url,
          checkpoint: atLeastOnce(sqlite(database)) as never,
          concurrency: { by: keyOf },
          onError: (_: unknown, __: unknown, attempt: number) => (attempt < 2 ? "retry" : "skip"),
          apply: ({ tx, block }: { readonly tx: unknown; readonly block: Block }) => {
            assert.isUndefined(tx)
            assert.isFalse(database.isTransaction)
            const [key] = block.logs.map(keyOf)
            if (block.number === 2 && key === "1") throw new Error("no")
            applied.push(`${block.number}:${key}`)
          },
        } as never)
        await stream.push(["1a", "2a", "3a"])
        await until(() => applied.filter((one) => one.startsWith("3:")).length >= 2)
        // At least once: a log is there, maybe again.
        assert.deepStrictEqual([...new Set(applied)].sort(), ["1:0", "1:1", "2:0", "3:0", "3:1"])
        await stream.popTo(1)
        assert.deepStrictEqual(await reader.after(2), ["-3", "-2"])
        const letters = database.prepare("SELECT number, error, data FROM event_ingestor_dead_letters").all()
        assert.deepStrictEqual(
          letters.map(({ number, error, data }) => [number, error, JSON.parse(String(data)).logs.map(keyOf)]),
          [[2, "no, after 2 attempts", ["1"]]],
        )
      })
    }),
  )

  it.live("reads the ingestor's SQLite file as it reads Redis, and follows several chains", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        await stream.push(["1a", "2a"])
        const error = await recorder({
          redis: stream.url,
          chain: undefined,
          chains: [1, 1],
        } as never).failure()
        assert.strictEqual(error.code, "OPTION")
        const both = recorder({ redis: stream.url, chain: undefined, chains: [1, 2] } as never)
        assert.deepStrictEqual(await both.after(2), ["+1", "+2"])
      })
    }),
  )
})

describe("a checkpoint in Postgres", () => {
  const tables = () => `t${Math.random().toString(36).slice(2, 10)}`

  it.live(
    "applies exactly once: with a COMMIT whose reply is lost, a serialization failure, and two first starts at once",
    () =>
      Effect.gen(function* () {
        const stream = yield* StreamWriter.start()
        const url = yield* PostgresServer.start
        yield* promise(async () => {
          const table = tables()
          const pool = poolOf(url)
          await pool.query(`CREATE TABLE ${table}_logs (key text PRIMARY KEY)`)
          let [lost, serialization] = [0, 0]
          /** Loses the reply of some commits. */
          const lossy = {
            connect: async () => {
              const client = await pool.connect()
              const query: PgClient["query"] = async (text, values) => {
                const result = await client.query(text, values)
                if (text === "COMMIT" && ++lost % 3 === 0)
                  throw new Error("Connection terminated unexpectedly")
                return result
              }
              return { query, release: (error?: Error | boolean) => client.release(error) }
            },
          }
          const warnings: Array<string> = []
          const common = {
            redis: stream.url,
            checkpoint: postgres(lossy, { table }) as never,
            onWarning: ({ message }: Error) => void warnings.push(message),
            lease: "200ms" as const,
            apply: async ({ tx, block }: { readonly tx: PgClient; readonly block: Block }) => {
              if (block.number === 4 && ++serialization <= 3)
                throw Object.assign(new Error("could not serialize access"), { code: "40001" })
              for (const { key } of block.logs) await tx.query(`INSERT INTO ${table}_logs VALUES ($1)`, [key])
            },
            undo: async ({ tx, block }: { readonly tx: PgClient; readonly block: Block }) => {
              for (const { key } of block.logs)
                await tx.query(`DELETE FROM ${table}_logs WHERE key = $1`, [key])
            },
            onError: () => "stop" as const,
          }
          const [one, two] = [recorder(common as never), recorder(common as never)]
          await stream.push(["1a", "2a", "3a", "4a", "5a"])
          const count = async () =>
            Number((await pool.query(`SELECT count(*) FROM ${table}_logs`)).rows[0]!["count"])
          await until(async () => (await count()) === 10)
          await stream.popTo(2)
          await stream.push(["3b", "4b", "5b", "6b"])
          await until(async () => (await count()) === 12)
          await Promise.all([one.after(0), two.after(0)])
          const keys = await pool.query(`SELECT key FROM ${table}_logs ORDER BY key`)
          const expected = ["1a", "2a", "3b", "4b", "5b", "6b"].flatMap((name) =>
            [0, 1].map((index) => `1:${named(name).hash}:${index}`),
          )
          assert.deepStrictEqual(
            keys.rows.map(({ key }) => key),
            expected.sort(),
          )
          assert.include(warnings, "Connection terminated unexpectedly")
          assert.isAbove(serialization, 3)
          await pool.end()
        })
      }),
    60_000,
  )

  it.live("needs no right to create tables where they exist, and refuses tables of a later version", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      const url = yield* PostgresServer.start
      yield* promise(async () => {
        const [table, role] = [tables(), tables()]
        const pool = poolOf(url)
        await pool.query(postgres.ddl({ schema: "public", table }))
        await pool.query(`CREATE ROLE ${role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC`)
        for (const suffix of ["readers", "blocks", "dead_letters", "migrations"])
          await pool.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON ${table}_${suffix} TO ${role}`)
        const poor = poolOf(url.replace("test@", `${role}@`))
        await stream.push(["1a"])
        const reader = { redis: stream.url, checkpoint: postgres(poor, { schema: "public", table }) as never }
        assert.deepStrictEqual(await recorder(reader).after(1), ["+1"])
        await pool.query(`INSERT INTO ${table}_migrations VALUES (99)`)
        const later = { redis: stream.url, checkpoint: postgres(pool, { table }) as never }
        const error = await recorder(later).failure()
        assert.include(error.message, "version 99")
        await Promise.all([pool.end(), poor.end()])
      })
    }),
  )

  it.live(
    "is advanced by one process at a time: a second one takes over from one that is stopped, and from one that ends",
    () =>
      Effect.gen(function* () {
        const stream = yield* StreamWriter.start()
        const url = yield* PostgresServer.start
        const table = tables()
        const pool = poolOf(url)
        yield* promise(() => pool.query(`CREATE TABLE ${table}_logs (key text PRIMARY KEY)`))
        yield* promise(() => stream.push(["1a", "2a"]))
        const launch = shell(`exec node test/clients/worker.ts ${stream.url} ${url} ${table} 1`, {})
        const one = yield* launch
        yield* one.says(/applied 2 /)
        const two = yield* launch
        one.child.kill("SIGSTOP")
        yield* promise(() => stream.push(["3a"]))
        yield* two.says(/applied 3 /)
        one.child.kill("SIGCONT")
        yield* promise(async () => {
          await stream.popTo(2)
          await stream.push(["3b", "4b"])
        })
        yield* two.says(/applied 4 /)
        two.child.kill("SIGTERM")
        yield* promise(() => stream.push(["5b"]))
        yield* one.says(/applied 5 /)
        assert.notMatch(one.output(), /applied [34] |retracted/)
        assert.notMatch(two.output(), /applied [125] /)
        const keys = async () =>
          (await pool.query(`SELECT key FROM ${table}_logs ORDER BY key`)).rows.map(({ key }) => String(key))
        const expected = ["1a", "2a", "3b", "4b", "5b"].flatMap((name) =>
          [0, 1].map((index) => `1:${named(name).hash}:${index}`),
        )
        // A block is printed before its transaction is committed.
        yield* promise(() => until(async () => (await keys()).length >= expected.length))
        assert.deepStrictEqual(yield* promise(keys), expected.sort())
        one.child.kill("SIGTERM")
        yield* promise(() => pool.end())
      }),
    60_000,
  )
})

describe("changes", () => {
  it.live("delivers again what was not committed, and commits in the caller's transaction", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        await stream.push(["1a", "2a", "3a"])
        const database = new DatabaseSync(":memory:")
        database.exec("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        const checkpoint = sqlite(database)
        const options = {
          redis: stream.url,
          chain: 1,
          name: "pull",
          from: "earliest",
          finality: "latest",
          checkpoint,
          lease: "100ms",
        } as const
        for await (const { block, commit } of changes(options)) {
          if (block.number === 3) break
          if (block.number === 2) {
            // Rolled back: neither the row nor the position is stored.
            await checkpoint
              .transaction(async (tx) => {
                database.exec("INSERT INTO numbers VALUES (2)")
                await commit(tx)
                throw new Error("no")
              })
              .catch(() => {})
          } else {
            await checkpoint.transaction(async (tx) => {
              database.exec(`INSERT INTO numbers VALUES (${block.number})`)
              await commit(tx)
            })
          }
        }
        const again: Array<number> = []
        for await (const { block, commit } of changes(options)) {
          again.push(block.number)
          database.exec(`INSERT INTO numbers VALUES (${block.number})`)
          await commit()
          if (block.number === 3) break
        }
        assert.deepStrictEqual(again, [2, 3])
        const rows = database.prepare("SELECT number FROM numbers").all()
        assert.deepStrictEqual(
          rows.map(({ number }) => number),
          [1, 2, 3],
        )
      })
    }),
  )

  const pulling = <Tx>(redis: string, checkpoint: Checkpoint<Tx>) =>
    ({
      redis,
      chain: 1,
      name: "pull",
      from: "earliest",
      finality: "latest",
      checkpoint,
      lease: "100ms",
    }) as const

  it.live("undoes what was delivered and not committed, without a transaction, if it has gone", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        await stream.push(["1a", "2a"])
        const checkpoint = memory()
        for await (const { block, commit } of changes(pulling(stream.url, checkpoint))) {
          // Applied, and ended before the commit.
          if (block.number === 2) break
          await commit()
        }
        await stream.popTo(1)
        await stream.push(["2b"])
        const seen: Array<string> = []
        for await (const { type, block, commit } of changes(pulling(stream.url, checkpoint))) {
          seen.push(`${type} ${block.hash}`)
          await commit()
          if (seen.length === 2) break
        }
        assert.deepStrictEqual(seen, [`undo ${named("2a").hash}`, `apply ${named("2b").hash}`])
      })
    }),
  )

  it.live("ends a commit with TAKEN_OVER when another process reads", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(async () => {
        await stream.push(["1a", "2a"])
        const checkpoint = sqlite(new DatabaseSync(":memory:"))
        for await (const { commit } of changes(pulling(stream.url, checkpoint))) {
          const reader = { name: "pull", chain: 1 }
          await checkpoint.transaction(async (tx) => {
            const position = (await checkpoint.load(tx, reader))!
            await checkpoint.save(tx, reader, {
              position: { ...position, owner: "another" },
              remove: [],
              put: [],
            })
          })
          const error = await commit().catch((error: unknown) => error)
          assert.instanceOf(error, ConsumerError)
          assert.strictEqual(error.code, "TAKEN_OVER")
          break
        }
      })
    }),
  )

  it.live("is a Stream of the user's own Effect", () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* promise(() => stream.push(["1a", "2a", "3a"]))
      const numbers = yield* effectChanges({
        redis: stream.url,
        chain: 1,
        name: "effect",
        from: "earliest",
        finality: "latest",
        checkpoint: memory(),
      }).pipe(
        Stream.tap(({ commit }) => commit()),
        Stream.map(({ block }) => block.number),
        Stream.take(3),
        Stream.runCollect,
      )
      assert.deepStrictEqual([...numbers], [1, 2, 3])
      const error = yield* effectChanges({
        redis: stream.url,
        chain: 1,
        name: "",
        from: "earliest",
        finality: "latest",
        checkpoint: memory(),
      }).pipe(Stream.runDrain, Effect.flip)
      assert.strictEqual(error.code, "OPTION")
    }),
  )
})
