/** Rollouts of a fleet to another configuration, replica by replica: the old and the new replicas are two fleets meanwhile. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import {
  assertComplete,
  environment,
  followedBy,
  startChains,
  statusOf,
  whileMining,
} from "../support/fleet.ts"
import type { FleetChain } from "../support/fleet.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"

/** A contract that emits no logs: with it in the filter, another filter matches the same logs. */
const idle = (fill: string) => `0x${fill.repeat(20)}`

/** The contract that emits the logs of a chain. */
const contractOf = ({ block, node }: FleetChain) =>
  Effect.gen(function* () {
    yield* block(1)
    const logs = yield* node.request("eth_getLogs", [{ fromBlock: "0x0", toBlock: "latest" }])
    return (logs as ReadonlyArray<{ readonly address: string }>)[0]!.address
  })

const all = (chains: ReadonlyArray<FleetChain>) => chains.map(({ name }) => name)

describe("a rollout", () => {
  it.live(
    "of another filter, and then of other chains, takes each chain over once, and an old replica that restarts takes nothing back [G-223]",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        const chains = yield* startChains(3)
        const store = yield* openRedis(standalone(server.port))
        const contracts = yield* Effect.forEach(chains, contractOf)
        const contract = contracts[0]!
        assert.strictEqual(new Set(contracts).size, 1)
        const [before, after] = [chains.slice(0, 2), [chains[0]!, chains[2]!]]
        const replica = (chains: ReadonlyArray<FleetChain>, fill: string) =>
          Service.start({
            env: environment(chains, { REDIS_URL: server.url, ADDRESSES: `${contract},${idle(fill)}` }),
          })
        /** The filters of a chain that were replaced, in order. */
        const replaced = ({ id }: FleetChain) =>
          Effect.promise(() => server.client.lrange(`{events:${id}}:filters`, 0, -1))
        const filterOf = ({ id }: FleetChain) =>
          Effect.map(
            Effect.orElseSucceed(store.load(id), () => undefined),
            (journal) => journal?.filter,
          )
        const waiting = { schedule: Schedule.spaced("50 millis") }
        const untilFollowed = (service: Service.Process, chains: ReadonlyArray<FleetChain>) =>
          Effect.repeat(Effect.map(statusOf(service), followedBy), {
            until: (followed) => all(chains).every((name) => followed.includes(name)),
            ...waiting,
          })
        const phases = (service: Service.Process) =>
          Effect.map(statusOf(service), ({ chains }) => chains.map(({ phase }) => phase))

        const old = yield* Effect.all([replica(before, "01"), replica(before, "01")], { concurrency: 2 })
        yield* Effect.forEach(before, (chain) =>
          Effect.repeat(filterOf(chain), { until: (filter) => filter !== undefined, ...waiting }),
        )
        const oldFilters = yield* Effect.forEach(before, filterOf)

        yield* whileMining(
          chains,
          Effect.gen(function* () {
            const first = yield* replica(before, "02")
            yield* untilFollowed(first, before)
            yield* Effect.forEach(before, (chain, i) =>
              Effect.repeat(filterOf(chain), { until: (filter) => filter !== oldFilters[i], ...waiting }),
            )
            const newFilters = yield* Effect.forEach(before, filterOf)
            // An old replica crashes and restarts in the middle of it.
            old[0].kill("SIGKILL")
            yield* old[0].exit
            const restarted = yield* replica(before, "01")
            old[1].kill("SIGTERM")
            yield* old[1].exit
            yield* Effect.repeat(phases(restarted), {
              until: (phases) => phases.every((phase) => phase === "superseded"),
              ...waiting,
            })
            assert.match(restarted.output(), /older than that of the journal.*CONFIG_VERSION/)
            const second = yield* replica(before, "02")
            restarted.kill("SIGTERM")
            yield* restarted.exit
            assert.deepStrictEqual(yield* Effect.forEach(before, filterOf), newFilters)
            for (const [i, chain] of before.entries())
              assert.deepStrictEqual(yield* replaced(chain), [oldFilters[i]])

            // Other chains.
            const third = yield* replica(after, "02")
            yield* untilFollowed(third, after)
            for (const service of [first, second]) {
              service.kill("SIGTERM")
              yield* service.exit
            }
          }),
        )
        yield* assertComplete(store, after)
        assert.deepStrictEqual(yield* replaced(chains[0]!), [oldFilters[0]])
        assert.deepStrictEqual(yield* replaced(chains[2]!), [])
      }).pipe(Effect.scoped),
    120_000,
  )
})
