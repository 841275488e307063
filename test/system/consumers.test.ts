/**
 * The examples that use the libraries, and the programs of their READMEs where the packages are installed, as processes: a real node, the real
 * ingestor and a real Redis, with reorgs, `kill -9` of the consumers, and a Redis that is set back. What they hold is compared with
 * the node.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { createHmac } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Pool } from "pg"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { installClient } from "../support/packages.ts"
import * as PostgresServer from "../support/PostgresServer.ts"
import { environment, installWheel } from "../support/PythonEnvironment.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"
import { restartable, shell } from "../support/shell.ts"

interface NodeLog {
  readonly address: string
  readonly blockHash: string
  readonly logIndex: string
  readonly topics: ReadonlyArray<string>
  readonly data: string
}

const keys = ["", "{}:head", "{}:window"].map((key) =>
  key === "" ? `events:${Devnet.chainId}` : key.replace("{}", `{events:${Devnet.chainId}}`),
)

const read = <A>(path: string, sql: string): ReadonlyArray<A> => {
  const database = new DatabaseSync(path, { timeout: 5000 })
  try {
    return database.prepare(sql).all() as unknown as ReadonlyArray<A>
  } catch {
    // There is no table yet.
    return []
  } finally {
    database.close()
  }
}

interface Row {
  readonly key: string
  readonly amount: string
}

/** Balances of 0 may be there or not. */
const textOf = (rows: ReadonlyArray<Row>) =>
  rows
    .filter(({ amount }) => BigInt(amount) !== 0n)
    .map(({ key, amount }) => `${key} ${amount}`)
    .sort()

/** @param keyOf under which name the balance of a holder is kept */
const sumsOf = (logs: ReadonlyArray<NodeLog>, keyOf: (token: string, holder: string) => string) => {
  const balances = new Map<string, bigint>()
  for (const { address, topics, data } of logs) {
    const [, from, to] = topics.map((topic) => `0x${topic.slice(26)}`)
    for (const [holder, sign] of [
      [from, -1n],
      [to, 1n],
    ] as const) {
      const key = keyOf(address, holder!)
      balances.set(key, (balances.get(key) ?? 0n) + sign * BigInt(data))
    }
  }
  return textOf([...balances].map(([key, amount]) => ({ key, amount: String(amount) })))
}

const byToken = (token: string, holder: string) => `${token} ${holder}`
const byHolder = (_: string, holder: string) => holder

const balances = "SELECT token || ' ' || holder AS key, amount FROM balances"

const balancesByHolder = "SELECT address AS key, balance AS amount FROM balances"

const pythonReadme = readFileSync("clients/python/README.md", "utf8")

/** Far longer than a consumer takes to hold what the node has. */
const patience = { schedule: Schedule.spaced("50 millis"), times: 800 }

/** A server that answers 204 to what it accepts, else 503. @returns its URL */
const receiving = (accepts: (body: unknown) => boolean) =>
  Effect.gen(function* () {
    const server = yield* Effect.acquireRelease(
      Effect.sync(() =>
        createServer((request, response) => {
          const chunks: Array<Buffer> = []
          request.on("data", (chunk: Buffer) => chunks.push(chunk))
          request.on("end", () => {
            const isAccepted = accepts(JSON.parse(Buffer.concat(chunks).toString()))
            response.writeHead(isAccepted ? 204 : 503).end()
          })
        }),
      ),
      (server) =>
        Effect.promise(async () => {
          server.closeAllConnections()
          server.close()
        }),
    )
    yield* Effect.promise(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve)))
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  })

describe("the examples with the libraries, and the installed packages", () => {
  it.live(
    "hold what the node has, after reorgs, kill -9 and a Redis that is set back",
    () =>
      Effect.gen(function* () {
        const devnet = yield* Devnet.start()
        const server = yield* RedisServer.start()
        const postgresUrl = yield* PostgresServer.start
        const place = yield* directory
        const port = yield* RedisServer.freePort
        const receiver = yield* shell(`exec node examples/webhooks.ts receive ${port}`, {
          WEBHOOK_SECRETS: "old",
        })
        yield* receiver.says(/listening/)
        const databases = { balances: join(place, "example.db"), webhooks: join(place, "webhooks.db") }
        const common = { REDIS_URL: server.url }
        const webhooks = {
          ...common,
          DATABASE_PATH: databases.webhooks,
          WEBHOOK_URL: `http://127.0.0.1:${port}/`,
          WEBHOOK_SECRETS: "new,old",
        }
        const store = yield* openRedis(standalone(server.port))
        const { folder, packages } = yield* installClient
        assert.deepStrictEqual(
          packages.filter((name) => /event-ingestor|effect|^pg|viem|^ox$|opentelemetry/.test(name)),
          ["@event-ingestor/consumer"],
        )
        const { python, env } = yield* Effect.promise(() => installWheel(join(place, "wheel")))
        const inPython = join(place, "balances.py")
        writeFileSync(inPython, /^```python\n([\s\S]*?)^```$/m.exec(pythonReadme)![1]!)
        const decoded = { EVENTS: "Transfer(address indexed from, address indexed to, uint256 value)" }
        yield* Service.start({ env: Devnet.environment(devnet.anvil.url, { ...common, ...decoded }) })
        const consumers = yield* Effect.all([
          restartable(`node examples/balances.ts ${Devnet.chainId}`, {
            ...common,
            DATABASE_URL: databases.balances,
          }),
          restartable(`node examples/webhooks.ts send ${Devnet.chainId}`, webhooks),
          restartable(`node examples/balances.ts ${Devnet.chainId}`, {
            ...common,
            DATABASE_URL: postgresUrl,
          }),
          restartable(`env -C ${folder} node balances.mjs`, common),
          restartable(`env -C ${place} ${python} ${inPython}`, { ...common, ...env, PYTHONUNBUFFERED: "1" }),
        ])
        const pool = new Pool({ connectionString: postgresUrl })
        pool.on("error", () => {})

        const held = async () => ({
          sqlite: textOf(read<Row>(databases.balances, balances)),
          postgres: textOf((await pool.query(balances).catch(() => ({ rows: [] }))).rows),
          ...Object.fromEntries(
            Object.entries({ typescript: folder, python: place }).map(([language, directory]) => [
              language,
              textOf(read<Row>(join(directory, "balances.db"), balancesByHolder)),
            ]),
          ),
          webhooks: ((await (await fetch(webhooks.WEBHOOK_URL)).json()) as Array<string>).sort(),
        })
        const expected = Effect.gen(function* () {
          const logs = (yield* devnet.node.request("eth_getLogs", [
            { fromBlock: "0x0", toBlock: "latest" },
          ])) as ReadonlyArray<NodeLog>
          const balances = sumsOf(logs, byToken)
          const received = logs.map(
            ({ blockHash, logIndex }) => `${Devnet.chainId}:${blockHash}:${Number(logIndex)}`,
          )
          return {
            sqlite: balances,
            postgres: balances,
            typescript: sumsOf(logs, byHolder),
            python: sumsOf(logs, byHolder),
            webhooks: received.sort(),
          }
        })
        /** Waits until the ingestor and its consumers have what the node has. */
        const settled = Effect.gen(function* () {
          yield* Devnet.reached(store, devnet.head)
          const wanted = yield* expected
          assert.isAbove(wanted.webhooks.length, 0)
          const now = yield* Effect.repeat(Effect.promise(held), {
            until: (now) => JSON.stringify(now) === JSON.stringify(wanted),
            ...patience,
          })
          assert.deepStrictEqual(now, wanted, consumers.map(({ output }) => output()).join("\n"))
        })

        for (let i = 0; i < 5; i++) yield* devnet.block(3, 1)
        yield* settled
        const kill = Effect.forEach(consumers, ({ restart }) => restart)
        for (let i = 0; i < 3; i++) {
          yield* devnet.block(4)
          yield* devnet.reorg(1 + i)
          if (i > 0) yield* kill
          yield* devnet.block(2)
        }
        yield* settled

        // Redis goes back to an older copy, and the blocks that it has lost are replaced before they are written again.
        const { client } = server
        const saved = yield* Effect.promise(() => Promise.all(keys.map((key) => client.dumpBuffer(key))))
        for (let i = 0; i < 4; i++) yield* devnet.block(5)
        yield* settled
        const before = yield* Effect.promise(() => client.hget(keys[1]!, "epoch"))
        yield* Effect.promise(async () => {
          const all = client.multi().del(...keys)
          for (const [i, dump] of saved.entries()) all.restore(keys[i]!, 0, dump!)
          await all.exec()
        })
        yield* devnet.reorg(3)
        yield* kill
        yield* devnet.block(1)
        yield* settled
        assert.notStrictEqual(yield* Effect.promise(() => client.hget(keys[1]!, "epoch")), before)
        yield* Effect.promise(() => pool.end())
        assert.lengthOf(read(databases.webhooks, "SELECT * FROM event_ingestor_dead_letters"), 0)

        // The receiver accepts only what is signed, and fresh.
        const body = JSON.stringify({ removed: false, logs: [] })
        const post = async (secret: string, age: number) => {
          const timestamp = String(Math.floor(Date.now() / 1000) - age)
          const digest = createHmac("sha256", secret).update(`id.${timestamp}.${body}`).digest("base64")
          const headers = {
            "webhook-id": "id",
            "webhook-timestamp": timestamp,
            "webhook-signature": `v1,${digest}`,
          }
          return (await fetch(webhooks.WEBHOOK_URL, { method: "POST", headers, body })).status
        }
        const statuses = yield* Effect.promise(async () => [
          await post("old", 0),
          await post("wrong", 0),
          await post("old", 1000),
          (await fetch(webhooks.WEBHOOK_URL, { method: "POST", body })).status,
        ])
        assert.deepStrictEqual(statuses, [204, 401, 401, 401])

        // A receiver that refuses: each call goes to the dead letters.
        const letters = join(place, "refused.db")
        const refused = yield* shell(`exec node examples/webhooks.ts send ${Devnet.chainId}`, {
          ...webhooks,
          DATABASE_PATH: letters,
          WEBHOOK_SECRETS: "wrong",
          WEBHOOK_ATTEMPTS: "1",
        })
        const blocks = new Set((yield* expected).webhooks.map((key) => key.split(":")[1]))
        const sql = "SELECT hash, error FROM event_ingestor_dead_letters"
        const found = yield* Effect.repeat(
          Effect.sync(() => read<{ hash: string; error: string }>(letters, sql)),
          { until: (found) => found.length >= blocks.size, ...patience },
        )
        assert.deepStrictEqual(new Set(found.map(({ hash }) => hash)), blocks, refused.output())
        assert.match(found[0]!.error, /answered 401/)
      }),
    180_000,
  )

  it.live(
    "final-alerts.py: gives an alert for each large transfer of a final block, and for no retracted one",
    () =>
      Effect.gen(function* () {
        const devnet = yield* Devnet.start()
        const server = yield* RedisServer.start()
        const place = yield* directory
        const minimum = 12n
        // It refuses each alert at first.
        const refused = new Set<string>()
        const received = new Set<string>()
        const receiver = yield* receiving((alert) => {
          const { key } = alert as { readonly key: string }
          if (refused.has(key)) received.add(key)
          refused.add(key)
          return received.has(key)
        })
        const store = yield* openRedis(standalone(server.port))
        const depth = 3
        const finality = { DEVNET_FINALITY: "depth", DEVNET_FINALITY_DEPTH: String(depth) }
        const variables = { ...finality, REDIS_URL: server.url }
        const start = Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
        let service = yield* start
        const python = yield* Effect.promise(environment)
        const consumer = yield* restartable(`${python} examples/final-alerts.py ${Devnet.chainId} earliest`, {
          PYTHONPATH: "clients/python/src",
          PYTHONDONTWRITEBYTECODE: "1",
          REDIS_URL: server.url,
          DATABASE_PATH: join(place, "alerts.db"),
          ALERT_URL: receiver,
          MIN_VALUE: String(minimum),
        })

        /** Waits until there is an alert for each transfer that is large and final, and returns their keys. */
        const settled = Effect.gen(function* () {
          yield* Devnet.reached(store, devnet.head)
          // An ingestor finalizes once a minute, and when it starts.
          service.kill("SIGTERM")
          yield* service.exit
          service = yield* start
          const { number } = yield* devnet.head
          yield* store.load(Devnet.chainId).pipe(
            Effect.repeat({
              until: (journal) => journal?.final?.number === number - depth,
              schedule: Schedule.spaced("20 millis"),
            }),
            Effect.timeout("20 seconds"),
          )
          const logs = (yield* devnet.node.request("eth_getLogs", [
            { fromBlock: "0x0", toBlock: `0x${(number - depth).toString(16)}` },
          ])) as ReadonlyArray<NodeLog>
          const wanted = logs
            .filter(({ data }) => BigInt(data) >= minimum)
            .map(({ blockHash, logIndex }) => `${Devnet.chainId}:${blockHash}:${Number(logIndex)}`)
            .sort()
          const now = yield* Effect.repeat(
            Effect.sync(() => [...received].sort()),
            { until: (now) => JSON.stringify(now) === JSON.stringify(wanted), ...patience },
          )
          assert.deepStrictEqual(now, wanted, consumer.output())
          return wanted
        })

        for (let i = 0; i < 8; i++) yield* devnet.block(3)
        const before = yield* settled
        assert.isAbove(before.length, 0)
        for (let i = 0; i < 3; i++) {
          yield* devnet.block(4)
          yield* devnet.reorg(1 + i)
          if (i > 0) yield* consumer.restart
          yield* devnet.block(2)
        }
        // Redis goes back to an older copy.
        const { client } = server
        const saved = yield* Effect.promise(() => Promise.all(keys.map((key) => client.dumpBuffer(key))))
        for (let i = 0; i < 3; i++) yield* devnet.block(5)
        yield* settled
        yield* Effect.promise(async () => {
          const all = client.multi().del(...keys)
          for (const [i, dump] of saved.entries()) all.restore(keys[i]!, 0, dump!)
          await all.exec()
        })
        yield* devnet.reorg(2)
        for (let i = 0; i < 3; i++) yield* devnet.block(1)
        const after = yield* settled
        assert.isAbove(after.length, before.length)
        assert.match(
          consumer.output(),
          /^\{"key": "31337:0x\w+:\d+", "block": \d+, "time": \d+, "token": "0x\w+", "from": /m,
        )
        assert.match(consumer.output(), /^31337:0x\w+:\d+: HTTP Error 503/m)
      }),
    120_000,
  )

  it.live("webhooks: refuses a URL that is not https, but for localhost", () =>
    Effect.gen(function* () {
      const { says } = yield* shell("node examples/webhooks.ts send 1", {
        WEBHOOK_SECRETS: "s",
        WEBHOOK_URL: "http://example.com/",
      })
      yield* says(/https only/)
    }),
  )
})
