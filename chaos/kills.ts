/** `kill -9` of the service: at random moments, and halfway through a move. */
import { Deferred, Effect, Fiber, Random, Schedule } from "effect"
import type { Position } from "../src/store/Journal.ts"
import { Worker } from "node:worker_threads"
import { chainId } from "../test/support/devnet.ts"
import type { Fault } from "./Fault.ts"
import { alone, caughtUp } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"
import { moveOf } from "./scripts.ts"
import type { Request } from "./scripts.ts"
import type { Target } from "./faultInjector.ts"

const head = (cluster: Cluster) => Effect.map(cluster.store.load(chainId), (journal) => journal!.head)

/** Polls the stored head until the condition holds. */
const untilHead = (cluster: Cluster, condition: (head: Position) => boolean) =>
  Effect.repeat(head(cluster), { until: condition, schedule: Schedule.spaced("1 millis") })

/** Restarts the service, without the tap that the proxy had for the one before. */
export const restart = (cluster: Cluster) =>
  Effect.suspend(() => {
    const [ingestor] = cluster.ingestors
    ingestor!.redis?.tap(undefined)
    return Effect.andThen(ingestor!.kill, ingestor!.start)
  })

export const atRandom: Fault = {
  name: "kill -9 of the service, at any moment [G-187]",
  stores: ["sqlite", "redis"],
  times: 20,
  inflict: (cluster) =>
    Effect.gen(function* () {
      yield* restart(cluster)
      // Sometimes it is killed again before it has started.
      if ((yield* Random.next) > 0.3) return
      yield* Effect.sleep(yield* Random.nextIntBetween(0, 1500))
      yield* restart(cluster)
    }),
}

/**
 * Passes everything through up to the first move that matches, which is forwarded or not; after it the service is cut off.
 * Returns an effect that waits for that move.
 */
const stopAt = (cluster: Cluster, matches: (move: Request) => boolean, forwards: boolean) =>
  Effect.sync((): Effect.Effect<Request> => {
    const stopped = Deferred.makeUnsafe<Request>()
    let silent = false
    cluster.ingestors[0]!.redis!.tap((message, from) => {
      if (silent) return undefined
      const move = from === "client" ? moveOf(message) : undefined
      if (move === undefined || !matches(move)) return message
      silent = true
      Deferred.doneUnsafe(stopped, Effect.succeed(move))
      return forwards ? message : undefined
    })
    return Deferred.await(stopped)
  })

const beforeTheCall: Fault = {
  name: "kill -9 of the service, before a move is sent [G-188]",
  stores: ["redis"],
  times: 5,
  inflict: (cluster) => Effect.andThen(Effect.flatten(stopAt(cluster, () => true, false)), restart(cluster)),
}

const replyLost: Fault = {
  name: "kill -9 of the service, after a move whose reply is lost [G-189]",
  stores: ["redis"],
  times: 5,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const { expected } = yield* Effect.flatten(stopAt(cluster, ({ script }) => script === "push", true))
      // The move was forwarded. Wait until the server has applied it.
      yield* untilHead(
        cluster,
        ({ number, part }) =>
          number > expected.number || (number === expected.number && part > expected.part),
      )
      yield* restart(cluster)
    }),
}

/** The service kills itself at the next commit: see `inside.ts`. */
const atCommit = (signal: NodeJS.Signals) => (cluster: Cluster) =>
  Effect.gen(function* () {
    const ingestor = cluster.ingestors[0]!
    ingestor.expectExit()
    ingestor.process().kill(signal)
    yield* ingestor.process().exit
    yield* ingestor.start
  })

const beforeTheCommit: Fault = {
  name: "kill -9 of the service, before a commit",
  stores: ["sqlite"],
  times: 5,
  inflict: atCommit("SIGXCPU"),
}

const committed: Fault = {
  name: "kill -9 of the service, after a commit [G-190]",
  stores: ["sqlite"],
  times: 5,
  inflict: atCommit("SIGVTALRM"),
}

/** A block of many calls, in this many transactions of a thousand logs. */
const mineBig = (cluster: Cluster, thousands: number) =>
  cluster.node.block(...Array.from({ length: thousands }, () => 1000), 500)

/** Replaces the top block by a longer fork, so that it is retracted at once. */
const replaceTop = (cluster: Cluster) => Effect.andThen(cluster.node.reorg(1), cluster.node.block(1))

/** In half of the cases, the partially stored block is orphaned while the service is down. */
const perhapsReorg = (cluster: Cluster) =>
  Effect.flatMap(Random.nextBoolean, (yes) => (yes ? cluster.node.reorg(1) : Effect.void))

const betweenParts: Fault = {
  name: "kill -9 of the service, between the parts of a large block [G-191]",
  stores: ["redis"],
  times: 5,
  inflict: (cluster) =>
    alone(cluster)(
      Effect.gen(function* () {
        const retracting = yield* Random.nextBoolean
        const thousands = yield* Random.nextIntBetween(2, 5)
        const parts = yield* Random.nextIntBetween(1, thousands)
        if (retracting) {
          yield* mineBig(cluster, thousands)
          yield* caughtUp(cluster)
        }
        let left = parts
        const stopped = yield* stopAt(
          cluster,
          ({ script, part, expected }) => {
            if (retracting ? script === "pop" : part || expected.part > 0) left--
            return left < 0
          },
          false,
        )
        yield* retracting ? replaceTop(cluster) : mineBig(cluster, thousands)
        yield* stopped
        yield* untilHead(cluster, ({ part }) => (retracting ? part < 0 : part === parts * 1000))
        yield* perhapsReorg(cluster)
        yield* restart(cluster)
      }),
    ),
}

/**
 * Kills the service while a block is partially stored; `happens` makes that block. Returns whether it still was partially
 * stored after the kill. The fault injector may miss a block.
 */
const killWhilePartial = (cluster: Cluster, happens: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function* () {
    const [ingestor] = cluster.ingestors
    ingestor!.expectExit()
    const workerData: Target = { path: cluster.file!, chain: chainId, pid: ingestor!.process().pid }
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL("faultInjector.ts", import.meta.url), { workerData })),
      (worker) => Effect.promise(() => worker.terminate()),
    )
    const said = (event: "message" | "exit") =>
      Effect.callback<void>((resume) => {
        worker.once("error", (error) => resume(Effect.die(error)))
        worker.once(event, () => resume(Effect.void))
      })
    yield* said("message")
    const killed = yield* Effect.forkChild(said("exit"), { startImmediately: true })
    yield* happens
    yield* Effect.raceFirst(Fiber.join(killed), caughtUp(cluster))
    yield* ingestor!.kill
    return (yield* head(cluster)).part !== 0
  }).pipe(Effect.scoped)

/** SQLite has no wire on which a move could be held: the block is so large that polling finds it partially stored. */
const insideBigBlock: Fault = {
  name: "kill -9 of the service, between the parts of a large block [G-191]",
  stores: ["sqlite"],
  times: 5,
  inflict: (cluster) =>
    alone(cluster)(
      Effect.gen(function* () {
        yield* caughtUp(cluster)
        const retracting = yield* Random.nextBoolean
        if (retracting) {
          yield* mineBig(cluster, 20)
          yield* caughtUp(cluster)
        }
        const met = yield* killWhilePartial(cluster, retracting ? replaceTop(cluster) : mineBig(cluster, 20))
        if (met) yield* perhapsReorg(cluster)
        yield* cluster.ingestors[0]!.start
        return met
      }).pipe(Effect.repeat({ until: (met) => met })),
    ),
}

export const kills: ReadonlyArray<Fault> = [
  atRandom,
  beforeTheCall,
  replyLost,
  beforeTheCommit,
  committed,
  betweenParts,
  insideBigBlock,
]
