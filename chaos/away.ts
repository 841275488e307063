/**
 * The store is away for a while, in each way that there is. However long it was, moves are taken again soon after it
 * answers: the end of each fault here is the moment when it answers a bare client.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { DatabaseSync } from "node:sqlite"
import type { Fault } from "./Campaign.ts"
import { answered, serverOf } from "./redis.ts"
import type { Kind, Rig } from "./Rig.ts"

interface Way {
  readonly how: string
  readonly store: Kind
  /** Sends it away; answers how it comes back. */
  readonly leave: (rig: Rig) => Effect.Effect<Effect.Effect<unknown>, unknown, Scope.Scope>
}

const killed: Way = {
  how: "killed",
  store: "redis",
  leave: (rig) =>
    Effect.sync(() => {
      serverOf(rig).kill("SIGKILL")
      return Effect.andThen(serverOf(rig).restart, answered(rig))
    }),
}

const frozen: Way = {
  how: "frozen",
  store: "redis",
  leave: (rig) =>
    Effect.sync(() => {
      serverOf(rig).kill("SIGSTOP")
      return Effect.andThen(
        Effect.sync(() => serverOf(rig).kill("SIGCONT")),
        answered(rig),
      )
    }),
}

const refused: Way = {
  how: "its port closed",
  store: "redis",
  leave: (rig) =>
    Effect.sync(() => {
      const { redis } = rig.ingestors[0]!
      redis!.refuse(true)
      redis!.cut()
      return Effect.sync(() => redis!.refuse(false))
    }),
}

const occupied: Way = {
  how: "no place for another client (maxclients)",
  store: "redis",
  leave: (rig) => {
    const { client } = serverOf(rig)
    const limit = (clients: number) => client.config("SET", "maxclients", clients)
    return Effect.promise(async () => {
      await limit(1)
      await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      return Effect.promise(() => limit(10_000))
    })
  },
}

/** From here it is another process that has the file to itself. */
const locked: Way = {
  how: "locked by another process (BEGIN EXCLUSIVE)",
  store: "sqlite",
  leave: (rig) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(rig.file!, { timeout: 5000 })),
        (database) => Effect.sync(() => database.close()),
      ),
      (database) => {
        database.exec("BEGIN EXCLUSIVE")
        return Effect.sync(() => database.exec("COMMIT"))
      },
    ),
}

const awayFor = (seconds: number, { how, store, leave }: Way): Fault => ({
  name: `the store away for ${seconds} s: ${how} [G-096]`,
  stores: [store],
  times: seconds < 10 ? 4 : 1,
  away: true,
  inflict: (rig) =>
    Effect.gen(function* () {
      const end = yield* leave(rig)
      yield* Effect.sleep(`${seconds} seconds`)
      yield* end
    }).pipe(Effect.scoped),
})

export const awayShortly = [refused, occupied, locked].map((way) => awayFor(3, way))
export const awayLong = [killed, frozen, refused, occupied, locked].map((way) => awayFor(60, way))
