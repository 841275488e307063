/** `kill -9` of the service: at any moment, and at the points where a move is half done. */
import { Deferred, Effect, Fiber, Random, Schedule } from "effect"
import type { Position } from "../src/store/Journal.ts"
import { Worker } from "node:worker_threads"
import { chainId } from "../test/support/devnet.ts"
import type { Fault } from "./Campaign.ts"
import { alone, caughtUp } from "./Rig.ts"
import type { Rig } from "./Rig.ts"
import { moveOf } from "./scripts.ts"
import type { Request } from "./scripts.ts"
import type { Strike } from "./striker.ts"

const head = (rig: Rig) => Effect.map(rig.store.load(chainId), (journal) => journal!.head)

/** Looks at the stored head until it is so. */
const looking = (rig: Rig, so: (head: Position) => boolean) =>
  Effect.repeat(head(rig), { until: so, schedule: Schedule.spaced("1 millis") })

/** Starts the service again; what a proxy did to the one before is over. */
const again = (rig: Rig) =>
  Effect.suspend(() => {
    const [ingestor] = rig.ingestors
    ingestor!.redis?.tap(undefined)
    return Effect.andThen(ingestor!.kill, ingestor!.start)
  })

export const atRandom: Fault = {
  name: "kill -9 of the service, at any moment [G-187]",
  stores: ["sqlite", "redis"],
  times: 20,
  inflict: (rig) =>
    Effect.gen(function* () {
      yield* again(rig)
      // Now and then it has not even started.
      if ((yield* Random.next) > 0.3) return
      yield* Effect.sleep(yield* Random.nextIntBetween(0, 1500))
      yield* again(rig)
    }),
}

/**
 * Lets everything through up to the first move that is meant, which goes on or not; from then on the service is cut off.
 * Answers how to wait for that.
 */
const stopAt = (rig: Rig, meant: (move: Request) => boolean, goesOn: boolean) =>
  Effect.sync((): Effect.Effect<Request> => {
    const stopped = Deferred.makeUnsafe<Request>()
    let silent = false
    rig.ingestors[0]!.redis!.tap((message, from) => {
      if (silent) return undefined
      const move = from === "client" ? moveOf(message) : undefined
      if (move === undefined || !meant(move)) return message
      silent = true
      Deferred.doneUnsafe(stopped, Effect.succeed(move))
      return goesOn ? message : undefined
    })
    return Deferred.await(stopped)
  })

const beforeTheCall: Fault = {
  name: "kill -9 of the service, a move not sent yet [G-188]",
  stores: ["redis"],
  times: 5,
  inflict: (rig) => Effect.andThen(Effect.flatten(stopAt(rig, () => true, false)), again(rig)),
}

const replyLost: Fault = {
  name: "kill -9 of the service, a move done and its reply lost [G-189]",
  stores: ["redis"],
  times: 5,
  inflict: (rig) =>
    Effect.gen(function* () {
      const { expected } = yield* Effect.flatten(stopAt(rig, ({ script }) => script === "push", true))
      // It went to the server, but did the server make it?
      yield* looking(
        rig,
        ({ number, part }) =>
          number > expected.number || (number === expected.number && part > expected.part),
      )
      yield* again(rig)
    }),
}

/** The service ends itself at the next commit, as `inside.ts` has it. */
const atCommit = (signal: NodeJS.Signals) => (rig: Rig) =>
  Effect.gen(function* () {
    const ingestor = rig.ingestors[0]!
    ingestor.doom()
    ingestor.process().kill(signal)
    yield* ingestor.process().exit
    yield* ingestor.start
  })

const beforeTheCommit: Fault = {
  name: "kill -9 of the service, a move not committed yet",
  stores: ["sqlite"],
  times: 5,
  inflict: atCommit("SIGXCPU"),
}

const committed: Fault = {
  name: "kill -9 of the service, a move just committed [G-190]",
  stores: ["sqlite"],
  times: 5,
  inflict: atCommit("SIGVTALRM"),
}

/** A block of many calls, in so many transactions of a thousand logs. */
const mineBig = (rig: Rig, thousands: number) =>
  rig.node.block(...Array.from({ length: thousands }, () => 1000), 500)

/** The block on top is another one, and the chain longer: it is undone at once. */
const undo = (rig: Rig) => Effect.andThen(rig.node.reorg(1), rig.node.block(1))

/** Sometimes the block that is half written or half undone is not canonical any more when the service is back. */
const perhapsReorg = (rig: Rig) =>
  Effect.flatMap(Random.nextBoolean, (yes) => (yes ? rig.node.reorg(1) : Effect.void))

const betweenParts: Fault = {
  name: "kill -9 of the service, between the parts of a big block [G-191]",
  stores: ["redis"],
  times: 5,
  inflict: (rig) =>
    alone(rig)(
      Effect.gen(function* () {
        const undoing = yield* Random.nextBoolean
        const thousands = yield* Random.nextIntBetween(2, 5)
        const parts = yield* Random.nextIntBetween(1, thousands)
        if (undoing) {
          yield* mineBig(rig, thousands)
          yield* caughtUp(rig)
        }
        let left = parts
        const stopped = yield* stopAt(
          rig,
          ({ script, part, expected }) => {
            if (undoing ? script === "pop" : part || expected.part > 0) left--
            return left < 0
          },
          false,
        )
        yield* undoing ? undo(rig) : mineBig(rig, thousands)
        yield* stopped
        yield* looking(rig, ({ part }) => (undoing ? part < 0 : part === parts * 1000))
        yield* perhapsReorg(rig)
        yield* again(rig)
      }),
    ),
}

/**
 * Ends the service when a block is there in part, as `happens` makes one, and answers whether it still was when the
 * service was gone. A block may pass unseen.
 */
const strike = (rig: Rig, happens: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function* () {
    const [ingestor] = rig.ingestors
    ingestor!.doom()
    const workerData: Strike = { path: rig.file!, chain: chainId, pid: ingestor!.process().pid }
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL("striker.ts", import.meta.url), { workerData })),
      (worker) => Effect.promise(() => worker.terminate()),
    )
    const said = (event: "message" | "exit") =>
      Effect.callback<void>((resume) => {
        worker.once("error", (error) => resume(Effect.die(error)))
        worker.once(event, () => resume(Effect.void))
      })
    yield* said("message")
    const struck = yield* Effect.forkChild(said("exit"), { startImmediately: true })
    yield* happens
    yield* Effect.raceFirst(Fiber.join(struck), caughtUp(rig))
    yield* ingestor!.kill
    return (yield* head(rig)).part !== 0
  }).pipe(Effect.scoped)

/** On one file there is no wire to hold a move on: the block is so big that a look now and then meets it in part. */
const insideBigBlock: Fault = {
  name: "kill -9 of the service, between the parts of a big block [G-191]",
  stores: ["sqlite"],
  times: 5,
  inflict: (rig) =>
    alone(rig)(
      Effect.gen(function* () {
        yield* caughtUp(rig)
        const undoing = yield* Random.nextBoolean
        if (undoing) {
          yield* mineBig(rig, 20)
          yield* caughtUp(rig)
        }
        const met = yield* strike(rig, undoing ? undo(rig) : mineBig(rig, 20))
        if (met) yield* perhapsReorg(rig)
        yield* rig.ingestors[0]!.start
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
