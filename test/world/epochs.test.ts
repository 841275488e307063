/** The store is restored to an older copy of its data, under one ingestor or several: a real Redis. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { accelerated } from "../support/acceleratedClock.ts"
import { startIngestor, variablesFor } from "../support/ingestor.ts"
import type { Ingestor } from "../support/ingestor.ts"
import { judge } from "../support/oracle.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import { storeRegressions } from "../../src/observability/ChainMetrics.ts"

const hurry = 20

/** A chain, a Redis whose data can be copied and restored, and its epoch. */
const begin = Effect.fnUntraced(function* () {
  const server = yield* RedisServer.start()
  const chain = new FakeChain({ id: 1, finality: 16 })
  const node = new FakeNode(chain)
  const warnings: Array<string> = []
  const quiet = Logger.layer([
    Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn") warnings.push(String(message))
    }),
  ])
  const open = openRedis(standalone(server.port), "events", 0, `${5 * hurry} seconds`)
  const start = Effect.gen(function* () {
    return yield* startIngestor(yield* open, { one: node }, variablesFor({ ethereum: [chain, "one"] }))
  }).pipe(Effect.provide(quiet))
  const keys = ["events:1", "{events:1}:head", "{events:1}:window", "{events:1}:missed"]
  const snapshot = Effect.promise(async () => {
    const saved = await Promise.all(keys.map((key) => server.client.dumpBuffer(key)))
    return Effect.promise(async () => {
      // Atomically: all keys are restored together.
      const all = server.client.multi().del(...keys)
      for (const [i, dump] of saved.entries()) if (dump !== null) all.restore(keys[i]!, 0, dump)
      await all.exec()
    })
  })
  const epoch = Effect.promise(() => server.client.hmget("{events:1}:head", "epoch", "epoch_reason"))
  const until = Effect.fnUntraced(function* (what: string, holds: () => boolean) {
    for (let i = 0; i < 120 * hurry && !holds(); i++) yield* Effect.sleep("500 millis")
    assert.isTrue(holds(), what)
  })
  /** Extends the chain by blocks of two logs, until all of these ingestors have stored them. */
  const go = Effect.fnUntraced(function* (blocks: number, ...all: ReadonlyArray<Ingestor>) {
    for (let i = 0; i < blocks; i++) {
      chain.extend(2)
      yield* Effect.sleep("2 seconds")
    }
    yield* until("it is at the head", () => all.every(({ status }) => status.stored === chain.head.number))
  })
  /** Asserts that a reader from the first entry sees every log once. */
  const whole = Effect.gen(function* () {
    const { lost, doubled, replay } = yield* judge(yield* open, chain, 0, false)
    assert.deepStrictEqual([lost, doubled, replay.faults], [0, 0, []])
  })
  /** All epochs so far. */
  const seen: Array<string> = []
  const expectEpoch = Effect.fnUntraced(function* (reason: string, isNew: boolean) {
    const [token = "", why] = (yield* epoch) as ReadonlyArray<string>
    assert.strictEqual(why, reason)
    if (isNew) {
      assert.notInclude(seen, token, "a new one")
      seen.push(token)
    } else assert.strictEqual(token, seen.at(-1))
  })
  const regressions = (...all: ReadonlyArray<Ingestor>) =>
    all.reduce((sum, { status }) => sum + status.count(storeRegressions), 0)
  return { chain, node, server, start, snapshot, until, go, whole, expectEpoch, regressions, warnings }
})

const test = (title: string, body: Effect.Effect<unknown, unknown, never>) =>
  it.live(title, () => body.pipe(accelerated(hurry), Effect.provide(Layer.fresh(Logger.layer([])))), 60_000)

describe("a store that is restored to an older copy of its data", () => {
  for (const ingestors of [1, 2, 3]) {
    test(
      `begins one new epoch per restore under ${ingestors} ingestors, also from before an epoch [G-099]`,
      Effect.gen(function* () {
        const { expectEpoch, go, regressions, snapshot, start, warnings, whole } = yield* begin()
        const all: Array<Ingestor> = []
        for (let i = 0; i < ingestors; i++) all.push(yield* start)
        yield* go(6, ...all)
        yield* expectEpoch("begun", true)
        const bringBack = yield* snapshot
        for (let time = 1; time <= 3; time++) {
          yield* go(5, ...all)
          const before = regressions(...all)
          yield* expectEpoch(time === 1 ? "begun" : "lost", false)
          yield* bringBack
          yield* go(4, ...all)
          yield* expectEpoch("lost", true)
          assert.strictEqual(regressions(...all) - before, 1, "one of them said so")
          assert.match(
            warnings.join("\n"),
            /the store has lost entries: it stood at block \d+ and stands at \d+ now/,
          )
          yield* go(3, ...all)
          yield* expectEpoch("lost", false)
          yield* whole
        }
      }).pipe(Effect.scoped),
    )
  }

  test(
    "begins a new epoch also if a new ingestor writes first and another one restarts meanwhile [G-100]",
    Effect.gen(function* () {
      const { chain, expectEpoch, go, node, regressions, snapshot, start, whole } = yield* begin()
      const knows = yield* start
      const restarted = yield* start
      yield* go(6, knows, restarted)
      yield* expectEpoch("begun", true)
      const bringBack = yield* snapshot
      yield* go(5, knows, restarted)
      // No ingestor receives heads during the restore, and a new one writes first.
      node.up = false
      node.drop()
      yield* restarted.stop
      yield* bringBack
      const fresh = yield* start
      chain.extend(1)
      node.up = true
      yield* go(4, fresh, knows)
      yield* expectEpoch("lost", true)
      assert.strictEqual(regressions(knows), 1)
      assert.strictEqual(regressions(fresh), 0)
      yield* go(3, fresh, knows)
      yield* expectEpoch("lost", false)
      yield* whole
    }).pipe(Effect.scoped),
  )

  test(
    "begins a new epoch also if all entries were rewritten before the ingestor that can detect the loss writes [G-204]",
    Effect.gen(function* () {
      const { chain, expectEpoch, go, regressions, snapshot, start, until, whole } = yield* begin()
      const knows = yield* start
      yield* go(6, knows)
      yield* expectEpoch("begun", true)
      const bringBack = yield* snapshot
      yield* go(3, knows)
      yield* bringBack
      const fresh = yield* start
      yield* until("all of it is stored again", () => fresh.status.stored === chain.head.number)
      yield* fresh.stop
      yield* expectEpoch("begun", false)
      yield* go(1, knows)
      yield* expectEpoch("lost", true)
      assert.strictEqual(regressions(knows), 1)
      yield* whole
    }).pipe(Effect.scoped),
  )

  test(
    "begins no epoch without a loss: restarts, drops, reorgs, trimming, entries deleted by hand, slow replies [G-101]",
    Effect.gen(function* () {
      const { chain, expectEpoch, go, node, regressions, server, start, whole } = yield* begin()
      let one = yield* start
      const other = yield* start
      yield* go(6, one, other)
      yield* expectEpoch("begun", true)
      for (let i = 0; i < 4; i++) {
        yield* one.stop
        one = yield* start
        node.drop()
        chain.fork(2, 1, 2, 1)
        yield* go(3, one, other)
        yield* Effect.promise(() => server.client.call("CLIENT", "PAUSE", "30", "ALL"))
        yield* go(2, one, other)
      }
      yield* expectEpoch("begun", false)
      yield* whole
      const [[last = ""] = []] = yield* Effect.promise(() =>
        server.client.xrevrange("events:1", "+", "-", "COUNT", 1),
      )
      yield* Effect.promise(() => server.client.xdel("events:1", last))
      node.drop()
      yield* go(2, one, other)
      yield* Effect.promise(() => server.client.xtrim("events:1", "MAXLEN", 0))
      node.drop()
      yield* go(2, one, other)
      yield* expectEpoch("begun", false)
      assert.strictEqual(regressions(one, other), 0)
    }).pipe(Effect.scoped),
  )

  test(
    "is reported if it comes back empty, and not if it is reset [G-102]",
    Effect.gen(function* () {
      const { expectEpoch, go, regressions, server, start, warnings, whole } = yield* begin()
      const one = yield* start
      yield* go(4, one)
      yield* expectEpoch("begun", true)
      yield* Effect.promise(() => server.client.flushall())
      yield* go(3, one)
      yield* expectEpoch("begun", true)
      assert.strictEqual(regressions(one), 1)
      assert.match(
        warnings.join("\n"),
        /the store has lost entries: it stood at block \d+ and has nothing now/,
      )
      yield* whole
      const store = yield* openRedis(standalone(server.port), "events", 0)
      yield* store.reset(1, { from: 0, filter: "none", delete: true })
      yield* go(3, one)
      yield* expectEpoch("reset", true)
      assert.strictEqual(regressions(one), 1)
    }).pipe(Effect.scoped),
  )
})
