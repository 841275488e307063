/** Failures of Redis servers in production. */
import { Effect, Random, Schedule, Stream } from "effect"
import { readdirSync, statSync, truncateSync } from "node:fs"
import { join } from "node:path"
import { chainId } from "../test/support/devnet.ts"
import { fetchFrom, jsonFrom } from "../test/support/http.ts"
import type { Stored } from "../src/store/Entries.ts"
import { identity } from "../src/Domain.ts"
import type * as RedisServer from "../test/support/RedisServer.ts"
import type { Fault } from "./Fault.ts"
import { expectEpoch, lastAcknowledged } from "./epochs.ts"
import { errorsOf, untilCounted } from "./errors.ts"
import { alone, caughtUp, openReader, startRedis } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"

interface Report {
  readonly chains: readonly [{ readonly failures: ReadonlyArray<{ readonly text: string }> }]
}

export const serverOf = (cluster: Cluster) => cluster.redis!.server

/** Waits until a bare client gets an answer. */
export const answered = (cluster: Cluster) => Effect.promise(() => serverOf(cluster).client.ping())

export const command = (cluster: Cluster, ...[name, ...args]: readonly [string, ...ReadonlyArray<string>]) =>
  Effect.promise(() => serverOf(cluster).client.call(name, ...args))

export const sleepBetween = (shortest: number, longest: number) =>
  Effect.flatMap(Random.nextIntBetween(shortest, longest), (millis) => Effect.sleep(millis))

/** Repeats a few times at random intervals. */
const severalTimes = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.andThen(effect, sleepBetween(50, 400)).pipe(Effect.repeat({ times: 3 }), Effect.asVoid)

/** Makes the server refuse all writes for a while, and verifies that at least one was refused for this reason. */
const refusing = (
  cluster: Cluster,
  reason: RegExp,
  begin: Effect.Effect<unknown>,
  end: Effect.Effect<unknown>,
) =>
  Effect.gen(function* () {
    const service = cluster.ingestors[0]!.process()
    yield* untilCounted(begin, errorsOf(service, "devnet", "store"))
    const { body } = yield* jsonFrom(yield* service.port, "/status")
    const failures = (body as Report).chains[0].failures
    if (!failures.some(({ text }) => reason.test(text))) {
      cluster.problems.push(`no write was refused with ${reason}: ${failures[0]?.text}`)
    }
    yield* sleepBetween(1500, 4000)
    yield* end
  })

const fault = (name: string, times: number, inflict: Fault["inflict"]): Fault => ({
  name: `Redis: ${name}`,
  stores: ["redis"],
  times,
  inflict,
})

/** Faults after which moves must be accepted again soon. */
const away = (fault: Fault): Fault => ({ ...fault, away: true })

const killed = away(
  fault("kill -9, restarted from its append-only file [G-090]", 5, (cluster) =>
    Effect.gen(function* () {
      serverOf(cluster).kill("SIGKILL")
      yield* sleepBetween(0, 3000)
      yield* serverOf(cluster).restart
      yield* answered(cluster)
    }),
  ),
)

/** Ids are never reused, so a missing id is a lost entry. */
const isGone = (cluster: Cluster, id: string) =>
  Effect.promise(
    async () => (await serverOf(cluster).client.xrange(`events:${chainId}`, id, id)).length === 0,
  )

/** The part of the append-only file that is being written. Each rewrite starts another. */
const appendOnlyFile = (cluster: Cluster) => {
  const place = join(serverOf(cluster).directory, "appendonlydir")
  const [newest] = readdirSync(place)
    .filter((name) => name.endsWith(".incr.aof"))
    .sort((a, b) => b.localeCompare(a, undefined, { numeric: true }))
  return join(place, newest!)
}

const rewritten = (cluster: Cluster) =>
  Effect.promise(() => serverOf(cluster).client.info("persistence")).pipe(
    Effect.repeat({
      until: (info) => /aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0/.test(info),
      schedule: Schedule.spaced("20 millis"),
    }),
  )

/**
 * After a power loss, what `everysec` had not yet written is missing, and the last command is truncated. If the truncation is
 * inside a script, Redis 7 leaves the beginning of the script in the file and would run it at the next start, so the file
 * must be rewritten after a power loss.
 */
export const powerLost = fault(
  "power loss, the last second of its append-only file missing [G-091]",
  4,
  (cluster) =>
    Effect.gen(function* () {
      const file = appendOnlyFile(cluster)
      const { size } = statSync(file)
      yield* Effect.sleep("600 millis")
      const last = yield* lastAcknowledged(cluster)
      serverOf(cluster).kill("SIGKILL")
      const written = statSync(file).size - size
      truncateSync(file, size + (yield* Random.nextIntBetween(0, Math.floor(written / 4))))
      yield* serverOf(cluster).restart
      expectEpoch(cluster, yield* isGone(cluster, last))
      yield* command(cluster, "BGREWRITEAOF")
      yield* rewritten(cluster)
    }),
)

const frozen = away(
  fault("frozen (SIGSTOP) [G-095]", 2, (cluster) =>
    Effect.gen(function* () {
      serverOf(cluster).kill("SIGSTOP")
      // Longer than the command timeout of 5 s.
      yield* Effect.sleep(cluster.brief ? "6 seconds" : "30 seconds")
      serverOf(cluster).kill("SIGCONT")
      yield* answered(cluster)
    }),
  ),
)

const clientKill = fault("CLIENT KILL", 5, (cluster) =>
  severalTimes(command(cluster, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
)

const scriptFlush = fault("SCRIPT FLUSH", 5, (cluster) => severalTimes(command(cluster, "SCRIPT", "FLUSH")))

/** The store must be filled again from the start block that the process remembers. */
const flushAll = fault("FLUSHALL [G-097]", 4, (cluster) =>
  Effect.andThen(
    command(cluster, "FLUSHALL"),
    Effect.sync(() => void (cluster.epoch = "begun")),
  ),
)

const full = fault("full (OOM, noeviction) [G-094]", 4, (cluster) =>
  refusing(
    cluster,
    /OOM/,
    command(cluster, "CONFIG", "SET", "maxmemory", "1"),
    command(cluster, "CONFIG", "SET", "maxmemory", "0"),
  ),
)

/** A replica without a master: it keeps its data and refuses writes. */
const readOnly = fault("READONLY", 4, (cluster) =>
  refusing(
    cluster,
    /READONLY/,
    command(cluster, "REPLICAOF", "127.0.0.1", "1"),
    command(cluster, "REPLICAOF", "NO", "ONE"),
  ),
)

const synchronised = (replica: RedisServer.RedisServer) =>
  Effect.promise(() => replica.client.info("replication")).pipe(
    Effect.repeat({
      until: (info) => info.includes("master_link_status:up"),
      schedule: Schedule.spaced("50 millis"),
    }),
  )

/** The master dies, and a replica is promoted that had not received its last seconds. */
export const promoted = fault("a promoted replica that lost the last seconds [G-092]", 3, (cluster) =>
  Effect.gen(function* () {
    const master = serverOf(cluster)
    const replica = yield* startRedis
    yield* Effect.promise(() => replica.client.replicaof("127.0.0.1", master.port))
    yield* synchronised(replica)
    yield* Effect.promise(() => replica.client.replicaof("NO", "ONE"))
    yield* sleepBetween(1500, 4000)
    const last = yield* lastAcknowledged(cluster)
    master.kill("SIGKILL")
    cluster.redis!.server = replica
    cluster.store = yield* openReader(replica)
    expectEpoch(cluster, yield* isGone(cluster, last))
    for (const { redis } of cluster.ingestors) {
      redis!.retarget(replica.port)
      redis!.cut()
    }
  }),
)

/** Trims the oldest entries, possibly including some of blocks that can still be retracted. */
const foreignTrim = fault("a foreign XTRIM", 4, (cluster) =>
  Effect.gen(function* () {
    cluster.trimmed = true
    yield* command(
      cluster,
      "XTRIM",
      `events:${chainId}`,
      "MAXLEN",
      String(yield* Random.nextIntBetween(0, 60)),
    )
  }),
)

/** Entries that were added and not retracted, oldest first. */
export const live = (cluster: Cluster) =>
  Effect.gen(function* () {
    const found = new Map<string, Stored>()
    for (const stored of yield* Stream.runCollect(cluster.store.after(chainId))) {
      if (stored.entry.removed === "true") found.delete(identity(stored.entry))
      else found.set(identity(stored.entry), stored)
    }
    return [...found.values()]
  })

/**
 * The number of entries that could not be retracted because another client had deleted them, once the service has counted
 * up to the node's head: the store answers a reader a little before the service has the reply to its last moves.
 */
const incompleteOf = (cluster: Cluster) =>
  Effect.gen(function* () {
    const port = yield* cluster.ingestors[0]!.process().port
    const { number } = yield* cluster.node.head
    const { text } = yield* Effect.repeat(fetchFrom(port, "/metrics"), {
      until: (metrics) =>
        metrics.text.includes(`event_ingestor_chain_stored_block{chain="devnet"} ${number}\n`),
      schedule: Schedule.spaced("15 millis"),
    })
    return Number(/^event_ingestor_events_removed_incomplete_total\{.*\} (\d+)$/m.exec(text)![1])
  })

/** How many blocks at the top lose entries before they are retracted. */
const retracted = 3

/** Deletes entries at random. The missing ones of blocks that are then retracted must be counted exactly. */
const foreignDelete = fault("a foreign XDEL", 4, (cluster) =>
  alone(cluster)(
    Effect.gen(function* () {
      for (let i = 0; i < retracted; i++) yield* cluster.node.block(4, 3)
      yield* caughtUp(cluster)
      const above = (yield* cluster.node.head).number - retracted
      const chosen: Array<Stored> = []
      for (const stored of yield* live(cluster)) {
        const share = Number(stored.entry.block_number) > above ? 0.4 : 0.02
        if ((yield* Random.next) < share) chosen.push(stored)
      }
      for (const { id, entry } of chosen) {
        yield* command(cluster, "XDEL", `events:${chainId}`, id)
        cluster.deleted.add(`${entry.block_hash}:${entry.log_index}`)
      }
      const expected = chosen.filter(({ entry }) => Number(entry.block_number) > above).length
      const before = yield* incompleteOf(cluster)
      yield* cluster.node.reorg(retracted)
      yield* cluster.node.block(1)
      yield* caughtUp(cluster)
      const missed = (yield* incompleteOf(cluster)) - before
      if (missed !== expected) {
        cluster.problems.push(`${expected} deleted entries could not be retracted, ${missed} were counted`)
      }
    }),
  ),
)

export const redisFaults: ReadonlyArray<Fault> = [
  killed,
  powerLost,
  frozen,
  clientKill,
  scriptFlush,
  flushAll,
  full,
  readOnly,
  promoted,
  foreignTrim,
  foreignDelete,
]
