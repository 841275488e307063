/**
 * The cost of a process that has nothing to do: four chains whose provider sends nothing at all, and then the time between two
 * heads of a chain with a block time of 12 s. Beside it, how much slower the machine runs a process that wakes up seldom: caches
 * and clock frequencies cool down, and on some virtual machines much more than that.
 */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import { once } from "node:events"
import { cpuMillis, loadAverage, now, residentMemory, start, wakeUps } from "../child.ts"
import type { Load } from "../provider.ts"
import { running } from "../run.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Rest {
  readonly loadAverage: number
  /** Percent of one core. */
  readonly cpu: number
  /** Voluntary context switches per second: of the main thread, and of all threads. */
  readonly wakeUps: { readonly main: number; readonly all: number }
}

export interface Quiet {
  /** The provider sends nothing. */
  readonly silent: Rest
  /** No heads, but each 12 s one of every chain, which does not count. */
  readonly betweenHeads: Rest
  /** Resident memory in MB at the end of the silence. */
  readonly resident: number
  /** CPU time of the same work after a second of sleep, relative to that of a busy process. Missing in older results. */
  readonly slowdown?: number
}

const heads = 3
const load: Load = {
  chains: [900_001, 900_002, 900_003, 900_004],
  shape: { logs: 200, bloom: true },
  history: 0,
  blocks: heads,
  pace: 1,
}

/** Seconds until a process that was started is quiet: it collects its garbage once, after 15 s. */
export const garbageCollected = 20
/** Seconds until V8 has compiled most of what runs each second: its threads wake up for that less and less. */
export const compiled = 240
/** Seconds: the block time, and how much of it is over before the measurement begins. */
const blockTime = 12
const working = 1.5

interface Totals {
  readonly millis: number
  readonly cpu: number
  readonly main: number
  readonly all: number
}

/** What a process uses within this many seconds. */
const within = async (pid: number, seconds: number): Promise<Totals> => {
  const totals = (): Totals => ({ millis: now(), cpu: cpuMillis(pid), ...wakeUps(pid) })
  const before = totals()
  await sleep(seconds * 1000)
  const after = totals()
  return {
    millis: after.millis - before.millis,
    cpu: after.cpu - before.cpu,
    main: after.main - before.main,
    all: after.all - before.all,
  }
}

const restOf = (loadAverage: number, windows: ReadonlyArray<Totals>): Rest => {
  const total = (field: keyof Totals) => windows.reduce((sum, window) => sum + window[field], 0)
  const millis = total("millis")
  return {
    loadAverage,
    cpu: (total("cpu") / millis) * 100,
    wakeUps: { main: (total("main") / millis) * 1000, all: (total("all") / millis) * 1000 },
  }
}

const slowdown: Effect.Effect<number> = Effect.gen(function* () {
  const file = new URL("../subjects/sleeperMain.ts", import.meta.url)
  const { process: child } = yield* start(file, [], {}, { ipc: true })
  const [factor] = (yield* Effect.promise(() => once(child, "message"))) as [number]
  return factor
}).pipe(Effect.scoped)

/** @param settling seconds after the start that do not count */
export const quiet = (subject: Subject, settling: number, seconds: number): Effect.Effect<Quiet> =>
  Effect.gen(function* () {
    const factor = yield* slowdown
    const { provider, pid } = yield* running(subject, load)
    return yield* Effect.promise(async () => {
      await provider.subscribed
      await sleep(settling * 1000)
      const silent = restOf(loadAverage(), [await within(pid, seconds)])
      const resident = residentMemory(pid)
      const loadBefore = loadAverage()
      const windows: Array<Totals> = []
      for (let head = 0; head < heads; head++) {
        provider.order("announce")
        await sleep(working * 1000)
        windows.push(await within(pid, blockTime - working))
      }
      return { silent, betweenHeads: restOf(loadBefore, windows), resident, slowdown: factor }
    })
  }).pipe(Effect.scoped)
