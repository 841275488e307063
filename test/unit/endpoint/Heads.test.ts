import { assert, describe } from "@effect/vitest"
import { Effect, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import * as Heads from "../../../src/endpoint/Heads.ts"
import { blockTraces, mostLinks, Tracing } from "../../../src/Tracing.ts"
import type { BlockTraces } from "../../../src/Tracing.ts"
import { connected, endOf, soon } from "../../support/virtual.ts"
import type { World } from "../../support/virtual.ts"

/** Heads that are subscribed to. */
const subscribed = Effect.fnUntraced(function* ({ connection }: World, traces?: BlockTraces) {
  const heads = yield* Heads.make(connection, { traces, onHead: () => {} })
  yield* soon(heads.subscribe)
  return heads
})

/** Heads whose consumer records every received height. */
const listen = Effect.fnUntraced(function* (world: World) {
  const heads = yield* subscribed(world)
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
      const heads = yield* subscribed(world)
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
      const heads = yield* subscribed(world, traces)
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
