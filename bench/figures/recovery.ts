/**
 * Back after a cut socket, and after the store was away. The policy decides most of it: 2 s for a socket, and half a second
 * between two probes of the store. Beside it, in the same outages, a client without a policy of ours: ioredis as it
 * comes, and SQLite's own waiting for a lock.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { Redis } from "ioredis"
import { DatabaseSync } from "node:sqlite"
import { setTimeout as sleep } from "node:timers/promises"
import { Worker } from "node:worker_threads"
import { directory } from "../../test/support/directory.ts"
import * as RedisServer from "../../test/support/RedisServer.ts"
import type { Contents } from "../chain.ts"
import { now, startProvider } from "../child.ts"
import type { Provider } from "../child.ts"
import type { Load } from "../provider.ts"
import { expectedOf, until } from "../run.ts"
import { quantile } from "../statistics.ts"
import { contentsOf, lengthOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"
import { contentsOfFile, followIntoFile } from "./sqlite.ts"

interface Spread {
  readonly p50: number
  readonly worst: number
}

export interface Away {
  readonly store: string
  /** Seconds. */
  readonly outage: number
  readonly rounds: number
  /** Seconds from the store answering again to the next stored event. */
  readonly ours: Spread
  /** Seconds from there to a bare client, which was connected before, being answered. */
  readonly bare: Spread
}

export interface Recovery {
  /** Seconds from the cut of the socket to the next stored event. */
  readonly socket: number
  readonly away: ReadonlyArray<Away>
  /** Seconds that it took to catch up after the last, longest outage of Redis. */
  readonly caughtUp: number
}

/** A store that can be sent away. */
interface Held {
  readonly name: string
  /** Entries, or what rises with them. */
  readonly length: () => Promise<number>
  /** Sends it away; answers how it comes back, which is when it answers somebody who asks for the first time. */
  readonly leave: (round: number) => Promise<() => Promise<unknown>>
  /** Waits until a client that was there before is answered. */
  readonly bare: () => Promise<unknown>
  readonly contents: () => Promise<Contents>
}

export interface Outages {
  readonly seconds: number
  readonly rounds: number
}

const perSecond = 10
/** Milliseconds after which something is wrong. */
const longest = 100_000
const logs = 200

const load: Load = {
  chains: [900_001],
  shape: { logs, bloom: true },
  history: 0,
  // More than there is time for: it ends with `stop`.
  blocks: 100_000,
  pace: perSecond,
}

const spreadOf = (millis: ReadonlyArray<number>): Spread => ({
  p50: quantile(millis, 0.5) / 1000,
  worst: Math.max(...millis) / 1000,
})

const next = async ({ length }: Held) =>
  (await until("the recovery", (await length()) + 1, length, longest)).at

const away = async (held: Held, { seconds, rounds }: Outages): Promise<Away & { readonly again: number }> => {
  const ours: Array<number> = []
  const bare: Array<number> = []
  let again = 0
  for (let round = 0; round < rounds; round++) {
    await until("the recovery", (await held.length()) + 20 * logs, held.length, longest)
    const comeBack = await held.leave(round)
    const bareAt = held.bare().then(now)
    await sleep(seconds * 1000)
    await comeBack()
    const back = now()
    again = await next(held)
    ours.push(again - back)
    bare.push(Math.max((await bareAt) - back, 0))
  }
  return {
    store: held.name,
    outage: seconds,
    rounds,
    ours: spreadOf(ours),
    bare: spreadOf(bare),
    again,
  }
}

/** All outages one after the other; then everything must be there. */
const measured = Effect.fnUntraced(function* (
  held: Held,
  provider: Provider,
  outages: ReadonlyArray<Outages>,
) {
  const all: Array<Away> = []
  let last = 0
  for (const outage of outages) {
    const { again, ...one } = yield* Effect.promise(() => away(held, outage))
    all.push(one)
    last = again
  }
  provider.order("stop")
  const blocks = (yield* Effect.promise(provider.written))[0]!.length
  const expected = expectedOf({ ...load, blocks })
  const { at } = yield* Effect.promise(() => until("the recovery", expected.count, held.length, longest))
  yield* verify("recovery", yield* Effect.promise(held.contents), expected)
  return { all, caughtUp: (at - last) / 1000 }
})

/** In turn: killed, frozen, and with no place for a client. */
const leaveRedis =
  (server: RedisServer.RedisServer): Held["leave"] =>
  async (round) => {
    const { client } = server
    const answered = () => client.ping()
    switch (round % 3) {
      case 0:
        server.kill("SIGKILL")
        return () => Effect.runPromise(server.restart).then(answered)
      case 1:
        server.kill("SIGSTOP")
        return () => {
          server.kill("SIGCONT")
          return answered()
        }
      default:
        await client.config("SET", "maxclients", 1)
        await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return () => client.config("SET", "maxclients", 10_000)
    }
  }

const ofRedis = Effect.fnUntraced(function* (subject: Subject, outages: ReadonlyArray<Outages>) {
  const server = yield* RedisServer.start(["--appendonly", "yes", "--appendfsync", "everysec"])
  const provider = yield* startProvider(load)
  yield* subject.start({ redisPort: server.port, providerPort: provider.port, chains: load.chains })
  const bare = yield* Effect.acquireRelease(
    Effect.sync(() => new Redis({ port: server.port, maxRetriesPerRequest: null }).on("error", () => {})),
    (client) => Effect.sync(() => client.disconnect()),
  )
  const length = () => lengthOf(server.client, load.chains)
  const held: Held = {
    name: "Redis",
    length,
    leave: leaveRedis(server),
    bare: () => bare.ping(),
    contents: () => contentsOf(server.client, load.chains),
  }
  const socket = yield* Effect.promise(async () => {
    await provider.subscribed
    provider.order("go")
    await until("the start", 20 * logs, length)
    provider.order("cut")
    // What was on its way when the socket was cut is not the recovery.
    await sleep(500)
    const cut = now() - 500
    return ((await next(held)) - cut) / 1000
  })
  return { socket, ...(yield* measured(held, provider, outages)) }
})

/** Waits for its turn to write as SQLite does by itself, and says so. */
const waiter = `
  const { parentPort, workerData } = require("node:worker_threads")
  const database = new (require("node:sqlite").DatabaseSync)(workerData, { timeout: 600_000 })
  database.exec("BEGIN IMMEDIATE; COMMIT")
  database.close()
  parentPort.postMessage("written")`

const ofSqlite = Effect.fnUntraced(function* (
  outages: ReadonlyArray<Outages>,
): Effect.fn.Return<ReadonlyArray<Away>, never, Scope.Scope> {
  const path = `${yield* directory}/events.db`
  const provider = yield* startProvider(load)
  const { database } = yield* followIntoFile(path, load, provider.port)
  yield* Effect.promise(() => provider.subscribed)
  provider.order("go")
  const holder = yield* Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(path, { timeout: 10_000 })),
    (holder) => Effect.sync(() => holder.close()),
  )
  const newest = database.prepare("SELECT coalesce(max(id), 0) AS id FROM events")
  const held: Held = {
    name: "SQLite",
    length: async () => Number(newest.get()!["id"]),
    leave: async () => {
      holder.exec("BEGIN EXCLUSIVE")
      return async () => holder.exec("COMMIT")
    },
    bare: () =>
      new Promise((resolve, reject) => {
        const worker = new Worker(waiter, { eval: true, workerData: path })
        worker.once("message", resolve).once("error", reject)
      }),
    contents: async () => contentsOfFile(database),
  }
  return (yield* measured(held, provider, outages)).all
})

/** Both stores at the same time: what they do most is to be away. */
export const recovery = (subject: Subject, outages: ReadonlyArray<Outages>): Effect.Effect<Recovery> =>
  Effect.gen(function* () {
    const [{ socket, all, caughtUp }, sqlite] = yield* Effect.all(
      [ofRedis(subject, outages), ofSqlite(outages)],
      {
        concurrency: 2,
      },
    )
    return { socket, away: [...all, ...sqlite], caughtUp }
  }).pipe(Effect.scoped)
