/** The machine's wall clock changes while the service runs: durations are measured by the monotonic clock. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { AppConfig, fromVariables } from "../../src/config/AppConfig.ts"
import * as Report from "../../src/http/Report.ts"
import { Status } from "../../src/observability/Status.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { caughtUp, eventually, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import * as WallClock from "../support/wallClock.ts"

const hour = 3_600_000
const shifts = [-24 * hour, -hour, -600_000, -1000, 1000, 600_000, hour, 24 * hour]

const title = (millis: number) => `${millis > 0 ? "+" : ""}${millis / 1000} s`

const askedOf = ({ requests }: FakeNode) => [...requests.values()].reduce((sum, times) => sum + times, 0)

/** An ingestor of a chain of 20 blocks, with a wall clock that can be shifted. */
const caughtUpChain = Effect.fnUntraced(function* (variables: Record<string, string> = {}) {
  const chain = new FakeChain({ finality: 64 })
  const node = new FakeNode(chain)
  const wall = WallClock.make(yield* Clock.Clock)
  const store = yield* memoryStore()
  chain.extend(...Array.from({ length: 20 }, () => 2))
  const { status } = yield* startIngestor(
    store,
    { one: node },
    { ...variablesFor({ devnet: [chain, "one"] }), ...variables },
  ).pipe(Effect.provideService(Clock.Clock, wall.clock))
  yield* caughtUp(store, chain, status)
  return { chain, node, store, status, shift: wall.shift }
})

describe("a wall-clock change", () => {
  for (const by of shifts) {
    const set = title(by)
    it.effect(`of ${set} and back does not affect the rate limit [G-184]`, () =>
      Effect.gen(function* () {
        const { chain, node, store, status, shift } = yield* caughtUpChain({ RPC_RATE: "5" })
        const before = askedOf(node)
        shift(by)
        for (let i = 0; i < 10; i++) {
          chain.extend(3)
          yield* TestClock.adjust("2 seconds")
        }
        assert.isAtLeast(status.stored!, chain.head.number - 1)
        shift(0)
        for (let i = 0; i < 10; i++) {
          chain.extend(3)
          yield* TestClock.adjust("2 seconds")
        }
        yield* caughtUp(store, chain, status)
        assert.isAtMost(askedOf(node) - before, 40 * 5, "requests within the rate limit")
        assert.strictEqual(node.connections, 1)
      }),
    )

    it.effect(`of ${set} neither hides a stall nor causes one [G-185]`, () =>
      Effect.gen(function* () {
        const { chain, node, store, status, shift } = yield* caughtUpChain()
        shift(by)
        chain.extend(1)
        yield* TestClock.adjust("12 seconds")
        assert.strictEqual(node.connections, 1)
        assert.strictEqual(status.phase, "live")
        node.announces = false
        chain.extend(1)
        yield* eventually("the stall is detected", () => node.connections === 2, 120)
        node.announces = true
        yield* eventually("the missed blocks are stored", () => status.stored === chain.head.number, 60)
        yield* caughtUp(store, chain, status)
      }),
    )

    it.effect(`of ${set} does not lengthen a reconnect`, () =>
      Effect.gen(function* () {
        const { chain, node, status, shift } = yield* caughtUpChain()
        node.up = false
        node.drop()
        yield* eventually("the breaker is open", () => status.breakerState._tag === "Open", 60)
        shift(by)
        chain.extend(1)
        node.up = true
        yield* eventually("it is connected again", () => status.stored === chain.head.number, 75)
      }),
    )

    it.effect(`of ${set} changes no reported age, lag or uptime`, () =>
      Effect.gen(function* () {
        const chain = new FakeChain()
        const wall = WallClock.make(yield* Clock.Clock)
        const config = yield* fromVariables(variablesFor({ devnet: [chain, "one"] }))
        const layer = Status.layer.pipe(Layer.provide(Layer.succeed(AppConfig, config)))
        const now = Effect.provideService(Report.now, Clock.Clock, wall.clock)
        const built = Layer.build(layer).pipe(Effect.provideService(Clock.Clock, wall.clock))
        const status = Context.get(yield* built, Status)
        const one = status.chains[0]!
        yield* TestClock.adjust("90 seconds")
        one.headAnnounced({ number: 1, timestamp: 90 }, 90_000, 12_000)
        one.enter("live")
        one.recordFailure("connection", "it was cut")
        yield* TestClock.adjust("10 seconds")
        wall.shift(by)
        const report = Report.statusReport(status, yield* now, undefined)
        assert.strictEqual(report.uptime_s, 100)
        const [{ head_age_s, lag_s, since, failures } = assert.fail("no chain")] = report.chains
        assert.deepStrictEqual([head_age_s, lag_s], [10, 100])
        assert.strictEqual(Date.parse(report.at) - Date.parse(since), 10_000)
        assert.deepStrictEqual(
          failures.map(({ at }) => Date.parse(at)),
          [90_000],
        )
        const ready = Report.readyReport(
          status,
          { chain: undefined, processOnly: false },
          (yield* now).monotonic,
          undefined,
        )
        assert.notInclude(JSON.stringify(ready), "no head for")
      }),
    )
  }
})
