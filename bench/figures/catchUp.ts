/** Backfill of a long history into an empty store. */
import { Effect } from "effect"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { cpuSeconds, now, peakMemory, startProvider } from "../child.ts"
import type { Load } from "../provider.ts"
import { expectedOf, until } from "../run.ts"
import { contentsOf, lengthOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface CatchUp {
  readonly blocks: number
  readonly seconds: number
  readonly perSecond: number
  readonly blocksPerSecond: number
  /** Microseconds of CPU per event. */
  readonly cpu: number
  /** MB. */
  readonly peak: number
}

export const catchUp = (subject: Subject, blocks: number, logs: number): Effect.Effect<CatchUp> =>
  Effect.gen(function* () {
    const load: Load = {
      chains: [900_001],
      shape: { logs, bloom: true },
      history: blocks,
      blocks: 0,
      pace: 1,
    }
    const expected = expectedOf(load)
    const redis = yield* RedisServer.start()
    const provider = yield* startProvider(load)
    const from = now()
    const { pid } = yield* subject.start({
      redisPort: redis.port,
      providerPort: provider.port,
      chains: load.chains,
    })
    const stored = () => lengthOf(redis.client, load.chains)
    const { at } = yield* Effect.promise(() => until("the catch-up", expected.count, stored))
    const [cpu, peak] = [cpuSeconds(pid), peakMemory(pid)]
    yield* verify("catch-up", yield* Effect.promise(() => contentsOf(redis.client, load.chains)), expected)
    const seconds = (at - from) / 1000
    return {
      blocks,
      seconds,
      perSecond: expected.count / seconds,
      blocksPerSecond: blocks / seconds,
      cpu: (cpu / expected.count) * 1e6,
      peak,
    }
  }).pipe(Effect.scoped)
