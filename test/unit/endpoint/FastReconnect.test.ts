/** A healthy connection that is cut is restored at once; everything else takes the backoff. Through the service, in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import type { ChainStatus } from "../../../src/observability/ChainStatus.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode } from "../../support/FakeNode.ts"
import { caughtUp, extendInTime, memoryStore, startIngestor, variablesFor } from "../../support/ingestor.ts"
import type { Client } from "../../support/ingestor.ts"

interface World {
  readonly chain: FakeChain
  readonly node: FakeNode
  readonly store: Client
  readonly status: ChainStatus
}

/** A chain with a block every four seconds and one endpoint, that was followed for 64 seconds. */
const scenario = (title: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 16, blockTime: 4 })
      const node = new FakeNode(chain)
      const store = yield* memoryStore()
      const { status } = yield* startIngestor(store, { node }, variablesFor({ devnet: [chain, "node"] }))
      yield* extendInTime(chain, 16)
      yield* body({ chain, node, store, status })
    }),
  )

describe("a connection that was healthy for a minute", () => {
  scenario("is restored within 300 ms, which is no failure", ({ chain, node, store, status }) =>
    Effect.gen(function* () {
      node.drop()
      yield* TestClock.adjust("99 millis")
      assert.strictEqual(node.connections, 1)
      yield* TestClock.adjust("201 millis")
      assert.strictEqual(node.connections, 2)
      assert.deepStrictEqual(status.breakerState, { _tag: "Closed", failures: 0 })
      yield* extendInTime(chain, 2)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario("takes the backoff after a second cut within a minute", ({ chain, node, store, status }) =>
    Effect.gen(function* () {
      node.drop()
      yield* extendInTime(chain, 5)
      assert.strictEqual(node.connections, 2)
      node.drop()
      yield* TestClock.adjust("1500 millis")
      assert.strictEqual(node.connections, 2)
      assert.strictEqual(status.breakerState.failures, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(node.connections, 3)
      // A minute later it is restored at once again.
      yield* extendInTime(chain, 16)
      node.drop()
      yield* TestClock.adjust("300 millis")
      assert.strictEqual(node.connections, 4)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario(
    "is restored within 0.7 s of a provider's return that was away for two",
    ({ chain, node, store, status }) =>
      Effect.gen(function* () {
        node.up = false
        node.drop()
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(status.breakerState, { _tag: "Closed", failures: 0 })
        node.up = true
        yield* TestClock.adjust("700 millis")
        assert.strictEqual(node.connections, 2)
        yield* extendInTime(chain, 2)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario(
    "is tried for three seconds, and then with the backoff, while the provider is down",
    ({ node, status }) =>
      Effect.gen(function* () {
        node.up = false
        node.drop()
        yield* TestClock.adjust("2900 millis")
        assert.strictEqual(status.breakerState.failures, 0)
        const attempts = status.failures.length
        assert.isAtLeast(attempts, 6)
        assert.isAtMost(attempts, 8)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(status.breakerState.failures, 1)
        yield* TestClock.adjust("600 millis")
        assert.strictEqual(status.breakerState.failures, 1)
        yield* TestClock.adjust("1600 millis")
        assert.strictEqual(status.breakerState.failures, 2)
      }),
  )
})

describe("a connection that is younger", () => {
  scenario("takes the backoff", ({ chain, node, status }) =>
    Effect.gen(function* () {
      node.drop()
      yield* extendInTime(chain, 14)
      node.drop()
      yield* TestClock.adjust("1500 millis")
      assert.strictEqual(node.connections, 2)
      assert.strictEqual(status.breakerState.failures, 1)
    }),
  )

  scenario(
    "is not restored at once each time a provider drops it after a head",
    ({ chain, node, store, status }) =>
      Effect.gen(function* () {
        let fast = 0
        for (let i = 0; i < 150; i++) {
          yield* extendInTime(chain, 1)
          const before = node.connections
          node.drop()
          yield* TestClock.adjust("300 millis")
          fast += node.connections - before
        }
        assert.strictEqual(fast, 1)
        yield* TestClock.adjust("10 seconds")
        yield* caughtUp(store, chain, status)
      }),
  )
})
