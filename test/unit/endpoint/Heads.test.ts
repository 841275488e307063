import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import * as Heads from "../../../src/endpoint/Heads.ts"
import type { HeadsOptions } from "../../../src/endpoint/Heads.ts"
import { blockTraces, mostLinks, Tracing } from "../../../src/observability/Tracing.ts"
import { silence } from "../../support/FakeNode.ts"
import { connected, endOf, soon } from "../../support/virtual.ts"
import type { World } from "../../support/virtual.ts"

/** Heads whose consumer records every received height. */
const listen = Effect.fnUntraced(function* ({ connection }: World, options: Partial<HeadsOptions> = {}) {
  const heads = yield* soon(
    Heads.make(connection, {
      stallTimeout: Duration.seconds(15),
      onHead: () => {},
      onQuiet: Effect.void,
      ...options,
    }),
  )
  const seen: Array<number> = []
  yield* heads.stream.pipe(
    Stream.runForEach(({ header }) => Effect.sync(() => seen.push(header.number))),
    Effect.forkScoped({ startImmediately: true }),
  )
  return { heads, seen }
})

describe("heads", () => {
  connected("start with the current head and continue with announcements", (world) =>
    Effect.gen(function* () {
      world.chain.extend(0, 0)
      const { seen } = yield* listen(world)
      assert.deepStrictEqual(seen, [2])
      world.chain.extend(1)
      yield* TestClock.adjust("1 second")
      world.chain.extend(1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen, [2, 3, 4])
    }),
  )

  connected("are coalesced to the highest and the newest while one is processed", (world) =>
    Effect.gen(function* () {
      const heads = yield* soon(
        Heads.make(world.connection, {
          stallTimeout: Duration.seconds(15),
          onHead: () => {},
          onQuiet: Effect.void,
        }),
      )
      const seen: Array<number> = []
      yield* heads.stream.pipe(
        Stream.runForEach(({ header }) =>
          Effect.andThen(
            Effect.sync(() => seen.push(header.number)),
            // Virtual time: the consumer is busy while more heads arrive.
            Effect.sleep("10 seconds"),
          ),
        ),
        Effect.forkScoped({ startImmediately: true }),
      )
      const { header: early } = world.chain.at(0)!
      world.chain.extend(0, 0, 0, 0)
      yield* TestClock.adjust("1 second")
      world.node.announce(early)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(seen, [0, 4, 0])
    }),
  )

  connected("end the traces of coalesced heads, and keep a bounded number of links", (world) =>
    Effect.gen(function* () {
      const spans: Array<Tracer.NativeSpan> = []
      const span = (options: ConstructorParameters<typeof Tracer.NativeSpan>[0]) => {
        const made = new Tracer.NativeSpan(options)
        spans.push(made)
        return made
      }
      const traces = yield* blockTraces({ name: "devnet", id: 31337 }).pipe(
        Effect.withTracer(Tracer.make({ span })),
        Effect.provideService(Tracing, true),
      )
      const heads = yield* soon(
        Heads.make(world.connection, {
          stallTimeout: Duration.seconds(15),
          onHead: () => {},
          onQuiet: Effect.void,
          traces,
        }),
      )
      const announced = 200
      for (let i = 0; i < announced; i++) {
        world.chain.extend(0)
        yield* TestClock.adjust("1 second")
      }
      const open = spans.filter(({ status }) => status._tag === "Started")
      assert.deepStrictEqual(open, spans.slice(-1 - mostLinks))
      for (const { status } of spans.slice(0, -1 - mostLinks)) {
        assert.isTrue(status._tag === "Ended" && status.exit._tag === "Success")
      }
      yield* soon(heads.stream.pipe(Stream.take(1), Stream.runDrain))
      assert.deepStrictEqual(
        spans.at(-1)!.links.map(({ span }) => span.spanId),
        open.slice(0, -1).map(({ spanId }) => spanId),
      )
      assert.deepStrictEqual(
        spans.filter(({ status }) => status._tag === "Started"),
        spans.slice(-1),
      )
    }),
  )

  connected("can be replayed and injected", (world) =>
    Effect.gen(function* () {
      const { heads, seen } = yield* listen(world)
      yield* heads.replay
      yield* TestClock.adjust(0)
      world.chain.rollback(0)
      yield* heads.inject({ ...world.chain.head, number: 77 })
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(seen, [0, 0, 77])
    }),
  )

  connected("end the connection if one is malformed", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      world.node.announce({ ...world.chain.head, hash: "0x12" })
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* endOf(world.connection))?.reason._tag, "Malformed")
    }),
  )

  connected("are coalesced at any rate while a node syncs", (world) =>
    Effect.gen(function* () {
      const { seen } = yield* listen(world)
      for (let i = 1; i <= 1200; i++) world.node.announce({ ...world.chain.head, number: i })
      yield* TestClock.adjust("1 second")
      assert.isUndefined(yield* endOf(world.connection))
      assert.strictEqual(seen.at(-1), 1200)
    }),
  )

  connected("end the connection at thousands of repeated heads per second", (world) =>
    Effect.gen(function* () {
      yield* listen(world)
      for (let i = 0; i < 10_000; i++) world.node.announce(world.chain.head)
      yield* TestClock.adjust("1 second")
      assert.match(
        (yield* endOf(world.connection))!.message,
        /more than \d+ heads per second that are not new/,
      )
    }),
  )
})

describe("the watchdog", () => {
  connected("keeps the connection of an idle chain that confirms its height", (world) =>
    Effect.gen(function* () {
      let quiet = 0
      const { seen } = yield* listen(world, { onQuiet: Effect.sync(() => quiet++) })
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
