/** Progress bars of the chains of the running service that are behind their heads. */
import { Effect, Layer } from "effect"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import { Status } from "../observability/Status.ts"
import * as ProgressBars from "./ProgressBars.ts"
import type { Task } from "./ProgressBars.ts"

/** Where a chain was when its backfill began. */
interface Begin {
  readonly stored: number
  readonly pace: ProgressBars.Pace
}

type Facts = Pick<ChainStatus, "name" | "phase" | "stored" | "target">

/** Returns a function that lists the backfills in progress. @param now `performance.now()` */
export const makeBackfills = (chains: ReadonlyArray<Facts>) => {
  const begun = new Map<Facts, Begin>()
  return (now: number): ReadonlyArray<Task> =>
    chains.flatMap((chain) => {
      const { name, phase, stored, target } = chain
      if (phase === "live" || phase === "idle" || phase === "elsewhere") begun.delete(chain)
      if (phase !== "catching-up" || stored === undefined || target === undefined) return []
      const begin = begun.get(chain) ?? { stored, pace: new ProgressBars.Pace(now) }
      begun.set(chain, begin)
      const [done, total] = [stored - begin.stored, target - begin.stored]
      return [{ title: name, done, total, unit: "blocks", pace: begin.pace }]
    })
}

/** Shows a bar for each chain of the service that is behind, where standard error is a terminal. */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { chains } = yield* Status
    const backfills = makeBackfills(chains)
    yield* ProgressBars.show(() => backfills(performance.now()))
  }),
)
