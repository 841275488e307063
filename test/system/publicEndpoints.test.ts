/** A chain without a filter on its two default endpoints, with their known behaviour. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { caughtUp, eventually, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import type { Client, Ingestor } from "../support/ingestor.ts"
import { replayOf } from "../support/oracle.ts"
import { both, drpc, publicnode, without } from "../support/providers.ts"
import { blocksUnaudited } from "../../src/observability/ChainMetrics.ts"

interface World {
  readonly chain: FakeChain
  readonly one: FakeNode
  readonly two: FakeNode
  readonly store: Client
  readonly start: (variables?: Record<string, string>) => Effect.Effect<Ingestor, unknown, Scope.Scope>
}

const blockTime = 12
const start = 40

/** A chain of forty blocks that is followed from its latest block on. */
const world = (title: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 16, blockTime })
      const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
      one.intercept = publicnode(one)
      two.intercept = drpc
      chain.extend(...Array.from({ length: start }, (_, i) => i % 4))
      const store = yield* memoryStore()
      const run = Effect.fnUntraced(function* (variables: Record<string, string> = {}) {
        const ingestor = yield* startIngestor(
          store,
          { one, two },
          {
            ...variablesFor({ devnet: [chain, "one,two"] }),
            START_BLOCK: "latest",
            // The default of endpoints without a key.
            RPC_RATE: "10",
            ...variables,
          },
        )
        yield* eventually("it has begun", () => ingestor.status.stored === start)
        return ingestor
      })
      yield* body({ chain, one, two, store, start: run })
    }),
  )

/** The chain grows, with occasional forks. */
const blocks = (chain: FakeChain, count: number) =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) {
      if (i % 6 === 5) chain.fork(1 + (i % 3), 3, 5, 2, 4)
      else chain.extend([40, 0, 7, 350][i % 4]!)
      yield* TestClock.adjust(`${blockTime} seconds`)
    }
  })

describe("a chain without a filter on public endpoints", () => {
  world("is stored block by block from receipts [G-067]", ({ chain, one, store, start: run }) =>
    Effect.gen(function* () {
      const { status } = yield* run()
      yield* blocks(chain, 40)
      const replay = yield* caughtUp(store, chain, status, start)
      assert.isAbove(replay.removed, 10)
      assert.strictEqual(status.endpoint, status.endpoints[0])
      assert.strictEqual(one.timesAsked("eth_getLogs"), 2, "two refusals are enough")
      assert.strictEqual(one.timesAsked("eth_getTransactionReceipt"), 0)
      assert.deepStrictEqual(status.failures, [])
      assert.isAtLeast(status.final!, chain.final.number - 6)
      assert.strictEqual(status.count(blocksUnaudited), 0)
    }),
  )

  world(
    "is stored from the logs subscription if receipts are refused too",
    ({ chain, one, store, start: run }) =>
      Effect.gen(function* () {
        one.intercept = both(publicnode(one), without("eth_getBlockReceipts"))
        const { status } = yield* run()
        yield* blocks(chain, 2)
        const before = one.timesAsked("eth_getTransactionReceipt")
        yield* blocks(chain, 40)
        const replay = yield* caughtUp(store, chain, status, start)
        assert.isAbove(replay.removed, 10)
        assert.strictEqual(status.endpoint, status.endpoints[0])
        assert.strictEqual(one.timesAsked("eth_getLogs"), 2)
        assert.strictEqual(one.timesAsked("eth_getBlockReceipts"), 2)
        assert.strictEqual(one.timesAsked("eth_getTransactionReceipt"), before)
        assert.strictEqual(one.timesAsked("eth_subscribe"), 2)
        assert.deepStrictEqual(status.failures, [])
      }),
  )

  world("is stored from the second endpoint while the first is down, then from the first again", (world) =>
    Effect.gen(function* () {
      const { chain, one, two, store } = world
      one.intercept = both(publicnode(one), without("eth_getBlockReceipts"))
      const { status } = yield* world.start()
      for (let i = 0; i < 3; i++) {
        yield* blocks(chain, 5)
        one.up = false
        one.drop()
        yield* blocks(chain, 5)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        one.up = true
        two.drop()
        yield* blocks(chain, 5)
      }
      yield* caughtUp(store, chain, status, start)
    }),
  )

  world(
    "is audited by an endpoint that refuses long ranges, even if dozens of blocks finalize at once",
    (world) =>
      Effect.gen(function* () {
        const { chain, two, store } = world
        chain.finality = 1000
        const { status } = yield* world.start()
        yield* blocks(chain, 40)
        chain.finality = 3
        yield* blocks(chain, 4)
        assert.isAtLeast(status.final!, chain.final.number - 3)
        assert.strictEqual(status.count(blocksUnaudited), 0)
        assert.isAtMost(status.endpoints[1]!.capabilities!.width.current, 30)
        assert.isAbove(two.timesAsked("eth_getLogs"), 4)
        yield* caughtUp(store, chain, status, start)
      }),
  )

  world("never skips a gap that no endpoint can fill [G-068]", (world) =>
    Effect.gen(function* () {
      const { chain, one, store } = world
      const { status } = yield* world.start({ DEVNET_WS_URL: "ws://one" })
      yield* blocks(chain, 3)
      one.intercept = both(
        publicnode(one),
        without("eth_getBlockReceipts", "eth_getTransactionReceipt", "eth_getBlockByHash"),
      )
      // The first block after the refusal was announced before the subscription started.
      chain.extend(2)
      yield* TestClock.adjust("1 minute")
      const { stored } = status
      assert.strictEqual(stored, chain.head.number - 1)
      yield* blocks(chain, 30)
      assert.strictEqual(status.stored, stored)
      assert.strictEqual((yield* replayOf(store, chain.id)).removed > 0, false)
      assert.isAbove(status.errors.rejected + status.errors.unverified, 2)
      // A method that is allowed again is detected within an hour.
      one.intercept = publicnode(one)
      yield* TestClock.adjust("1 hour")
      yield* eventually("the gap is filled", () => status.stored === chain.head.number, 120)
      yield* caughtUp(store, chain, status, start)
    }),
  )
})
