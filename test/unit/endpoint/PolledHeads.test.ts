/** Polled heads, tested through the service. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode, Refused } from "../../support/FakeNode.ts"
import {
  caughtUp,
  eventually,
  extendInTime,
  memoryStore,
  startIngestor,
  variablesFor,
} from "../../support/ingestor.ts"
import type { Client } from "../../support/ingestor.ts"

const blockTime = 4

interface World {
  readonly chain: FakeChain
  readonly one: FakeNode
  readonly http: FakeNode
  readonly store: Client
  readonly start: (variables: Record<string, string>) => ReturnType<typeof startIngestor>
}

const scenario = (title: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 16, blockTime })
      const [one, http] = [new FakeNode(chain), new FakeNode(chain)]
      const store = yield* memoryStore()
      const start = (variables: Record<string, string>) =>
        startIngestor(store, { one, http }, { ...variablesFor({ devnet: [chain, "one"] }), ...variables })
      yield* body({ chain, one, http, store, start })
    }),
  )

describe("polled heads", () => {
  scenario("follow a chain over HTTP alone", ({ chain, http, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start({ DEVNET_WS_URL: "http://http" })
      yield* extendInTime(chain, 10)
      chain.rollback(2)
      chain.extend(1, 2, 3)
      yield* extendInTime(chain, 5)
      yield* caughtUp(store, chain, status)
      assert.strictEqual(http.timesAsked("eth_subscribe"), 0)
      assert.deepStrictEqual(status.failures, [])
    }),
  )

  scenario("treat neither an idle chain nor a long poll interval as a stall", ({ chain, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start({ DEVNET_WS_URL: "http://http", POLL_INTERVAL: "1m" })
      yield* extendInTime(chain, 60)
      yield* TestClock.adjust("10 minutes")
      yield* caughtUp(store, chain, status)
      assert.deepStrictEqual(status.failures, [])
    }),
  )

  scenario("replace the subscription of a socket with HEADS=poll", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start({ HEADS: "poll", POLL_INTERVAL: "2s" })
      yield* extendInTime(chain, 10)
      yield* caughtUp(store, chain, status)
      assert.strictEqual(one.timesAsked("eth_subscribe"), 0)
    }),
  )

  scenario("replace a refused eth_subscribe, also after a reconnect", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      one.intercept = (method, _params, proceed) => {
        if (method === "eth_subscribe") throw new Refused(-32601, "the method eth_subscribe does not exist")
        return proceed()
      }
      const { status } = yield* start({})
      yield* extendInTime(chain, 10)
      yield* caughtUp(store, chain, status)
      one.drop()
      yield* extendInTime(chain, 10)
      yield* caughtUp(store, chain, status)
      assert.strictEqual(one.timesAsked("eth_subscribe"), 1)
      assert.include(status.endpoints[0]!.capabilities!.limits, "heads are polled")
    }),
  )

  scenario("take over HTTP while no socket is connected, and fail back", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start({ DEVNET_RPC_URL: "http://http" })
      yield* extendInTime(chain, 5)
      assert.strictEqual(status.endpoint, status.endpoints[0])
      one.up = false
      one.drop()
      yield* extendInTime(chain, 10)
      assert.strictEqual(status.endpoint, status.endpoints[1])
      yield* caughtUp(store, chain, status)
      one.up = true
      yield* eventually("the socket is in use", () => status.endpoint === status.endpoints[0], 120)
      yield* extendInTime(chain, 5)
      yield* caughtUp(store, chain, status)
    }),
  )
})
