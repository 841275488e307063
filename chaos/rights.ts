/** The store refuses some commands for a while: a move must be applied as a whole or not at all. */
import { Effect, Random, Schedule } from "effect"
import type { Scope } from "effect"
import { spawnSync } from "node:child_process"
import { DatabaseSync } from "node:sqlite"
import { chainId } from "../test/support/devnet.ts"
import type { Fault } from "./Fault.ts"
import { errorsOf, untilCounted } from "./errors.ts"
import { command, sleepBetween } from "./redis.ts"
import { another, neighbourGoesOn, user } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"

/** Every move needs these commands. */
const needed = ["xadd", "zadd", "hset", "xtrim", "zrem", "zremrangebyscore"]
/** Only some moves need these commands, or a move does without them. */
const sometimesNeeded =
  "del exists eval evalsha hgetall hincrby hmget set xinfo xlen xrange xrevrange zrange zrangebyscore zrevrange".split(
    " ",
  )

const right = (cluster: Cluster, change: string) => command(cluster, "ACL", "SETUSER", user, change)

const storeErrors = (cluster: Cluster) => errorsOf(cluster.ingestors[0]!.process(), "devnet", "store")

const sampleOf = <A>(cluster: Cluster, all: ReadonlyArray<A>, brief: number) =>
  Effect.map(Random.shuffle(all), (shuffled) => (cluster.brief ? shuffled.slice(0, brief) : shuffled))

const eachRight: Fault = {
  name: "Redis: a right that scripts need revoked and granted, one after another [G-152]",
  stores: ["redis"],
  times: 2,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const pause = cluster.brief ? sleepBetween(100, 400) : sleepBetween(500, 2500)
      for (const name of yield* sampleOf(cluster, needed, 4)) {
        yield* untilCounted(right(cluster, `-${name}`), storeErrors(cluster))
        yield* pause
        yield* right(cluster, `+${name}`)
        // While the breaker is open, another refusal would not be counted.
        yield* another(cluster)
      }
      for (const name of yield* sampleOf(cluster, sometimesNeeded, 3)) {
        yield* right(cluster, `-${name}`)
        yield* pause
        yield* right(cluster, `+${name}`)
      }
    }),
}

const noSelect: Fault = {
  name: "Redis: its database may not be selected for a while [G-153]",
  stores: ["redis"],
  times: 4,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const service = cluster.ingestors[0]!.process()
      const logged = () => service.output() + service.errors()
      const before = logged().length
      yield* right(cluster, "-select")
      yield* command(cluster, "CLIENT", "KILL", "USER", user)
      yield* Effect.repeat(
        Effect.sync(() => /NOPERM.*select/i.test(logged().slice(before))),
        { until: (refused) => refused, schedule: Schedule.spaced("20 millis") },
      )
      yield* cluster.brief ? sleepBetween(500, 1500) : sleepBetween(1500, 6000)
      yield* right(cluster, "+select")
      const keyspace = String(yield* command(cluster, "INFO", "keyspace"))
      if (keyspace.includes("db0:"))
        cluster.problems.push(`the service wrote to another database: ${keyspace}`)
    }),
}

const openFile = (cluster: Cluster): Effect.Effect<DatabaseSync, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(cluster.file!, { timeout: 5000 })),
    (database) => Effect.sync(() => database.close()),
  )

/** Statements of moves, each of which has another one before or after it in the same move. */
const statements = [
  ["INSERT ON events", "NEW"],
  ["INSERT ON window", "NEW"],
  ["DELETE ON window", "OLD"],
  ["UPDATE ON heads", "NEW"],
] as const

const eachStatement: Fault = {
  name: "SQLite: a statement of one chain's moves refused for a while, one after another [G-154]",
  stores: ["sqlite"],
  times: 2,
  neighbour: true,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const database = yield* openFile(cluster)
      for (const [statement, row] of yield* sampleOf(cluster, statements, 2)) {
        const trigger = `CREATE TRIGGER refusal BEFORE ${statement} WHEN ${row}.chain_id = ${chainId}
          BEGIN SELECT RAISE(ABORT, 'not now'); END`
        yield* untilCounted(
          Effect.sync(() => database.exec(trigger)),
          storeErrors(cluster),
        )
        yield* neighbourGoesOn(cluster)
        if (!cluster.brief) yield* sleepBetween(500, 2500)
        database.exec("DROP TRIGGER refusal")
      }
    }).pipe(Effect.scoped),
}

/** Limits the size of the service's files: at 0 each write fails as on a full disk or quota. */
const limitFiles = (cluster: Cluster, bytes: "0" | "unlimited") =>
  Effect.sync(() => {
    const { pid } = cluster.ingestors[0]!.process()
    const { status, stderr } = spawnSync("prlimit", ["--pid", String(pid), `--fsize=${bytes}:`])
    if (status !== 0) throw new Error(`prlimit: ${String(stderr)}`)
  })

const noWrites: Fault = {
  name: "SQLite: nothing can be written to its files for a while [G-155]",
  stores: ["sqlite"],
  times: 4,
  away: true,
  inflict: (cluster) =>
    Effect.gen(function* () {
      yield* untilCounted(limitFiles(cluster, "0"), storeErrors(cluster))
      yield* cluster.brief ? sleepBetween(300, 1000) : sleepBetween(1500, 8000)
      yield* limitFiles(cluster, "unlimited")
    }),
}

export const rightsTaken: ReadonlyArray<Fault> = [eachRight, noSelect, eachStatement, noWrites]
