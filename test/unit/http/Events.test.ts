/** `/events` as programs read it: up to ten readers, without end, and at a bounded cost. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { AppConfig, fromVariables } from "../../../src/config/AppConfig.ts"
import { SseTiming } from "../../../src/http/Events.ts"
import * as Server from "../../../src/http/Server.ts"
import { Status } from "../../../src/observability/Status.ts"
import { block } from "../../support/blocks.ts"
import { readEvents } from "../../support/events.ts"
import { fetchFrom } from "../../support/http.ts"
import { freePort } from "../../support/RedisServer.ts"

type World = Status["Service"]

/** The routes of a process with these chains, whose status never changes by itself. */
const serve = Effect.fnUntraced(function* (
  options: {
    readonly chains?: ReadonlyArray<string>
    readonly token?: string
    readonly onEvent?: (status: World) => void
    readonly pace?: Context.Service.Shape<typeof SseTiming>
  } = {},
) {
  const port = yield* freePort
  const chains = options.chains ?? ["devnet"]
  const config = yield* fromVariables({
    CHAINS: chains.join(","),
    HTTP_PORT: String(port),
    METRICS_TOKEN: options.token,
    ...Object.fromEntries(
      chains.flatMap((name, i) => [
        [`${name.toUpperCase()}_CHAIN_ID`, String(500 + i)],
        [`${name.toUpperCase()}_WS_URL`, "ws://127.0.0.1:1"],
      ]),
    ),
  })
  const watched = Layer.effect(
    Status,
    Effect.map(Status, (status) => ({
      ...status,
      // Each event reads this property once.
      get store() {
        options.onEvent?.(status)
        return status.store
      },
    })),
  ).pipe(Layer.provide(Status.layer))
  const routes = Server.layer.pipe(
    Layer.provideMerge(watched),
    Layer.provide(Layer.succeed(AppConfig, config)),
    Layer.provide(options.pace ? Layer.succeed(SseTiming, options.pace) : Layer.empty),
    Layer.fresh,
  )
  return { port, status: Context.get(yield* Layer.build(routes), Status) }
})

const live = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body))

describe("/events", () => {
  live(
    "starts with the curves, continues with the status, and sends each entry once",
    Effect.gen(function* () {
      const { port, status } = yield* serve()
      const { tail } = status.chains[0]!
      tail.pushed([{ ...block(1, "main", 2), whole: true }])
      const reader = yield* readEvents(port)
      assert.deepInclude(reader.headers, { "content-type": "text/event-stream", "cache-control": "no-store" })
      const entries = (seq: number) =>
        Effect.map(
          reader.sees(({ name, data }) => name === "entries" && data["devnet"]["seq"] === seq),
          ({ data }) => (data["devnet"]["rows"] as ReadonlyArray<{ seq: number }>).map(({ seq }) => seq),
        )
      assert.deepStrictEqual(yield* entries(2), [1, 2])
      tail.pushed([{ ...block(2, "main", 1), whole: true }])
      assert.deepStrictEqual(yield* entries(3), [3])
      assert.deepStrictEqual(
        reader.events.slice(0, 4).map(({ name }) => name),
        ["", "history", "status", "entries"],
      )
      const report = yield* reader.sees(({ name }) => name === "status")
      assert.deepInclude(report.data["chains"][0], { name: "devnet", phase: "connecting" })
    }),
  )

  live(
    "sends up to a hundred entries of a block, and keeps only ten while there is no reader",
    Effect.gen(function* () {
      const { port, status } = yield* serve()
      const { tail } = status.chains[0]!
      const push = (number: number) => tail.pushed([{ ...block(number, "main", 150), whole: true }])
      const kept = () => tail.after(0).map(({ seq }) => seq)
      push(1)
      assert.deepStrictEqual([kept().length, kept()[0]], [10, 141])
      const reader = yield* readEvents(port)
      yield* reader.sees(({ name }) => name === "entries")
      push(2)
      const sent = yield* reader.sees(({ name, data }) => name === "entries" && data["devnet"]["seq"] === 300)
      assert.lengthOf(sent.data["devnet"]["rows"], 100)
      reader.leave()
      yield* Effect.repeat(
        Effect.sync(() => tail.readers),
        { until: (readers) => readers === 0, schedule: Schedule.spaced("5 millis") },
      )
      push(3)
      assert.deepStrictEqual([kept().length, kept()[0]], [10, 441])
    }),
  )

  live(
    "serves ten readers and rejects the eleventh at once, until one disconnects",
    Effect.gen(function* () {
      const { port } = yield* serve()
      const readers = yield* Effect.forEach(Array.from({ length: 10 }), () => readEvents(port), {
        concurrency: "unbounded",
      })
      assert.deepStrictEqual(new Set(readers.map(({ status }) => status)), new Set([200]))
      for (const method of ["GET", "HEAD"]) {
        const { status, headers } = yield* fetchFrom(port, "/events", { method })
        assert.deepStrictEqual([status, headers["retry-after"]], [503, "10"])
      }
      assert.strictEqual((yield* fetchFrom(port, "/status")).status, 200)
      readers[4]!.leave()
      const next = yield* Effect.repeat(readEvents(port), { until: ({ status }) => status === 200 })
      yield* next.sees(({ name }) => name === "status")
      assert.strictEqual((yield* fetchFrom(port, "/events")).status, 503)
      // The other readers are not affected.
      for (const [i, reader] of readers.entries()) {
        if (i !== 4) yield* reader.sees(({ name }) => name === "status")
      }
    }),
  )

  live(
    "uses no slot for HEAD, and requires the token",
    Effect.gen(function* () {
      const { port } = yield* serve({ token: "t0ken" })
      assert.strictEqual((yield* fetchFrom(port, "/events")).status, 401)
      const basic = `Basic ${Buffer.from("me:t0ken").toString("base64")}`
      for (let i = 0; i < 20; i++) {
        const headers = { authorization: i % 2 === 0 ? basic : "Bearer t0ken" }
        const { status, text } = yield* fetchFrom(port, "/events", { method: "HEAD", headers })
        assert.deepStrictEqual([status, text], [200, ""])
      }
      for (const authorization of [basic, "Bearer t0ken"]) {
        const reader = yield* readEvents(port, { authorization })
        yield* reader.sees(({ name }) => name === "status")
      }
    }),
  )

  it.effect("continues beyond the response timeout", () =>
    Effect.gen(function* () {
      const { port } = yield* serve()
      const reader = yield* readEvents(port)
      for (let second = 1; second <= 90; second++) {
        yield* reader.sees(() => reader.events.filter(({ name }) => name === "status").length === second)
        yield* TestClock.adjust("1 second")
      }
    }),
  )

  live(
    "buffers nothing for a slow reader, which misses events, and disconnects one that stops reading",
    Effect.gen(function* () {
      let made = 0
      const chains = Array.from({ length: 10 }, (_, i) => `chain${i}`)
      const full = { ...block(1, "main", 100), whole: true }
      const { port } = yield* serve({
        chains,
        pace: { every: Duration.millis(1), stuckAfter: Duration.seconds(1) },
        // Every event has the maximum size.
        onEvent: (status) => {
          made++
          for (const { tail } of status.chains) tail.pushed([full])
        },
      })
      const reader = yield* readEvents(port)
      yield* reader.sees(({ name }) => name === "entries")
      reader.pause()
      // Its slot is free again, and so are those of nine more readers like it.
      for (let i = 0; i < 9; i++) (yield* readEvents(port)).pause()
      assert.strictEqual((yield* fetchFrom(port, "/events")).status, 503)
      yield* Effect.repeat(fetchFrom(port, "/events", { method: "HEAD" }), {
        until: ({ status }) => status === 200,
        schedule: Schedule.spaced("20 millis"),
      })
      const before = made
      reader.resume()
      yield* reader.gone
      const size = reader.bytes() / reader.events.filter(({ name }) => name === "entries").length
      assert.isAbove(size, 300_000)
      // Only what fits into the socket buffers was rendered, not an event per millisecond for a second.
      assert.isBelow((before / 10) * size, 24 * 1024 * 1024)
    }),
  )
})
