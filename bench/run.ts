/** One run: a Redis, a provider and a subject, from the first block to the last, and its cost. */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import * as RedisServer from "../test/support/RedisServer.ts"
import { base, Chain } from "./chain.ts"
import type { Contents } from "./chain.ts"
import { cpuSeconds, loadAverage, now, peakMemory, startProvider } from "./child.ts"
import type { Load } from "./provider.ts"
import { contentsOf, lengthOf, redisCpuSeconds, verify } from "./store.ts"
import type { Subject } from "./subjects/Subject.ts"

export interface Cost {
  /** Events a second, once the process is warm. */
  readonly perSecond: number
  /** Microseconds of CPU per event, of the subject. */
  readonly cpu: number
  /** Microseconds of CPU per event, of Redis. */
  readonly redisCpu: number
  /** Peak resident memory of the subject in MB. */
  readonly peak: number
  /** Of the machine, over the minute before the run. */
  readonly loadAverage: number
}

/** A number of blocks with this many logs on each of several chains, served as fast as they are requested. */
export const load = (logs: number, blocks: number, count = 1, bloom = true): Load => ({
  chains: Array.from({ length: count }, (_, i) => 900_001 + i),
  shape: { logs, bloom },
  history: 0,
  blocks,
  pace: "asked",
})

/** The warm-up share of a run, which does not count. */
const warmUp = 0.3
const pollEvery = 5

const expectations = new Map<string, Contents>()

/** What the store must hold after a load. Computed once, since loads recur. */
export const expectedOf = (
  { chains, shape, history, blocks }: Load,
  addresses?: ReadonlySet<string>,
): Contents => {
  const key = JSON.stringify([chains, shape, history, blocks, [...(addresses ?? [])]])
  const known = expectations.get(key)
  if (known !== undefined) return known
  const first = new Chain(chains[0]!, shape)
  let count = 0
  let checksum = 0
  for (const id of chains) {
    const chain = id === first.id ? first : new Chain(id, shape, first)
    const contents = chain.expected(base + 1, base + history + blocks, addresses)
    count += contents.count
    checksum += contents.checksum
  }
  expectations.set(key, { count, checksum })
  return { count, checksum }
}

/**
 * Waits until a count reaches a target. Returns the time (milliseconds) and the count. Throws when the count has not changed
 * for as long as the timeout.
 */
export const until = async (what: string, target: number, count: () => Promise<number>, timeout = 20_000) => {
  let before = -1
  let since = now()
  for (;;) {
    const seen = await count()
    const at = now()
    if (seen >= target) return { at, seen }
    if (seen !== before) {
      before = seen
      since = at
    }
    if (at - since > timeout) throw new Error(`${what}: stuck at ${seen} of ${target}`)
    await sleep(pollEvery)
  }
}

/** A subject that follows the provider's chains into a Redis of its own. */
export const running = Effect.fnUntraced(function* (
  subject: Subject,
  load: Load,
  env: Readonly<Record<string, string>> = {},
) {
  const redis = yield* RedisServer.start()
  const provider = yield* startProvider(load)
  const { chains } = load
  const startedAt = now()
  const { pid } = yield* subject.start({ redisPort: redis.port, providerPort: provider.port, chains, env })
  return { redis, provider, startedAt, pid, stored: () => lengthOf(redis.client, chains) }
})

/** Runs a whole load at full speed, then compares the store with the expected content. */
export const throughput = (
  subject: Subject,
  load: Load,
  env: Readonly<Record<string, string>> = {},
  addresses?: ReadonlySet<string>,
): Effect.Effect<Cost> =>
  Effect.gen(function* () {
    const expected = expectedOf(load, addresses)
    const loadBefore = loadAverage()
    const { redis, pid, stored } = yield* running(subject, load, env)
    const mark = (target: number) =>
      Effect.promise(async () => {
        const { at, seen } = await until(subject.name, target, stored)
        return { at, seen, cpu: cpuSeconds(pid), redisCpu: await redisCpuSeconds(redis.client) }
      })
    const warm = yield* mark(Math.floor(expected.count * warmUp))
    const end = yield* mark(expected.count)
    const peak = peakMemory(pid)
    yield* verify(subject.name, yield* Effect.promise(() => contentsOf(redis.client, load.chains)), expected)
    const events = end.seen - warm.seen
    return {
      perSecond: (events / (end.at - warm.at)) * 1000,
      cpu: ((end.cpu - warm.cpu) / events) * 1e6,
      redisCpu: ((end.redisCpu - warm.redisCpu) / events) * 1e6,
      peak,
      loadAverage: loadBefore,
    }
  }).pipe(Effect.scoped)
