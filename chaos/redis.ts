/** What happens to a Redis server in production. */
import { Effect, Random, Schedule } from "effect"
import { readdirSync, statSync, truncateSync } from "node:fs"
import { join } from "node:path"
import { chainId } from "../test/support/devnet.ts"
import { fetchFrom, jsonFrom } from "../test/support/http.ts"
import type { Stored } from "../src/store/Store.ts"
import { identity } from "../src/Domain.ts"
import type * as RedisServer from "../test/support/RedisServer.ts"
import type { Fault } from "./Campaign.ts"
import { cameBack, lastAcknowledged } from "./epochs.ts"
import { errorsOf, untilCounted } from "./errors.ts"
import { alone, caughtUp, openReader, startRedis } from "./Rig.ts"
import type { Rig } from "./Rig.ts"

interface Report {
  readonly chains: readonly [{ readonly failures: ReadonlyArray<{ readonly text: string }> }]
}

export const serverOf = (rig: Rig) => rig.redis!.server

/** Waits until a bare client is answered. */
export const answered = (rig: Rig) => Effect.promise(() => serverOf(rig).client.ping())

export const command = (rig: Rig, ...[name, ...args]: readonly [string, ...ReadonlyArray<string>]) =>
  Effect.promise(() => serverOf(rig).client.call(name, ...args))

export const sleepBetween = (shortest: number, longest: number) =>
  Effect.flatMap(Random.nextIntBetween(shortest, longest), (millis) => Effect.sleep(millis))

/** A few times in a row, at any moment. */
const severalTimes = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.andThen(effect, sleepBetween(50, 400)).pipe(Effect.repeat({ times: 3 }), Effect.asVoid)

/** No write is taken for as long as it lasts: one at least was refused for this reason when it is over. */
const refusing = (rig: Rig, reason: RegExp, begin: Effect.Effect<unknown>, end: Effect.Effect<unknown>) =>
  Effect.gen(function* () {
    const service = rig.ingestors[0]!.process()
    yield* untilCounted(begin, errorsOf(service, "devnet", "store"))
    const { body } = yield* jsonFrom(yield* service.port, "/status")
    const failures = (body as Report).chains[0].failures
    if (!failures.some(({ text }) => reason.test(text))) {
      rig.problems.push(`no write was refused with ${reason}: ${failures[0]?.text}`)
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

/** Moves are taken again soon after it answers. */
const away = (fault: Fault): Fault => ({ ...fault, away: true })

const killed = away(
  fault("kill -9, back from its append-only file [G-090]", 5, (rig) =>
    Effect.gen(function* () {
      serverOf(rig).kill("SIGKILL")
      yield* sleepBetween(0, 3000)
      yield* serverOf(rig).restart
      yield* answered(rig)
    }),
  ),
)

/** No id is given twice. */
const isGone = (rig: Rig, id: string) =>
  Effect.promise(async () => (await serverOf(rig).client.xrange(`events:${chainId}`, id, id)).length === 0)

/** The part of the append-only file that is being written: each rewrite begins another. */
const appendOnlyFile = (rig: Rig) => {
  const place = join(serverOf(rig).directory, "appendonlydir")
  const [newest] = readdirSync(place)
    .filter((name) => name.endsWith(".incr.aof"))
    .sort((a, b) => b.localeCompare(a, undefined, { numeric: true }))
  return join(place, newest!)
}

const rewritten = (rig: Rig) =>
  Effect.promise(() => serverOf(rig).client.info("persistence")).pipe(
    Effect.repeat({
      until: (info) => /aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0/.test(info),
      schedule: Schedule.spaced("20 millis"),
    }),
  )

/**
 * What `everysec` had not written yet when the power went is not there, and the last command is there in part. If that
 * is in a script, Redis 7 leaves the script's beginning in the file, and would do it at the next start: whoever loses
 * power must have the file rewritten.
 */
const powerLost = fault("power lost, the last second of its append-only file gone [G-091]", 4, (rig) =>
  Effect.gen(function* () {
    const file = appendOnlyFile(rig)
    const { size } = statSync(file)
    yield* Effect.sleep("600 millis")
    const last = yield* lastAcknowledged(rig)
    serverOf(rig).kill("SIGKILL")
    const written = statSync(file).size - size
    truncateSync(file, size + (yield* Random.nextIntBetween(0, Math.floor(written / 4))))
    yield* serverOf(rig).restart
    cameBack(rig, yield* isGone(rig, last))
    yield* command(rig, "BGREWRITEAOF")
    yield* rewritten(rig)
  }),
)

const frozen = away(
  fault("frozen (SIGSTOP) [G-095]", 2, (rig) =>
    Effect.gen(function* () {
      serverOf(rig).kill("SIGSTOP")
      // Longer than the 5 s that a command may take.
      yield* Effect.sleep(rig.brief ? "6 seconds" : "30 seconds")
      serverOf(rig).kill("SIGCONT")
      yield* answered(rig)
    }),
  ),
)

const clientKill = fault("CLIENT KILL", 5, (rig) =>
  severalTimes(command(rig, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
)

const scriptFlush = fault("SCRIPT FLUSH", 5, (rig) => severalTimes(command(rig, "SCRIPT", "FLUSH")))

/** The store is filled again from the start that the process knows. */
const flushAll = fault("FLUSHALL [G-097]", 4, (rig) =>
  Effect.andThen(
    command(rig, "FLUSHALL"),
    Effect.sync(() => void (rig.epoch = "begun")),
  ),
)

const full = fault("full (OOM, noeviction) [G-094]", 4, (rig) =>
  refusing(
    rig,
    /OOM/,
    command(rig, "CONFIG", "SET", "maxmemory", "1"),
    command(rig, "CONFIG", "SET", "maxmemory", "0"),
  ),
)

/** A replica of nobody: it keeps what it has and takes no writes. */
const readOnly = fault("READONLY", 4, (rig) =>
  refusing(
    rig,
    /READONLY/,
    command(rig, "REPLICAOF", "127.0.0.1", "1"),
    command(rig, "REPLICAOF", "NO", "ONE"),
  ),
)

const synchronised = (replica: RedisServer.RedisServer) =>
  Effect.promise(() => replica.client.info("replication")).pipe(
    Effect.repeat({
      until: (info) => info.includes("master_link_status:up"),
      schedule: Schedule.spaced("50 millis"),
    }),
  )

/** The master dies, and the replica that takes its place had not heard of its last seconds. */
const promoted = fault("a promoted replica that lost the last seconds [G-092]", 3, (rig) =>
  Effect.gen(function* () {
    const master = serverOf(rig)
    const replica = yield* startRedis
    yield* Effect.promise(() => replica.client.replicaof("127.0.0.1", master.port))
    yield* synchronised(replica)
    yield* Effect.promise(() => replica.client.replicaof("NO", "ONE"))
    yield* sleepBetween(1500, 4000)
    const last = yield* lastAcknowledged(rig)
    master.kill("SIGKILL")
    rig.redis!.server = replica
    rig.store = yield* openReader(replica)
    cameBack(rig, yield* isGone(rig, last))
    for (const { redis } of rig.ingestors) {
      redis!.retarget(replica.port)
      redis!.cut()
    }
  }),
)

/** The oldest entries go, perhaps so many that blocks that can still be undone lose some of theirs. */
const foreignTrim = fault("a foreign XTRIM", 4, (rig) =>
  Effect.gen(function* () {
    rig.trimmed = true
    yield* command(rig, "XTRIM", `events:${chainId}`, "MAXLEN", String(yield* Random.nextIntBetween(0, 60)))
  }),
)

/** Entries that were added and not undone, oldest first. */
export const live = (rig: Rig) =>
  Effect.gen(function* () {
    const found = new Map<string, Stored>()
    let last: string | undefined
    for (;;) {
      const page = yield* rig.store.read(chainId, last, 1000)
      if (page.length === 0) return [...found.values()]
      for (const stored of page) {
        if (stored.entry.removed === "true") found.delete(identity(stored.entry))
        else found.set(identity(stored.entry), stored)
      }
      last = page.at(-1)!.id
    }
  })

/** Entries that could not be undone because somebody had deleted them. */
const incompleteOf = (rig: Rig) =>
  Effect.gen(function* () {
    const { text } = yield* fetchFrom(yield* rig.ingestors[0]!.process().port, "/metrics")
    return Number(/^event_ingestor_events_removed_incomplete_total\{.*\} (\d+)$/m.exec(text)![1])
  })

/** Blocks at the top from which entries are deleted before they are undone. */
const undone = 3

/** Entries go here and there; those of blocks that are undone then are missed one by one, and counted. */
const foreignDelete = fault("a foreign XDEL", 4, (rig) =>
  alone(rig)(
    Effect.gen(function* () {
      for (let i = 0; i < undone; i++) yield* rig.node.block(4, 3)
      yield* caughtUp(rig)
      const above = (yield* rig.node.head).number - undone
      const chosen: Array<Stored> = []
      for (const stored of yield* live(rig)) {
        const share = Number(stored.entry.block_number) > above ? 0.4 : 0.02
        if ((yield* Random.next) < share) chosen.push(stored)
      }
      for (const { id, entry } of chosen) {
        yield* command(rig, "XDEL", `events:${chainId}`, id)
        rig.deleted.add(`${entry.block_hash}:${entry.log_index}`)
      }
      const expected = chosen.filter(({ entry }) => Number(entry.block_number) > above).length
      const before = yield* incompleteOf(rig)
      yield* rig.node.reorg(undone)
      yield* rig.node.block(1)
      yield* caughtUp(rig)
      const missed = (yield* incompleteOf(rig)) - before
      if (missed !== expected) {
        rig.problems.push(`${expected} deleted entries could not be undone, ${missed} were counted`)
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
