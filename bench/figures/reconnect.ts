/**
 * The way back to a provider: after connections that were healthy were cut while the provider is away for two seconds, and
 * after a provider has fallen silent on a connection that stays open.
 *
 * Each chain has a door of its own to the provider, so that one wait gives several samples.
 */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { loadAverage, now, startProvider } from "../child.ts"
import type { Provider } from "../child.ts"
import * as Door from "../door.ts"
import type { Load } from "../provider.ts"
import { follow } from "../reader.ts"
import { expectedOf, until } from "../run.ts"
import { median, spreadOf } from "../statistics.ts"
import type { Spread } from "../statistics.ts"
import { contentsOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Reconnect {
  readonly loadAverage: number
  readonly ours: Spread
  readonly samples: ReadonlyArray<{
    readonly how: Door.Unreachable
    /** Seconds from the moment when the provider accepts again until the next event can be read. */
    readonly seconds: number
    /** Seconds from the cut to each connection of the client. A closed door shows only those after the outage. */
    readonly attempts: ReadonlyArray<number>
  }>
}

/** Providers that fell silent on connections of one age. */
export interface Silence {
  readonly loadAverage: number
  /** Heads, one a second, that the provider has announced before. */
  readonly heads: number
  /** Seconds from the last head to the next event that can be read. */
  readonly ours: Spread
  readonly samples: number
}

const chains = Array.from({ length: 8 }, (_, i) => 900_001 + i)

/** Seconds. A fast reconnect needs a connection that has lived for 60 s. */
const healthy = 61
const outage = 2
/** Between two chains: less than an outage, so that they overlap, and not a multiple of any delay. */
const stagger = 0.7

const loadOf = (blocksPerSecond: number): Load => ({
  chains,
  shape: { logs: 20, bloom: true },
  history: 0,
  // More blocks than the run has time for: it ends with `stop`.
  blocks: 100_000,
  pace: blocksPerSecond * chains.length,
})

interface Followed {
  readonly chain: number
  readonly door: Door.Door
  /** When each block was readable. */
  readonly readable: ReadonlyArray<number>
}

interface Running {
  readonly provider: Provider
  readonly followed: ReadonlyArray<Followed>
}

/** The time at which the next block becomes readable. */
const nextBlock = async ({ readable }: Followed): Promise<number> => {
  const before = readable.length
  await until("the reconnect", before + 1, async () => readable.length, 100_000)
  return readable[before]!
}

/** Runs the service behind doors, and compares everything that it has stored at the end. */
const behindDoors = <A>(
  subject: Subject,
  load: Load,
  use: (running: Running) => Promise<A>,
): Effect.Effect<A> =>
  Effect.gen(function* () {
    const redis = yield* RedisServer.start()
    const provider = yield* startProvider(load)
    const doors = yield* Effect.forEach(chains, () => Door.open(provider.port))
    const readable = yield* follow(redis.port, chains, load.shape.logs)
    const urls = chains.map((chain, i) => [
      `BENCH_${chain}_WS_URL`,
      `ws://127.0.0.1:${doors[i]!.port}/${chain}`,
    ])
    yield* subject.start({
      redisPort: redis.port,
      providerPort: provider.port,
      chains,
      env: Object.fromEntries(urls) as Record<string, string>,
    })
    const followed = chains.map((chain, i) => ({ chain, door: doors[i]!, readable: readable[i]! }))
    const result = yield* Effect.promise(async () => {
      await provider.subscribed
      provider.order("go")
      const result = await use({ provider, followed })
      provider.order("stop")
      return result
    })
    const { written } = yield* Effect.promise(provider.report)
    for (const [i, { chain, readable }] of followed.entries()) {
      const blocks = written[i]!.length
      yield* Effect.promise(() => until("the reconnect", blocks, async () => readable.length))
      const held = yield* Effect.promise(() => contentsOf(redis.client, [chain]))
      yield* verify("the reconnect", held, expectedOf({ ...load, chains: [chain], blocks }))
    }
    return result
  }).pipe(Effect.scoped)

const cut = async (followed: Followed, how: Door.Unreachable): Promise<Reconnect["samples"][number]> => {
  const { door } = followed
  const earlier = door.attempts.length
  const cutAt = now()
  await door.shut(how)
  await sleep(outage * 1000)
  await door.open()
  const openAt = now()
  const seconds = ((await nextBlock(followed)) - openAt) / 1000
  return { how, seconds, attempts: door.attempts.slice(earlier).map((at) => (at - cutAt) / 1000) }
}

export const reconnect = (subject: Subject, rounds: number): Effect.Effect<Reconnect> =>
  behindDoors(subject, loadOf(5), async ({ followed }) => {
    const loads: Array<number> = []
    const samples: Array<Reconnect["samples"][number]> = []
    for (let round = 0; round < rounds; round++) {
      await sleep(healthy * 1000)
      loads.push(loadAverage())
      const cuts = followed.map(async (one, i) => {
        await sleep(i * stagger * 1000)
        return cut(one, (i + round) % 2 === 0 ? "closed" : "refusing")
      })
      samples.push(...(await Promise.all(cuts)))
    }
    return {
      loadAverage: median(loads),
      ours: spreadOf(samples.map(({ seconds }) => seconds * 1000)),
      samples,
    }
  })

/** Heads after which providers fall silent: a chain counts as regular from 20 on, and a connection as healthy after 60 s. */
export const silentAfter = [25, 65]

const silenceOf = async (
  provider: Provider,
  followed: ReadonlyArray<Followed>,
  heads: number,
): Promise<Silence> => {
  const readable = async () => Math.min(...followed.map(({ readable }) => readable.length))
  await until("the start", heads, readable)
  const loadBefore = loadAverage()
  const silent = followed.map(async (one) => {
    const last = one.readable.length
    await nextBlock(one)
    // Between two heads, when nothing is on its way.
    await sleep(500)
    one.door.silence()
    return { last, at: await nextBlock(one) }
  })
  const all = await Promise.all(silent)
  const { written } = await provider.report()
  const samples = all.map(({ last, at }, i) => at - written[chains.indexOf(followed[i]!.chain)]![last]!)
  return { loadAverage: loadBefore, heads, ours: spreadOf(samples), samples: samples.length }
}

/** Each half of the chains after another number of heads. */
export const silence = (subject: Subject): Effect.Effect<ReadonlyArray<Silence>> =>
  behindDoors(subject, loadOf(1), ({ provider, followed }) =>
    Promise.all(
      silentAfter.map((heads, i) =>
        silenceOf(
          provider,
          followed.filter((_, chain) => chain % silentAfter.length === i),
          heads,
        ),
      ),
    ),
  )
