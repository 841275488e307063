/** A cluster node fails: the chains in its slots wait, and no other chain is affected. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Ref, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import { emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import * as StoreBreaker from "../../../../src/store/StoreBreaker.ts"
import { block } from "../../../support/blocks.ts"
import type { Client } from "../../../support/ingestor.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, standalone } from "../../../support/redisStore.ts"

const filter = "none"

const eventually = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.retry(effect, Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 150 })))

/** Pushes one more block. */
const extend = Effect.fnUntraced(function* (store: Client, chain: number) {
  const head = (yield* store.load(chain))?.head ?? emptyHead(1)
  const next = block(head.number + 1, "a", 3, head.hash || undefined)
  const [move] = [...pushes(head, [next], false)]
  assert.strictEqual((yield* store.push(chain, filter, move!))._tag, "Pushed")
})

describe("a Redis Cluster", () => {
  it.live(
    "with a failed node stops only the chains in its slots, and resumes them when the node returns [G-167]",
    () =>
      Effect.gen(function* () {
        const options = [
          ["--cluster-enabled", "yes"],
          ["--cluster-require-full-coverage", "no"],
          ["--cluster-node-timeout", "2000"],
        ].flat()
        const nodes = yield* Effect.forEach([1, 2, 3], () => RedisServer.start(options))
        const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
        execFileSync("redis-cli", ["--cluster", "create", ...addresses, "--cluster-yes"], { stdio: "ignore" })
        const store = yield* openRedis(
          standalone(nodes[0]!.port, { mode: "cluster" }),
          "events",
          0,
          "5 seconds",
        )
        const chains = Array.from({ length: 12 }, (_, i) => i + 1)
        for (const chain of chains) yield* eventually(extend(store, chain))
        const gone = nodes[2]!
        const keys = yield* Effect.promise(() => gone.client.keys("events:*"))
        const there = chains.filter((chain) => keys.includes(`events:${chain}`))
        const elsewhere = chains.filter((chain) => !there.includes(chain))
        assert.isAbove(there.length, 0)
        assert.isAbove(elsewhere.length, 1)
        const waiting = there[0]!
        gone.client.disconnect()
        gone.kill("SIGKILL")
        // The breaker of its chain probes all the time, as in the service.
        const breaker = yield* StoreBreaker.make(store.ping(waiting), () => Effect.void)
        const error = yield* Effect.flip(Effect.repeat(extend(store, waiting), { times: 20 }))
        assert.propertyVal(error, "_tag", "StoreError")
        yield* breaker.trip(error)
        const longest = yield* Ref.make(0)
        for (let round = 0; round < 15; round++) {
          for (const chain of elsewhere) {
            const since = yield* Clock.currentTimeMillis
            yield* extend(store, chain)
            const took = (yield* Clock.currentTimeMillis) - since
            yield* Ref.update(longest, (most) => Math.max(most, took))
          }
          yield* Effect.sleep("100 millis")
        }
        assert.isBelow(yield* Ref.get(longest), 1000, "milliseconds for a move of another chain")
        assert.isFalse(breaker.acceptsMoves())
        const released = yield* Effect.forkChild(breaker.awaitClosed)
        yield* gone.restart
        const back = yield* Clock.currentTimeMillis
        yield* Fiber.join(released)
        yield* extend(store, waiting)
        assert.isBelow((yield* Clock.currentTimeMillis) - back, 5000, "milliseconds until it resumes")
      }).pipe(Effect.scoped),
    30_000,
  )
})
