/** Slow consumer groups, named in `STREAM_GROUPS` and not, during a backfill into a real Redis. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import * as Monotonic from "../../src/Monotonic.ts"
import { unready } from "../../src/observability/Readiness.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { accelerated } from "../support/acceleratedClock.ts"
import { startIngestor, variablesFor } from "../support/ingestor.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"

const speedup = 20
const logs = 40_000
const perBlock = 100
const maxLength = 5000

/** A chain of 40 000 final logs, and a consumer group that has read none of them. */
const begin = Effect.fnUntraced(function* (groups: ReadonlyArray<string>) {
  const server = yield* RedisServer.start()
  yield* Effect.promise(() => server.client.xgroup("CREATE", "events:1", "slow", "0", "MKSTREAM"))
  const chain = new FakeChain({ id: 1, finality: 4 })
  chain.jump(...Array.from({ length: logs / perBlock }, () => perBlock), 0, 0, 0, 0)
  const backlog = maxLength * 4
  const store = yield* openRedis(
    standalone(server.port),
    "events",
    { maxLength, groups, backlog },
    `${5 * speedup} seconds`,
  )
  const variables = {
    ...variablesFor({ ethereum: [chain, "one"] }),
    STREAM_MAXLEN: String(maxLength),
    FINALITY_DEPTH: "4",
  }
  const { status } = yield* startIngestor(store, { one: new FakeNode(chain) }, variables)
  const length = Effect.promise(() => server.client.xlen("events:1"))
  const missed = Effect.promise(async () =>
    Number((await server.client.hget("{events:1}:missed", "group:slow")) ?? 0),
  )
  /** Reads all pending entries of the group, and returns each entry's height and log index. */
  const read = Effect.promise(async () => {
    const found: Array<readonly [number, number]> = []
    for (;;) {
      const answer = (await server.client.xreadgroup(
        "GROUP",
        "slow",
        "me",
        "COUNT",
        1000,
        "STREAMS",
        "events:1",
        ">",
      )) as ReadonlyArray<[string, ReadonlyArray<readonly [string, ReadonlyArray<string>]>]> | null
      const entries = answer?.[0]?.[1] ?? []
      if (entries.length === 0) return found
      for (const [, fields] of entries) {
        const field = (name: string) => Number(fields[fields.indexOf(name) + 1])
        found.push([field("block_number"), field("log_index")])
      }
      await server.client.xack("events:1", "slow", ...entries.map(([id]) => id))
    }
  })
  const until = Effect.fnUntraced(function* (what: string, holds: () => boolean) {
    for (let i = 0; i < 200 * speedup && !holds(); i++) yield* Effect.sleep("500 millis")
    assert.isTrue(holds(), what)
  })
  const reasons = Effect.map(Monotonic.millis, (now) => unready(status, now))
  return { chain, server, status, length, missed, read, reasons, until }
})

const test = (title: string, body: Effect.Effect<unknown, unknown, never>) =>
  it.live(title, () => body.pipe(accelerated(speedup), Effect.provide(Layer.fresh(Logger.layer([])))), 60_000)

describe("during a backfill, a slow consumer group", () => {
  test(
    "in STREAM_GROUPS pauses publishing, reads every entry in order, and about STREAM_MAXLEN remain [G-104]",
    Effect.gen(function* () {
      const { chain, length, missed, read, reasons, status, until } = yield* begin(["slow"])
      yield* until("publishing is paused", () => status.phase === "paused")
      const [reason = ""] = yield* reasons
      assert.match(
        reason,
        /^publishing is paused: group slow is \d+ entries behind.* XGROUP DESTROY events:1 slow$/,
      )
      assert.isBelow(yield* length, maxLength * 4 + maxLength / 5)
      const all: Array<readonly [number, number]> = []
      while (all.length < logs) {
        all.push(...(yield* read))
        yield* Effect.sleep("500 millis")
      }
      assert.deepStrictEqual(
        all,
        Array.from({ length: logs }, (_, i) => [Math.floor(i / perBlock) + 1, i % perBlock]),
      )
      yield* until("it is at the head", () => status.stored === chain.head.number)
      assert.deepStrictEqual(yield* reasons, [])
      yield* Effect.sleep("3 seconds")
      assert.isAtMost(yield* length, maxLength * 1.1)
      assert.strictEqual(yield* missed, 0)
    }).pipe(Effect.scoped),
  )

  test(
    "stops pausing publishing within two seconds after it is destroyed [G-105]",
    Effect.gen(function* () {
      const { chain, server, status, until } = yield* begin(["slow"])
      yield* until("publishing is paused", () => status.phase === "paused")
      const before = status.stored!
      yield* Effect.promise(() => server.client.xgroup("DESTROY", "events:1", "slow"))
      yield* Effect.sleep("2 seconds")
      assert.notStrictEqual(status.phase, "paused")
      yield* until("it continues", () => status.stored! > before)
      yield* until("it is at the head", () => status.stored === chain.head.number)
    }).pipe(Effect.scoped),
  )

  test(
    "outside STREAM_GROUPS misses trimmed entries, which are counted exactly [G-106]",
    Effect.gen(function* () {
      const { chain, length, missed, read, status, until } = yield* begin([])
      yield* until("it is at the head", () => status.stored === chain.head.number)
      yield* Effect.sleep("3 seconds")
      assert.isAtMost(yield* length, maxLength * 1.1)
      const kept = yield* read
      assert.strictEqual((yield* missed) + kept.length, logs)
      assert.isAbove(yield* missed, logs - maxLength * 1.1)
    }).pipe(Effect.scoped),
  )
})
