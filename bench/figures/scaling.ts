/** The cost of an event when the same load comes from more chains, or through a longer filter. */
import { Effect } from "effect"
import { base, contractAt } from "../chain.ts"
import { cpuSeconds, loadAverage, peakMemory } from "../child.ts"
import type { Load } from "../provider.ts"
import { expectedOf, running, until } from "../run.ts"
import { median } from "../statistics.ts"
import { contentsOf, redisCpuSeconds, verify } from "../store.ts"
import { ours } from "../subjects/ours.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Point {
  /** Chains, or addresses. */
  readonly of: number
  /** Microseconds of CPU per event, of the subject and of Redis. */
  readonly cpu: number
  readonly redisCpu: number
  /** MB. */
  readonly peak: number
  readonly loadAverage: number
  /** CPU per event relative to the first row of the same round: the median, and each round. */
  readonly ratio: number
  readonly ratios: ReadonlyArray<number>
}

/** The warm-up share of the load, which does not count. */
const warmUp = 0.3

type Measured = Omit<Point, "ratio" | "ratios">

/** Sends a paced load through a subject and measures the warm part of it. */
export const paced = (
  subject: Subject,
  of: number,
  load: Load,
  env: Readonly<Record<string, string>>,
  addresses?: ReadonlySet<string>,
) =>
  Effect.gen(function* () {
    const expected = expectedOf(load, addresses)
    const loadBefore = loadAverage()
    const { redis, provider, pid, stored } = yield* running(subject, load, env)
    const mark = (target: number) =>
      Effect.promise(async () => {
        const { seen } = await until(`${of}`, target, stored)
        return { seen, cpu: cpuSeconds(pid), redisCpu: await redisCpuSeconds(redis.client) }
      })
    yield* Effect.promise(() => provider.subscribed)
    provider.order("go")
    const warm = yield* mark(Math.floor(expected.count * warmUp))
    const end = yield* mark(expected.count)
    const peak = peakMemory(pid)
    yield* verify(`${of}`, yield* Effect.promise(() => contentsOf(redis.client, load.chains)), expected)
    const events = end.seen - warm.seen
    return {
      of,
      cpu: ((end.cpu - warm.cpu) / events) * 1e6,
      redisCpu: ((end.redisCpu - warm.redisCpu) / events) * 1e6,
      peak,
      loadAverage: loadBefore,
    } satisfies Measured as Measured
  }).pipe(Effect.scoped)

const perSecond = 10_000

/** 10 000 events a second in blocks of 100. */
export const steady = (count: number, seconds: number, subject = ours): Effect.Effect<Measured> => {
  const logs = 100
  const load: Load = {
    chains: Array.from({ length: count }, (_, i) => 900_001 + i),
    shape: { logs, bloom: true },
    history: 0,
    blocks: Math.ceil((perSecond * seconds) / logs / count),
    pace: perSecond / logs,
  }
  return paced(subject, count, load, {})
}

/** The medians of several rounds, in each of which all points are measured one after another. */
const inRounds = Effect.fnUntraced(function* (
  points: ReadonlyArray<Effect.Effect<Measured>>,
  rounds: number,
): Effect.fn.Return<ReadonlyArray<Point>> {
  const all = yield* Effect.replicateEffect(Effect.all(points), rounds)
  return points.map((_, i) => {
    const middle = (of: (point: Measured) => number) => median(all.map((round) => of(round[i]!)))
    const ratios = all.map((round) => round[i]!.cpu / round[0]!.cpu)
    return {
      of: all[0]![i]!.of,
      cpu: middle(({ cpu }) => cpu),
      redisCpu: middle(({ redisCpu }) => redisCpu),
      peak: middle(({ peak }) => peak),
      loadAverage: middle(({ loadAverage }) => loadAverage),
      ratio: median(ratios),
      ratios,
    }
  })
})

/** The same load from 1 to 64 chains. */
export const chains = (
  counts: ReadonlyArray<number>,
  seconds: number,
  rounds: number,
  subject: Subject = ours,
) =>
  inRounds(
    counts.map((count) => steady(count, seconds, subject)),
    rounds,
  )

/** Follows half of the contracts of a block, through a filter padded with other addresses. */
const filtered = (count: number, seconds: number) => {
  const contracts = Math.min(2 * count, 100)
  const followed = Array.from({ length: Math.min(count, 50) }, (_, i) => contractAt(i))
  const silent = Array.from({ length: count - followed.length }, (_, i) => contractAt(1_000 + i))
  const logs = 200
  const load: Load = {
    chains: [900_001],
    shape: { logs, bloom: true, contracts },
    history: 0,
    blocks: Math.ceil((perSecond * seconds) / (logs / 2)),
    pace: perSecond / (logs / 2),
  }
  const env = { ADDRESSES: [...followed, ...silent].join(","), START_BLOCK: String(base + 1) }
  return paced(ours, count, load, env, new Set(followed))
}

export const filters = (counts: ReadonlyArray<number>, seconds: number, rounds: number) =>
  inRounds(
    counts.map((count) => filtered(count, seconds)),
    rounds,
  )
