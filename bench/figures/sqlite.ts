/** The service with SQLite instead of Redis, on the same blocks. */
import { Effect } from "effect"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { directory } from "../../test/support/directory.ts"
import { checksumOf, entryNames } from "../chain.ts"
import type { Contents } from "../chain.ts"
import { cpuSeconds, loadAverage, peakMemory, startProvider } from "../child.ts"
import type { Load } from "../provider.ts"
import { expectedOf, until } from "../run.ts"
import type { Cost } from "../run.ts"
import { verify } from "../store.ts"
import { startService, variables } from "../subjects/ours.ts"

export const contentsOfFile = (database: DatabaseSync): Contents => {
  let count = 0
  let checksum = 0
  for (const row of database.prepare(`SELECT ${entryNames.join(", ")} FROM events`).iterate()) {
    count++
    checksum += checksumOf(
      entryNames.map((name) => (name === "removed" ? String(row[name] === 1) : String(row[name]))),
    )
  }
  return { count, checksum }
}

/** The service with its journal in a file that the benchmark reads, too. */
export const followIntoFile = Effect.fnUntraced(function* (
  path: string,
  { chains }: Load,
  providerPort: number,
) {
  const { pid } = yield* startService({
    ...variables({ redisPort: 0, providerPort, chains, env: { DATABASE_PATH: path } }),
    REDIS_URL: "",
  })
  const database = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      let database: DatabaseSync | undefined
      await until("sqlite", 1, async () => {
        try {
          database ??= new DatabaseSync(path, { readOnly: true })
          return Number(database.prepare("SELECT count(*) AS n FROM events").get()!["n"] !== undefined)
        } catch {
          return 0
        }
      })
      return database!
    }),
    (database) => Effect.sync(() => database.close()),
  )
  return { pid, database }
})

/** At full speed through a whole load. The CPU of Redis is 0. */
export const sqlite = (load: Load): Effect.Effect<Cost> =>
  Effect.gen(function* () {
    const loadBefore = loadAverage()
    const path = join(yield* directory, "events.db")
    const provider = yield* startProvider(load)
    const { pid, database } = yield* followIntoFile(path, load, provider.port)
    const newest = database.prepare("SELECT coalesce(max(id), 0) AS id FROM events")
    const expected = expectedOf(load)
    const mark = (target: number) =>
      Effect.promise(async () => {
        const { at, seen } = await until("sqlite", target, async () => Number(newest.get()!["id"]))
        return { at, seen, cpu: cpuSeconds(pid) }
      })
    const warm = yield* mark(Math.floor(expected.count * 0.3))
    const end = yield* mark(expected.count)
    yield* verify("sqlite", contentsOfFile(database), expected)
    const events = end.seen - warm.seen
    return {
      perSecond: (events / (end.at - warm.at)) * 1000,
      cpu: ((end.cpu - warm.cpu) / events) * 1e6,
      redisCpu: 0,
      peak: peakMemory(pid),
      loadAverage: loadBefore,
    }
  }).pipe(Effect.scoped)
