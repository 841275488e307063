/**
 * A block of 50 logs every two seconds: the compiler and the caches have cooled down between two blocks, as on most chains.
 *
 * The subjects run at the same time, each on a chain of its own, and their blocks come in turn, half a second apart: so all
 * have the same machine, which is idle for most of the time.
 */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { cpuMillis, loadAverage, now, startProvider } from "../child.ts"
import type { Load } from "../provider.ts"
import { follow } from "../reader.ts"
import { expectedOf, until } from "../run.ts"
import { median, quantile } from "../statistics.ts"
import { contentsOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Cold {
  readonly subject: string
  readonly loadAverage: number
  readonly blocks: number
  /** Milliseconds from writing the head frame until a blocked XREAD returns the block's last entry. */
  readonly p50: number
  readonly p90: number
  readonly max: number
  /** CPU milliseconds per block, of the whole two seconds. */
  readonly cpu: number
  /** The same without what the process uses in two seconds in which no block comes. */
  readonly cpuOfBlock: number
}

const logs = 50
/** Seconds. */
const blockTime = 2
const settling = 20
const idleTime = 10
const warmUp = 20

interface Round {
  readonly loadAverage: number
  readonly latencies: ReadonlyArray<number>
  readonly cpu: number
  readonly cpuOfBlock: number
}

/** CPU milliseconds of each process within a time. */
const cpuWithin = async (pids: ReadonlyArray<number>, wait: () => Promise<unknown>) => {
  const before = pids.map(cpuMillis)
  const from = now()
  await wait()
  return { millis: now() - from, cpu: pids.map((pid, i) => cpuMillis(pid) - before[i]!) }
}

const round = (subjects: ReadonlyArray<Subject>, counted: number): Effect.Effect<ReadonlyArray<Round>> =>
  Effect.gen(function* () {
    const loadBefore = loadAverage()
    const warm = warmUp / blockTime
    const load: Load = {
      chains: subjects.map((_, i) => 900_001 + i),
      shape: { logs, bloom: true },
      history: 0,
      blocks: warm + counted,
      pace: subjects.length / blockTime,
    }
    const redis = yield* RedisServer.start()
    const provider = yield* startProvider(load)
    const readable = yield* follow(redis.port, load.chains, logs)
    const children = yield* Effect.forEach(subjects, ({ start }, i) =>
      start({ redisPort: redis.port, providerPort: provider.port, chains: [load.chains[i]!] }),
    )
    const pids = children.map(({ pid }) => pid)
    const has = (blocks: number) =>
      until("a cold block", blocks, async () => Math.min(...readable.map(({ length }) => length)))
    const [idle, busy] = yield* Effect.promise(async () => {
      await provider.subscribed
      await sleep(settling * 1000)
      const idle = await cpuWithin(pids, () => sleep(idleTime * 1000))
      provider.order("go")
      await has(warm)
      const busy = await cpuWithin(pids, () => has(load.blocks))
      return [idle, busy] as const
    })
    const { written } = yield* Effect.promise(provider.report)
    const held = yield* Effect.promise(() => contentsOf(redis.client, load.chains))
    yield* verify("a cold block", held, expectedOf(load))
    return subjects.map((_, i): Round => {
      const cpu = busy.cpu[i]! / counted
      return {
        loadAverage: loadBefore,
        latencies: readable[i]!.map((at, block) => at - written[i]![block]!).slice(warm),
        cpu,
        cpuOfBlock: cpu - (idle.cpu[i]! / idle.millis) * (busy.millis / counted),
      }
    })
  }).pipe(Effect.scoped)

/** In each round the subjects take their turns in another order. */
export const cold = Effect.fnUntraced(function* (
  subjects: ReadonlyArray<Subject>,
  counted: number,
  rounds: number,
): Effect.fn.Return<ReadonlyArray<Cold>> {
  const all = subjects.map((): Array<Round> => [])
  for (let i = 0; i < rounds; i++) {
    const order = subjects.map((_, turn) => (turn + i) % subjects.length)
    const results = yield* round(
      order.map((subject) => subjects[subject]!),
      counted,
    )
    for (const [turn, subject] of order.entries()) all[subject]!.push(results[turn]!)
  }
  return subjects.map(({ name }, i) => {
    const latencies = all[i]!.flatMap(({ latencies }) => latencies)
    const middle = (field: "loadAverage" | "cpu" | "cpuOfBlock") => median(all[i]!.map((one) => one[field]))
    return {
      subject: name,
      loadAverage: middle("loadAverage"),
      blocks: latencies.length,
      p50: quantile(latencies, 0.5),
      p90: quantile(latencies, 0.9),
      max: quantile(latencies, 1),
      cpu: middle("cpu"),
      cpuOfBlock: middle("cpuOfBlock"),
    }
  })
})
