/**
 * Upgrades and downgrades between the built service of 0.1 and the current build, as processes on one journal: a rolling update, crashes
 * in the middle of it, both at once, and the way back. A reader that uses the library of this version reads meanwhile.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { untilStored, whileMining } from "../support/fleet.ts"
import { jsonFrom } from "../support/http.ts"
import type { Client } from "../support/ingestor.ts"
import { unpack } from "../support/oldService.ts"
import * as Readers from "../support/readers.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"

const waiting = { schedule: Schedule.spaced("50 millis") }

interface Stored {
  /** What a service needs to write there. */
  readonly env: Readonly<Record<string, string>>
  /** What a reader needs to read there. */
  readonly source: string
  /** To be opened once there is a journal: opening a file brings its tables up to this version. */
  readonly open: Effect.Effect<Client, unknown, Scope.Scope>
  /** The version of the journal, and its earlier epochs. */
  readonly about: Effect.Effect<{ readonly version: number; readonly epochsBefore: number }>
}

const inRedis = Effect.gen(function* () {
  const { url, port, client } = yield* RedisServer.start()
  return {
    env: { REDIS_URL: url },
    source: url,
    open: openRedis(standalone(port)),
    about: Effect.promise(async () => {
      const [version, before] = await client.hmget(
        `{events:${Devnet.chainId}}:head`,
        "version",
        "epoch_before",
      )
      return { version: Number(version ?? 1), epochsBefore: (before ?? "").split(" ").filter(Boolean).length }
    }),
  } satisfies Stored as Stored
})

const inSqlite = Effect.gen(function* () {
  const path = join(yield* directory, "events.db")
  return {
    env: { DATABASE_PATH: path },
    source: path,
    open: Devnet.openSqlite(path),
    about: Effect.sync(() => {
      const database = new DatabaseSync(path, { timeout: 5000 })
      try {
        const isOld =
          database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'journals'").get() === undefined
        if (isOld) return { version: 1, epochsBefore: 0 }
        const journal = database.prepare("SELECT version FROM journals").get()
        const epochs = database.prepare("SELECT count(*) AS count FROM epochs").get()
        return { version: Number(journal?.["version"] ?? 1), epochsBefore: Number(epochs!["count"]) }
      } finally {
        database.close()
      }
    }),
  } satisfies Stored as Stored
})

const phaseOf = (service: Service.Process) =>
  Effect.flatMap(service.port, (port) =>
    Effect.map(
      jsonFrom(port, "/status"),
      ({ body }) => (body as { readonly chains: ReadonlyArray<{ readonly phase: string }> }).chains[0]?.phase,
    ),
  )

describe("an upgrade from 0.1, and back", { concurrent: true }, () => {
  for (const [name, make] of [
    ["Redis", inRedis],
    ["SQLite", inSqlite],
  ] as const)
    it.live(
      `loses and duplicates nothing in ${name} while services of both versions replace each other, crash, and write at once [G-225]`,
      () =>
        Effect.gen(function* () {
          const devnet = yield* Devnet.start()
          const chain = { ...devnet, name: "devnet", id: Devnet.chainId }
          const oldEntry = yield* unpack
          const { env, source, open, about } = yield* make
          const start = (entry: string) =>
            Effect.gen(function* () {
              const service = yield* Service.start({
                entry,
                env: Devnet.environment(devnet.anvil.url, env),
              })
              yield* Effect.repeat(phaseOf(service), { until: (phase) => phase === "live", ...waiting })
              return service
            })
          const [startOld, startNew] = [start(oldEntry), start(Service.main)]
          const stop = (service: Service.Process) =>
            Effect.gen(function* () {
              service.kill("SIGTERM")
              assert.strictEqual(yield* service.exit, 0, service.output())
            })
          const crash = (service: Service.Process) =>
            Effect.gen(function* () {
              service.kill("SIGKILL")
              assert.strictEqual(yield* service.exit, "SIGKILL")
            })
          /** What is mined meanwhile is written, and reorgs are in it. */
          const written = (store: Client) =>
            Effect.gen(function* () {
              const { number } = yield* devnet.head
              yield* Effect.orElseSucceed(store.load(Devnet.chainId), () => undefined).pipe(
                Effect.repeat({ until: (journal) => (journal?.head.number ?? 0) >= number + 4, ...waiting }),
              )
            })

          const { reader, store } = yield* whileMining(
            [chain],
            Effect.gen(function* () {
              const first = yield* startOld
              const reader = yield* Readers.start(source)
              // A file of 0.1 lacks tables that the library reads: it waits for the first ingestor of this version.
              if (name === "Redis") yield* Readers.hasRows(reader)
              const store = yield* open
              const isWritten = written(store)
              yield* isWritten
              assert.strictEqual((yield* about).version, 1)

              // A rolling update; the old process crashes.
              const second = yield* startNew
              yield* isWritten
              yield* Readers.hasRows(reader)
              yield* crash(first)
              yield* isWritten
              assert.strictEqual((yield* about).version, 2)

              // The old one is restarted beside it; then both crash.
              const third = yield* startOld
              yield* isWritten
              yield* stop(second)
              yield* isWritten
              const fourth = yield* startNew
              yield* Effect.all([crash(third), crash(fourth)], { concurrency: 2 })
              const fifth = yield* startNew
              yield* isWritten

              // The downgrade, and the next upgrade.
              yield* stop(fifth)
              const sixth = yield* startOld
              yield* isWritten
              yield* stop(sixth)
              yield* startNew
              return { reader, store }
            }),
          )
          yield* untilStored(store, [chain])
          yield* Devnet.assertEqual(store, devnet)
          yield* Readers.assertEqual(reader, devnet)
          assert.deepStrictEqual(yield* about, { version: 2, epochsBefore: 0 })
          assert.strictEqual((yield* store.stats(Devnet.chainId)).epoch?.reason, "begun")
        }).pipe(Effect.scoped),
      90_000,
    )
})
