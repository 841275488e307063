/**
 * Store outages of every kind. However long the outage, moves must be accepted soon after it: each fault here ends when the
 * store answers a bare client.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { DatabaseSync } from "node:sqlite"
import type { Fault } from "./Fault.ts"
import { answered, serverOf } from "./redis.ts"
import type { Kind, Cluster } from "./Cluster.ts"

interface Outage {
  readonly how: string
  readonly store: Kind
  /** Takes the store down. The result brings it back. */
  readonly takeDown: (cluster: Cluster) => Effect.Effect<Effect.Effect<unknown>, unknown, Scope.Scope>
}

const killed: Outage = {
  how: "killed",
  store: "redis",
  takeDown: (cluster) =>
    Effect.sync(() => {
      serverOf(cluster).kill("SIGKILL")
      return Effect.andThen(serverOf(cluster).restart, answered(cluster))
    }),
}

const frozen: Outage = {
  how: "frozen",
  store: "redis",
  takeDown: (cluster) =>
    Effect.sync(() => {
      serverOf(cluster).kill("SIGSTOP")
      return Effect.andThen(
        Effect.sync(() => serverOf(cluster).kill("SIGCONT")),
        answered(cluster),
      )
    }),
}

const refused: Outage = {
  how: "its port closed",
  store: "redis",
  takeDown: (cluster) =>
    Effect.sync(() => {
      const { redis } = cluster.ingestors[0]!
      redis!.refuse(true)
      redis!.cut()
      return Effect.sync(() => redis!.refuse(false))
    }),
}

const occupied: Outage = {
  how: "at its connection limit (maxclients)",
  store: "redis",
  takeDown: (cluster) => {
    const { client } = serverOf(cluster)
    const limit = (clients: number) => client.config("SET", "maxclients", clients)
    return Effect.promise(async () => {
      await limit(1)
      await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      return Effect.promise(() => limit(10_000))
    })
  },
}

/** From here, this process is the other one that locks the file. */
const locked: Outage = {
  how: "locked by another process (BEGIN EXCLUSIVE)",
  store: "sqlite",
  takeDown: (cluster) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(cluster.file!, { timeout: 5000 })),
        (database) => Effect.sync(() => database.close()),
      ),
      (database) => {
        database.exec("BEGIN EXCLUSIVE")
        return Effect.sync(() => database.exec("COMMIT"))
      },
    ),
}

const awayFor = (seconds: number, { how, store, takeDown }: Outage): Fault => ({
  name: `store outage of ${seconds} s: ${how} [G-096]`,
  stores: [store],
  times: seconds < 10 ? 4 : 1,
  away: true,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const end = yield* takeDown(cluster)
      yield* Effect.sleep(`${seconds} seconds`)
      yield* end
    }).pipe(Effect.scoped),
})

export const awayShortly = [refused, occupied, locked].map((way) => awayFor(3, way))
export const awayLong = [killed, frozen, refused, occupied, locked].map((way) => awayFor(60, way))
