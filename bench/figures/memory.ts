/** Resident memory of the service in each of its states, beside that of a Node process that does nothing. */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import { loadAverage, residentMemory, startNode } from "../child.ts"
import { load, throughput } from "../run.ts"
import { bare } from "../subjects/bare.ts"
import { nodeFlags, ours } from "../subjects/ours.ts"
import { catchUp } from "./catchUp.ts"
import { garbageCollected, quiet } from "./quiet.ts"
import { steady } from "./scaling.ts"

/** MB. */
export interface Memory {
  readonly loadAverage: number
  /** A Node process that only waits, and the same with the flags of the service. */
  readonly node: number
  readonly nodeWithFlags: number
  /** One that has loaded the libraries `ws` and `ioredis`, and nothing else. */
  readonly libraries: number
  /** Four chains without a block. */
  readonly idle: number
  /** The peak at 10 000 events a second from four chains. */
  readonly live: number
  /** The same of the bare loop. */
  readonly liveOfBare: number
  /** The highest peak of blocks of 1 000 and of 200 logs at full speed, and of a history. */
  readonly backlog: number
}

const wait = "setInterval(() => {}, 1e6)"
const settling = 2000

const residentNode = (args: ReadonlyArray<string>): Effect.Effect<number> =>
  Effect.gen(function* () {
    const { pid } = yield* startNode(args)
    yield* Effect.promise(() => sleep(settling))
    return residentMemory(pid)
  }).pipe(Effect.scoped)

export const memory: Effect.Effect<Memory> = Effect.gen(function* () {
  const loadBefore = loadAverage()
  const node = yield* residentNode(["-e", wait])
  const nodeWithFlags = yield* residentNode([...nodeFlags, "-e", wait])
  const libraries = yield* residentNode(["-e", `require("ws"); require("ioredis"); ${wait}`])
  const { resident } = yield* quiet(ours, garbageCollected, 10)
  const { peak: live } = yield* steady(4, 30)
  const { peak: liveOfBare } = yield* steady(4, 30, bare)
  const peaks = [
    yield* throughput(ours, load(1000, 500)),
    yield* throughput(ours, load(200, 600, 4)),
    yield* catchUp(ours, 20_000, 20, 1),
  ].map(({ peak }) => peak)
  return {
    loadAverage: loadBefore,
    node,
    nodeWithFlags,
    libraries,
    idle: resident,
    live,
    liveOfBare,
    backlog: Math.max(...peaks),
  }
})
