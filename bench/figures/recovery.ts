/** Back after a cut socket, and after Redis was away. The policy decides most of it: 2 s, and as much as the outage. */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { now, startProvider } from "../child.ts"
import type { Load } from "../provider.ts"
import { expectedOf, until } from "../run.ts"
import { contentsOf, lengthOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface Recovery {
  /** Seconds from the cut of the socket to the next stored event. */
  readonly socket: number
  /** Seconds from Redis being back to the next stored event, after an outage of so many seconds. */
  readonly redis: number
  readonly outage: number
  /** Seconds from the next stored event to having caught up. */
  readonly caughtUp: number
}

const perSecond = 10
/** Milliseconds after which something is wrong: the longest delay is 72 s. */
const longest = 100_000
const logs = 200

export const recovery = (subject: Subject, outage: number): Effect.Effect<Recovery> =>
  Effect.gen(function* () {
    const load: Load = {
      chains: [900_001],
      shape: { logs, bloom: true },
      history: 0,
      // More than there is time for: it ends with `stop`.
      blocks: 100_000,
      pace: perSecond,
    }
    const server = yield* RedisServer.start(["--appendonly", "yes", "--appendfsync", "no"])
    const provider = yield* startProvider(load)
    yield* subject.start({ redisPort: server.port, providerPort: provider.port, chains: load.chains })
    const length = () => lengthOf(server.client, load.chains)
    const next = async () => (await until("the recovery", (await length()) + 1, length, longest)).at

    const socket = yield* Effect.promise(async () => {
      await provider.subscribed
      provider.order("go")
      await until("the start", 20 * logs, length)
      provider.order("cut")
      // What was on its way when the socket was cut is not the recovery.
      await sleep(500)
      const cut = now() - 500
      return (await next()) - cut
    })
    const before = yield* Effect.promise(length)
    yield* Effect.promise(() => until("the recovery", before + 20 * logs, length))
    server.kill("SIGTERM")
    yield* Effect.promise(() => sleep(outage * 1000))
    yield* server.restart
    yield* Effect.promise(() => server.client.ping())
    const back = now()
    const again = yield* Effect.promise(next)
    provider.order("stop")
    const blocks = (yield* Effect.promise(provider.written))[0]!.length
    const expected = expectedOf({ ...load, blocks })
    const { at } = yield* Effect.promise(() => until("the recovery", expected.count, length))
    yield* verify("recovery", yield* Effect.promise(() => contentsOf(server.client, load.chains)), expected)
    return {
      socket: socket / 1000,
      redis: (again - back) / 1000,
      outage,
      caughtUp: (at - again) / 1000,
    }
  }).pipe(Effect.scoped)
