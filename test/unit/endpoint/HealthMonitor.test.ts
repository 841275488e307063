/** The health monitor of an endpoint without others. EndpointPool.test.ts tests it with several. */
import { assert, describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Background from "../../../src/Background.ts"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import * as Heads from "../../../src/endpoint/Heads.ts"
import * as HealthMonitor from "../../../src/endpoint/HealthMonitor.ts"
import type { Endpoint } from "../../../src/endpoint/Endpoint.ts"
import { makeBreaker } from "../../../src/Retry.ts"
import { silence } from "../../support/FakeNode.ts"
import { connected, endOf, soon } from "../../support/virtual.ts"
import type { World } from "../../support/virtual.ts"

/** Monitors the connection, and records every received height. */
const listen = Effect.fnUntraced(function* (
  { connection }: World,
  onIdle: Effect.Effect<unknown> = Effect.void,
) {
  const heads = yield* Heads.make(connection, { onHead: () => {} })
  const member: Endpoint = {
    connection,
    breaker: yield* makeBreaker,
    capabilities: new Capabilities(),
    rank: 0,
    since: 0,
    heads: Effect.succeed(heads),
  }
  yield* Background.forkScoped(
    HealthMonitor.watch(member, {
      heads,
      delay: () => 0,
      others: () => [],
      use: () => Effect.void,
      stallTimeout: 15_000,
      onIdle: Effect.asVoid(onIdle),
    }),
  )
  yield* soon(heads.subscribe)
  const seen: Array<number> = []
  yield* heads.stream.pipe(
    Stream.runForEach(({ header }) => Effect.sync(() => seen.push(header.number))),
    Effect.forkScoped({ startImmediately: true }),
  )
  return { heads, seen }
})

/** Twenty blocks, one a second: they come regularly. */
const everySecond = Effect.fnUntraced(function* ({ chain }: World) {
  for (let i = 0; i < 20; i++) {
    yield* TestClock.adjust("1 second")
    chain.extend(0)
  }
})

describe("the health monitor", () => {
  for (const [blockTime, deadline] of [
    [2, 7],
    [0.5, 5],
    [12, 37],
  ] as const)
    connected(`detects silence after ${deadline} s where a block came every ${blockTime} s`, (world) =>
      Effect.gen(function* () {
        yield* listen(world)
        for (let i = 0; i < 20; i++) {
          yield* TestClock.adjust(`${blockTime * (0.8 + 0.4 * (i % 2))} seconds`)
          world.chain.extend(0)
        }
        yield* TestClock.adjust("100 millis")
        world.node.announces = false
        world.chain.extend(1)
        yield* TestClock.adjust(`${deadline - 1} seconds`)
        assert.isUndefined(yield* endOf(world.connection))
        // The average follows the last block times.
        yield* TestClock.adjust(`${1 + blockTime / 4} seconds`)
        assert.strictEqual((yield* endOf(world.connection))?.reason._tag, "Stalled")
      }),
    )

  connected("leaves an endpoint that does not respond as early", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      yield* everySecond(world)
      world.node.intercept = () => silence
      yield* TestClock.adjust("4900 millis")
      assert.isUndefined(yield* endOf(world.connection))
      yield* TestClock.adjust("200 millis")
      const error = (yield* endOf(world.connection))!
      assert.strictEqual(error.message, "fake: no head for 5 s: no response to eth_blockNumber either")
    }),
  )

  connected("keeps an endpoint that does not respond in time but announces a head", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      yield* everySecond(world)
      world.node.intercept = () => silence
      yield* TestClock.adjust("4500 millis")
      world.chain.extend(0)
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(yield* endOf(world.connection))
    }),
  )

  connected("tolerates 15 s of silence where blocks come irregularly", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      for (let i = 0; i < 20; i++) {
        yield* TestClock.adjust(i % 5 === 0 ? "6 seconds" : "1 second")
        world.chain.extend(0)
      }
      yield* TestClock.adjust("100 millis")
      world.node.announces = false
      world.chain.extend(1)
      yield* TestClock.adjust("14 seconds")
      assert.isUndefined(yield* endOf(world.connection))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* endOf(world.connection))?.reason._tag, "Stalled")
    }),
  )

  connected("probes a chain that has become idle no more often than before", (world) =>
    Effect.gen(function* () {
      let quiet = 0
      yield* listen(
        world,
        Effect.sync(() => quiet++),
      )
      yield* everySecond(world)
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined(yield* endOf(world.connection))
      assert.isAtMost(quiet, 1 + (10 * 60) / 15)
    }),
  )

  connected("keeps the connection of an idle chain that confirms its height", (world) =>
    Effect.gen(function* () {
      let quiet = 0
      const { seen } = yield* listen(
        world,
        Effect.sync(() => quiet++),
      )
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined(yield* endOf(world.connection))
      assert.strictEqual(world.node.connections, 1)
      assert.isAtLeast(quiet, 30)
      world.chain.extend(3)
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(seen, [0, 1])
    }),
  )

  connected("ends a connection that stops announcing new blocks", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      world.node.announces = false
      world.chain.extend(1, 1)
      yield* TestClock.adjust("14 seconds")
      assert.isUndefined(yield* endOf(world.connection))
      yield* TestClock.adjust("2 seconds")
      const error = (yield* endOf(world.connection))!
      assert.strictEqual(error.reason._tag, "Stalled")
      assert.strictEqual(
        error.message,
        "fake: no head for 15 s: the chain is at 2, the last announced head is 0",
      )
    }),
  )

  connected("ends a connection that is silent and does not respond", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      world.node.intercept = () => silence
      yield* TestClock.adjust("26 seconds")
      const error = (yield* endOf(world.connection))!
      assert.strictEqual(error.message, "fake: no head for 25 s: no response to eth_blockNumber either")
    }),
  )

  for (const [what, blockTime, deadline] of [
    ["three block times on a slow chain", 12, 36],
    ["a minute on a very slow one", 300, 60],
  ] as const) {
    connected(`tolerates silence for ${what}`, (world) =>
      Effect.gen(function* () {
        yield* listen(world)
        for (let i = 0; i < 20; i++) {
          yield* TestClock.adjust(`${blockTime} seconds`)
          world.chain.extend(0)
        }
        yield* TestClock.adjust("1 second")
        world.node.announces = false
        world.chain.extend(1)
        yield* TestClock.adjust(`${deadline - 2} seconds`)
        assert.isUndefined(yield* endOf(world.connection))
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual((yield* endOf(world.connection))?.reason._tag, "Stalled")
      }),
    )
  }

  connected("keeps a connection that announced a lower head after the highest one", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      world.chain.extend(0, 0, 0)
      yield* TestClock.adjust("1 second")
      world.node.announce(world.chain.at(1)!.header)
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined(yield* endOf(world.connection))
    }),
  )

  connected("does not treat a lower height as a stall", (world) =>
    Effect.gen(function* () {
      world.chain.extend(0, 0, 0)
      yield* listen(world)
      world.chain.rollback(2)
      yield* TestClock.adjust("5 minutes")
      assert.isUndefined(yield* endOf(world.connection))
    }),
  )
})
