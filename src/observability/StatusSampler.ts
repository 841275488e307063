/** Samples every chain once a second, for the curves of the page and for the rates. */
import { Effect, Layer, Schedule } from "effect"
import * as Background from "../Background.ts"
import { eventsPublished } from "./ChainMetrics.ts"
import * as Monotonic from "../Monotonic.ts"
import { sampleEvery } from "./Sparkline.ts"
import { Status } from "./Status.ts"

export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { chains } = yield* Status
    const sample = Effect.map(Monotonic.millis, (now) => {
      for (const chain of chains) chain.history.sample(now, chain.lag(now), chain.count(eventsPublished))
    })
    // Not `fixed`, which samples twice within a millisecond when a timer fires early.
    yield* sample.pipe(Background.logDefects, Effect.repeat(Schedule.spaced(sampleEvery)), Effect.forkScoped)
  }),
)
