/** Reports the chains that are followed here to the other replicas of the fleet, whose `/status` and page show them. */
import { Effect, Layer, Schedule } from "effect"
import * as Background from "../Background.ts"
import { Fleet } from "../fleet/Fleet.ts"
import { Status } from "../observability/Status.ts"
import * as Report from "./Report.ts"

const every = "2 seconds"

export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { chains } = yield* Status
    const { publish, view } = yield* Fleet
    if (publish === undefined) return
    /** A chain that is being handed over is reported by the replica that holds it. */
    const isOwn = (name: string) => {
      const { holders, replica } = view()!
      return (holders.get(name) ?? replica) === replica
    }
    yield* Effect.flatMap(Report.now, (now) => {
      const own = chains.filter((chain) => chain.followed && isOwn(chain.name))
      return publish(new Map(own.map((chain) => [chain.name, Report.chainReport(chain, now, view())])))
    }).pipe(Background.logDefects, Effect.repeat(Schedule.spaced(every)), Effect.forkScoped)
  }),
)
