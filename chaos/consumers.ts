/**
 * Two consumers of the stream, one with a table in SQLite and one with a table in Postgres. After each fault both tables must hold
 * exactly the logs of the canonical chain.
 */
import { Effect, Random, Schedule } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Pool } from "pg"
import { chainId } from "../test/support/devnet.ts"
import { directory } from "../test/support/directory.ts"
import * as PostgresServer from "../test/support/PostgresServer.ts"
import { restartable } from "../test/support/shell.ts"
import { alone, caughtUp, redisUrl } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"
import type { Fault } from "./Fault.ts"
import { olderFile } from "./epochs.ts"
import { restart as restartService } from "./kills.ts"
import { powerLost, promoted } from "./redis.ts"

interface Consumer {
  readonly database: string
  readonly output: () => string
  readonly exitCode: () => number | null
  readonly restart: Effect.Effect<void>
  /** The keys in its table. */
  readonly keys: () => Promise<ReadonlyArray<string>>
}

const query = "SELECT key FROM chaos_logs"

const keysOf = (rows: ReadonlyArray<unknown>) => rows.map((row) => (row as { key: string }).key)

const launch = Effect.fnUntraced(function* (cluster: Cluster) {
  // Consumers reach Redis as the service does: a promoted replica takes over behind the proxy.
  const source = cluster.file ?? redisUrl(cluster.ingestors[0]!.redis!.port)
  const start = (database: string) =>
    restartable(`node test/clients/worker.ts ${source} ${database} chaos ${chainId}`, {})
  const path = join(yield* directory, "consumer.db")
  const url = yield* PostgresServer.start
  const pool = yield* Effect.acquireRelease(
    Effect.sync(() => new Pool({ connectionString: url })),
    (pool) => Effect.promise(() => pool.end()),
  )
  pool.on("error", () => {})
  return [
    {
      ...(yield* start(path)),
      database: "SQLite",
      keys: async () => {
        const file = new DatabaseSync(path, { timeout: 5000 })
        try {
          return keysOf(file.prepare(query).all())
        } finally {
          file.close()
        }
      },
    },
    {
      ...(yield* start(url)),
      database: "Postgres",
      keys: async () => keysOf((await pool.query(query)).rows),
    },
  ] satisfies ReadonlyArray<Consumer>
})

const started = new WeakMap<Cluster, ReadonlyArray<Consumer>>()

/** The consumers of a cluster, which run from the first fault on. */
const consumersOf = (cluster: Cluster) =>
  Effect.gen(function* () {
    const consumers = started.get(cluster) ?? (yield* launch(cluster))
    started.set(cluster, consumers)
    return consumers
  })

interface NodeLog {
  readonly blockHash: string
  readonly logIndex: string
}

/** The keys of the canonical chain's logs in the journal's range. */
const canonical = ({ node, from }: Cluster) =>
  Effect.map(
    node.node.request("eth_getLogs", [{ fromBlock: `0x${from.toString(16)}`, toBlock: "latest" }]),
    (logs) =>
      new Set(
        (logs as ReadonlyArray<NodeLog>).map(
          ({ blockHash, logIndex }) => `${chainId}:${blockHash}:${Number(logIndex)}`,
        ),
      ),
  )

/** Longer than a lease and its takeover, and the longest delay of a consumer that retries. */
const patience = { schedule: Schedule.spaced("100 millis"), times: 150 }

/** Waits until both tables hold what the node has, while nothing is mined. What differs in the end is a problem. */
const compare = (cluster: Cluster, consumers: ReadonlyArray<Consumer>) =>
  Effect.gen(function* () {
    // The ingestor notices with its next move that the store was set back.
    yield* cluster.node.block(1)
    yield* caughtUp(cluster)
    const expected = yield* canonical(cluster)
    for (const { database, keys, output, exitCode } of consumers) {
      if (exitCode() !== null)
        cluster.problems.push(`the consumer with ${database} ended: ${output().slice(-1500)}`)
      const differences = Effect.map(
        // Before the first transaction there may be no table.
        Effect.promise(() => keys().catch((): ReadonlyArray<string> => [])),
        (keys) => {
          const held = new Set(keys)
          return {
            missing: [...expected].filter((key) => !held.has(key)).length,
            extra: keys.filter((key) => !expected.has(key)).length,
          }
        },
      )
      const { missing, extra } = yield* Effect.repeat(differences, {
        until: ({ missing, extra }) => missing + extra === 0,
        ...patience,
      })
      if (missing + extra > 0)
        cluster.problems.push(
          `the consumer with ${database} lacks ${missing} logs and holds ${extra} others: ${output().slice(-500)}`,
        )
    }
  })

const fault = (
  name: string,
  stores: Fault["stores"],
  inflict: (
    cluster: Cluster,
    consumers: ReadonlyArray<Consumer>,
  ) => Effect.Effect<void, unknown, Scope.Scope>,
): Fault => ({
  name: `consumers with SQLite and Postgres: ${name}`,
  stores,
  times: 3,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const consumers = yield* consumersOf(cluster)
      // They have applied blocks before anything happens.
      yield* alone(cluster)(compare(cluster, consumers))
      yield* inflict(cluster, consumers)
      yield* alone(cluster)(compare(cluster, consumers))
    }),
})

const kills = fault(
  "kill -9 of each, and of the service [G-220]",
  ["sqlite", "redis"],
  (cluster, consumers) =>
    Effect.gen(function* () {
      const restarts = [...consumers.map(({ restart }) => restart), restartService(cluster)]
      const rounds = cluster.brief ? 1 : 4
      for (let i = 0; i < rounds; i++)
        for (const restart of yield* Random.shuffle(restarts)) {
          yield* restart
          yield* Effect.sleep(yield* Random.nextIntBetween(0, 1500))
        }
    }),
)

/** A store that lost its last seconds, while the consumers run, and while one of them has to start. */
const setBack = (name: string, { stores, inflict }: Fault) =>
  fault(name, stores, (cluster, consumers) =>
    Effect.gen(function* () {
      yield* Effect.all([inflict(cluster), consumers[yield* Random.nextIntBetween(0, 1)]!.restart], {
        concurrency: 2,
      })
    }),
  )

export const consumerFaults: ReadonlyArray<Fault> = [
  kills,
  setBack("Redis set back: a promoted replica that lost the last seconds [G-221]", promoted),
  setBack("Redis set back: power loss [G-221]", powerLost),
  setBack("an older copy of the ingestor's file restored [G-221]", olderFile),
]
