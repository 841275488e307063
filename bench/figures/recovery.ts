/**
 * Recovery after a cut socket, and after a store outage. The policy determines most of it: 2 s for a socket, half a second
 * between two probes of the store. In comparison, in the same outages, a client without our policy: ioredis with its
 * defaults, and SQLite's own wait for a lock.
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
import { loadAverage, now, startProvider } from "../child.ts"
import type { Provider } from "../child.ts"
import type { Load } from "../provider.ts"
import { expectedOf, until } from "../run.ts"
import { median, spreadOf } from "../statistics.ts"
import type { Spread } from "../statistics.ts"
import { contentsOf, lengthOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"
import { contentsOfFile, followIntoFile } from "./sqlite.ts"

export interface Away {
  readonly store: string
  /** Seconds. */
  readonly outage: number
  readonly rounds: number
  /** Seconds from the store being available again to the next stored event. */
  readonly ours: Spread
  /** Seconds from there until a bare client, connected before the outage, gets an answer. */
  readonly bare: Spread
  readonly loadAverage: number
}

export interface Recovery {
  /** Seconds from the cut of the socket to the next stored event. */
  readonly socket: number
  readonly away: ReadonlyArray<Away>
  /** Seconds of the catch-up after the last, longest outage of Redis. */
  readonly caughtUp: number
}

/** A store that can be taken down. */
interface StoreUnderTest {
  readonly name: string
  /** The number of entries, or an equivalent that rises with it. */
  readonly length: () => Promise<number>
  /** Takes the store down. The result brings it back, and completes when the store answers a new client. */
  readonly takeDown: (round: number) => Promise<() => Promise<unknown>>
  /** Waits until a client from before the outage gets an answer. */
  readonly bare: () => Promise<unknown>
  readonly contents: () => Promise<Contents>
}

export interface Outages {
  readonly seconds: number
  readonly rounds: number
}

const perSecond = 10
/** The timeout of each wait (milliseconds). */
const timeout = 100_000
const logs = 200

const load: Load = {
  chains: [900_001],
  shape: { logs, bloom: true },
  history: 0,
  // More blocks than the run has time for: it ends with `stop`.
  blocks: 100_000,
  pace: perSecond,
}

const next = async ({ length }: StoreUnderTest) =>
  (await until("the recovery", (await length()) + 1, length, timeout)).at

const away = async (
  underTest: StoreUnderTest,
  { seconds, rounds }: Outages,
): Promise<Away & { readonly recoveredAt: number }> => {
  const ours: Array<number> = []
  const bare: Array<number> = []
  const loads: Array<number> = []
  let recoveredAt = 0
  for (let round = 0; round < rounds; round++) {
    loads.push(loadAverage())
    await until("the recovery", (await underTest.length()) + 20 * logs, underTest.length, timeout)
    const bringBack = await underTest.takeDown(round)
    const bareAt = underTest.bare().then(now)
    await sleep(seconds * 1000)
    await bringBack()
    const back = now()
    recoveredAt = await next(underTest)
    ours.push(recoveredAt - back)
    bare.push(Math.max((await bareAt) - back, 0))
  }
  return {
    store: underTest.name,
    outage: seconds,
    rounds,
    ours: spreadOf(ours),
    bare: spreadOf(bare),
    loadAverage: median(loads),
    recoveredAt,
  }
}

/** All outages one after the other. Afterwards the store must hold everything. */
const measured = Effect.fnUntraced(function* (
  underTest: StoreUnderTest,
  provider: Provider,
  outages: ReadonlyArray<Outages>,
) {
  const all: Array<Away> = []
  let last = 0
  for (const outage of outages) {
    const { recoveredAt, ...one } = yield* Effect.promise(() => away(underTest, outage))
    all.push(one)
    last = recoveredAt
  }
  provider.order("stop")
  const blocks = (yield* Effect.promise(provider.report)).written[0]!.length
  const expected = expectedOf({ ...load, blocks })
  const { at } = yield* Effect.promise(() => until("the recovery", expected.count, underTest.length, timeout))
  yield* verify("recovery", yield* Effect.promise(underTest.contents), expected)
  return { all, caughtUp: (at - last) / 1000 }
})

/** In turn: killed, frozen, and at its connection limit. */
const takeDownRedis =
  (server: RedisServer.RedisServer): StoreUnderTest["takeDown"] =>
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
  const underTest: StoreUnderTest = {
    name: "Redis",
    length,
    takeDown: takeDownRedis(server),
    bare: () => bare.ping(),
    contents: () => contentsOf(server.client, load.chains),
  }
  const socket = yield* Effect.promise(async () => {
    await provider.subscribed
    provider.order("go")
    await until("the start", 20 * logs, length)
    provider.order("cut")
    // Blocks that were in flight when the socket was cut are not part of the recovery.
    await sleep(500)
    const cut = now() - 500
    return ((await next(underTest)) - cut) / 1000
  })
  return { socket, ...(yield* measured(underTest, provider, outages)) }
})

/** Waits for the write lock as SQLite does by itself, and reports it. */
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
  const underTest: StoreUnderTest = {
    name: "SQLite",
    length: async () => Number(newest.get()!["id"]),
    takeDown: async () => {
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
  return (yield* measured(underTest, provider, outages)).all
})

/** Both stores at the same time: they are down for most of it. */
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
