/** Process start → first stored event, with an empty store and a live chain. */
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { loadAverage, now, startProvider } from "../child.ts"
import type { Load } from "../provider.ts"
import { until } from "../run.ts"
import { median } from "../statistics.ts"
import { lengthOf } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Startup {
  /** Milliseconds from the start of the process to the first entry in the stream. */
  readonly first: number
  /** Milliseconds that Node takes to start and exit with an empty script. */
  readonly node: number
  readonly loadAverage: number
}

const load: Load = {
  chains: [900_001],
  shape: { logs: 200, bloom: true },
  history: 0,
  blocks: 1,
  pace: "asked",
}

const once = (subject: Subject): Effect.Effect<Startup> =>
  Effect.gen(function* () {
    const loadBefore = loadAverage()
    const redis = yield* RedisServer.start()
    const provider = yield* startProvider(load)
    const before = now()
    spawnSync(process.execPath, ["-e", "0"])
    const from = now()
    yield* subject.start({ redisPort: redis.port, providerPort: provider.port, chains: load.chains })
    const { at } = yield* Effect.promise(() =>
      until("the start", 1, () => lengthOf(redis.client, load.chains)),
    )
    return { first: at - from, node: from - before, loadAverage: loadBefore }
  }).pipe(Effect.scoped)

export const startup = (subject: Subject, rounds: number): Effect.Effect<Startup> =>
  Effect.map(Effect.replicateEffect(once(subject), rounds), (all) => ({
    first: median(all.map(({ first }) => first)),
    node: median(all.map(({ node }) => node)),
    loadAverage: median(all.map(({ loadAverage }) => loadAverage)),
  }))
