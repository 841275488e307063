/** Three services on one chain and one store, each with its own connections, which are cut at random. */
import { Effect, Random } from "effect"
import type { Fault } from "./Fault.ts"

export const three: Fault = {
  name: "three services at once, cut at random, with reorgs [G-192]",
  stores: ["sqlite", "redis"],
  times: 3,
  ingestors: 3,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const cuts = cluster.brief ? 6 : 25
      for (let i = 0; i < cuts; i++) {
        const one = cluster.ingestors[yield* Random.nextIntBetween(0, cluster.ingestors.length - 1)]!
        const leg = (yield* Random.nextBoolean) ? one.ws : (one.redis ?? one.ws)
        if (yield* Random.nextBoolean) leg.cut()
        else leg.reset()
        yield* Effect.sleep(yield* Random.nextIntBetween(50, 900))
      }
    }),
}
