/** The cost of an idle process: four chains without a new block. */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { cpuSeconds, now, residentMemory, startProvider } from "../child.ts"
import type { Load } from "../provider.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Idle {
  /** Percent of one core. */
  readonly cpu: number
  /** Resident memory in MB. */
  readonly resident: number
}

const load: Load = {
  chains: [900_001, 900_002, 900_003, 900_004],
  shape: { logs: 200, bloom: true },
  history: 0,
  blocks: 0,
  pace: 1,
}

/** Seconds until the work of starting is over. */
const settling = 5

export const idle = (subject: Subject, seconds: number): Effect.Effect<Idle> =>
  Effect.gen(function* () {
    const redis = yield* RedisServer.start()
    const provider = yield* startProvider(load)
    const { pid } = yield* subject.start({
      redisPort: redis.port,
      providerPort: provider.port,
      chains: load.chains,
    })
    return yield* Effect.promise(async () => {
      await provider.subscribed
      await sleep(settling * 1000)
      const [from, before] = [now(), cpuSeconds(pid)]
      await sleep(seconds * 1000)
      return {
        cpu: ((cpuSeconds(pid) - before) / ((now() - from) / 1000)) * 100,
        resident: residentMemory(pid),
      }
    })
  }).pipe(Effect.scoped)
