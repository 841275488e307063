/** Head frame written → the block's last entry readable by a blocked XREAD, at a fixed load. */
import { Effect } from "effect"
import { cpuSeconds, loadAverage, now } from "../child.ts"
import type { Load } from "../provider.ts"
import { follow } from "../reader.ts"
import { expectedOf, running, until } from "../run.ts"
import { quantile } from "../statistics.ts"
import { contentsOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Latency {
  readonly load: number
  readonly logs: number
  readonly chains: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly p999: number
  readonly max: number
  /** CPU of the subject in percent of one core. */
  readonly cpu: number
  readonly loadAverage: number
}

/** More blocks per second than this are spread over several chains. */
const blocksPerChain = 200
/** Warm-up seconds that do not count: at ten blocks a second the JIT compiler takes that long. */
const warmUp = 10

export const latency = (
  subject: Subject,
  { load, logs, seconds }: { readonly load: number; readonly logs: number; readonly seconds: number },
): Effect.Effect<Latency> =>
  Effect.gen(function* () {
    const perSecond = load / logs
    const count = Math.max(Math.ceil(perSecond / blocksPerChain), 1)
    const chains = Array.from({ length: count }, (_, i) => 900_001 + i)
    const blocks = Math.ceil((perSecond / count) * (seconds + warmUp))
    const plan: Load = { chains, shape: { logs, bloom: true }, history: 0, blocks, pace: perSecond }
    const expected = expectedOf(plan)
    const loadBefore = loadAverage()
    const { redis, provider, pid, stored } = yield* running(subject, plan)
    const readable = yield* follow(redis.port, chains, logs)
    const cpu = yield* Effect.promise(async () => {
      await provider.subscribed
      provider.order("go")
      const warm = Math.floor((expected.count * warmUp) / (seconds + warmUp))
      await until(subject.name, warm, stored)
      const [from, cpuBefore] = [now(), cpuSeconds(pid)]
      await provider.done
      const used = (cpuSeconds(pid) - cpuBefore) / ((now() - from) / 1000)
      await until(subject.name, expected.count, stored)
      await until("the reader", chains.length * blocks, async () =>
        readable.reduce((sum, { length }) => sum + length, 0),
      )
      return used * 100
    })
    const { written } = yield* Effect.promise(provider.report)
    yield* verify(subject.name, yield* Effect.promise(() => contentsOf(redis.client, chains)), expected)
    const counted = Math.floor((blocks * warmUp) / (seconds + warmUp))
    const latencies = readable.flatMap((times, chain) =>
      times.map((at, block) => at - written[chain]![block]!).slice(counted),
    )
    return {
      load,
      logs,
      chains: count,
      p50: quantile(latencies, 0.5),
      p99: quantile(latencies, 0.99),
      p999: quantile(latencies, 0.999),
      max: quantile(latencies, 1),
      cpu,
      loadAverage: loadBefore,
    }
  }).pipe(Effect.scoped)
