/** Several endpoints of one chain, tested through the service: selection, failover without loss, failback. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode, Refused, silence } from "../../support/FakeNode.ts"
import {
  caughtUp,
  eventually,
  extendInTime,
  memoryStore,
  startIngestor,
  variablesFor,
} from "../../support/ingestor.ts"
import type { Client, Ingestor } from "../../support/ingestor.ts"
import { replayOf } from "../../support/oracle.ts"

interface World {
  readonly chain: FakeChain
  readonly one: FakeNode
  readonly two: FakeNode
  /** Reachable over HTTP only, and only if configured. */
  readonly http: FakeNode
  readonly store: Client
  readonly start: (variables?: Record<string, string>) => Effect.Effect<Ingestor, unknown, Scope.Scope>
}

const blockTime = 4

/** A chain with a block every four seconds, and two nodes of it in order of preference. */
const scenario = (title: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 16, blockTime })
      const [one, two, http] = [new FakeNode(chain), new FakeNode(chain), new FakeNode(chain)]
      const store = yield* memoryStore()
      const start = (variables = {}) =>
        startIngestor(
          store,
          { one, two, http },
          { ...variablesFor({ devnet: [chain, "one,two"] }), ...variables },
        )
      yield* body({ chain, one, two, http, store, start })
    }),
  )

describe("failover", () => {
  scenario(
    "uses the first endpoint, and keeps the second one connected on standby",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start({ AUDIT: "off" })
        yield* extendInTime(chain, 20)
        yield* caughtUp(store, chain, status)
        assert.strictEqual(status.endpoint, status.endpoints[0])
        assert.strictEqual(two.sessions.size, 1)
        assert.strictEqual(two.timesAsked("eth_getLogs"), 0)
        assert.strictEqual(two.timesAsked("eth_subscribe"), 0)
        assert.strictEqual(one.connections + two.connections, 2)
      }),
  )

  scenario("fails over at once when the connection is lost", ({ chain, one, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start()
      yield* extendInTime(chain, 5)
      one.up = false
      one.drop()
      chain.extend(2)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(status.endpoint, status.endpoints[1])
      assert.strictEqual(status.stored, chain.head.number)
    }),
  )

  scenario(
    "fails over when newHeads stop, within half a block time and two seconds [G-003]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        yield* extendInTime(chain, 10)
        one.announces = false
        chain.extend(3)
        yield* TestClock.adjust(`${blockTime / 2 + 2} seconds`)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        assert.strictEqual(status.stored, chain.head.number)
        assert.match(status.failures[0]!.text, /stall|no head/)
        assert.strictEqual(status.errors.stalled, 1)
        yield* extendInTime(chain, 5)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario("does not fail over when every endpoint is idle [G-004]", ({ chain, one, two, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start()
      yield* extendInTime(chain, 10)
      yield* TestClock.adjust("20 minutes")
      assert.strictEqual(one.connections + two.connections, 2)
      assert.strictEqual(status.phase, "idle")
      assert.strictEqual(status.breakerState._tag, "Closed")
      // Probes become rarer, not more frequent.
      assert.isBelow(two.timesAsked("eth_blockNumber"), (20 * 60) / 5)
      yield* extendInTime(chain, 3)
      yield* caughtUp(store, chain, status)
      assert.strictEqual(status.endpoint, status.endpoints[0])
    }),
  )

  scenario(
    "fails over from an endpoint that announces heads but lags behind the others",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        yield* extendInTime(chain, 20)
        one.lag = 6
        yield* extendInTime(chain, 8)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        yield* caughtUp(store, chain, status)
        assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
      }),
  )

  scenario("tolerates a lag of a few blocks", ({ chain, one, two, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start()
      yield* extendInTime(chain, 10)
      one.lag = 2
      yield* extendInTime(chain, 30)
      assert.strictEqual(status.endpoint, status.endpoints[0])
      assert.strictEqual(one.connections + two.connections, 2)
    }),
  )

  scenario(
    "to an endpoint that lags by five blocks waits for it, and retracts no log [G-005]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        yield* extendInTime(chain, 20)
        two.lag = 5
        one.up = false
        one.drop()
        yield* extendInTime(chain, 4)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
        two.lag = 0
        yield* extendInTime(chain, 1)
        yield* caughtUp(store, chain, status)
        assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
      }),
  )

  scenario("skips a lagging endpoint when a better one is connected", ({ chain, one, two, http, store }) =>
    Effect.gen(function* () {
      const three = http
      const variables = variablesFor({ devnet: [chain, "one,two,three"] })
      const { status } = yield* startIngestor(store, { one, two, three }, variables)
      yield* extendInTime(chain, 20)
      two.lag = 8
      one.up = false
      one.drop()
      yield* extendInTime(chain, 2)
      assert.strictEqual(status.endpoint, status.endpoints[2])
      yield* caughtUp(store, chain, status)
      assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
    }),
  )

  scenario(
    "does not fail back to an endpoint whose connection ended during the probe [G-061]",
    ({ chain, one, two, http, store }) =>
      Effect.gen(function* () {
        const three = http
        one.up = two.up = false
        const variables = variablesFor({ devnet: [chain, "one,two,three"] })
        const { status } = yield* startIngestor(store, { one, two, three }, { ...variables, AUDIT: "off" })
        yield* extendInTime(chain, 2)
        one.up = two.up = true
        yield* eventually("both are connected", () => one.sessions.size + two.sessions.size === 2, 120)
        assert.strictEqual(status.endpoint, status.endpoints[2])
        // A probe of both endpoints waits for the second one; the first one disconnects after its response.
        let answers = 0
        two.intercept = (method, _params, proceed) => (method === "eth_blockNumber" ? silence : proceed())
        one.intercept = (method, _params, proceed) => {
          if (method === "eth_blockNumber") answers++
          return proceed()
        }
        // Each comparison queries all endpoints once; a failback queries the preferred ones a second time.
        let last = 0
        let apart = Infinity
        for (let i = 0; apart > 10 && i < 4000; i++) {
          if (i % 16 === 0) chain.extend(1)
          const before = answers
          yield* TestClock.adjust("250 millis")
          if (answers === before) continue
          apart = last === 0 ? Infinity : i - last
          last = i
        }
        assert.isAtMost(apart, 10)
        one.up = false
        one.drop()
        yield* extendInTime(chain, 10)
        yield* caughtUp(store, chain, status)
        assert.notStrictEqual(status.endpoint, status.endpoints[0])
      }),
  )

  scenario(
    "resets the failure count of a standby endpoint once its connection is stable [G-069]",
    ({ chain, two, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        yield* extendInTime(chain, 5)
        for (let i = 0; i < 3; i++) {
          two.drop()
          yield* extendInTime(chain, 20)
        }
        assert.deepInclude(status.endpoints[1]!.breakerState, { _tag: "HalfOpen", failures: 3 })
        // The failback delay is a minute and doubles with each failure.
        yield* extendInTime(chain, (6 * 60) / blockTime)
        assert.deepInclude(status.endpoints[1]!.breakerState, { _tag: "HalfOpen" })
        yield* extendInTime(chain, (3 * 60) / blockTime)
        assert.deepInclude(status.endpoints[1]!.breakerState, { _tag: "Closed", failures: 0 })
      }),
  )

  scenario(
    "fails back to the preferred endpoint once its connection is stable, without a gap",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        yield* extendInTime(chain, 5)
        one.up = false
        one.drop()
        yield* extendInTime(chain, 1)
        one.up = true
        yield* extendInTime(chain, 50)
        assert.strictEqual(status.endpoint, status.endpoints[1], "two failures: four minutes are not over")
        yield* extendInTime(chain, 20)
        assert.strictEqual(status.endpoint, status.endpoints[0])
        yield* caughtUp(store, chain, status)
        assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
      }),
  )

  scenario(
    "does not fail back to an endpoint that flaps or lags [G-006]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        yield* extendInTime(chain, 5)
        for (let i = 0; i < 20; i++) {
          one.drop()
          yield* extendInTime(chain, 8)
          if (i > 0) assert.strictEqual(status.endpoint, status.endpoints[1], `after ${i} drops`)
        }
        one.lag = 9
        yield* extendInTime(chain, 600)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        assert.strictEqual(two.connections, 1)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario("never gives up the last endpoint", ({ chain, one, two, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start()
      two.up = false
      two.drop()
      one.lag = 9
      yield* extendInTime(chain, 30)
      assert.strictEqual(status.endpoint, status.endpoints[0])
      assert.strictEqual(status.stored, chain.head.number - 9)
      one.up = false
      one.drop()
      yield* TestClock.adjust("1 hour")
      one.lag = 0
      one.up = true
      yield* eventually("connected again", () => one.sessions.size === 1, 80)
      yield* extendInTime(chain, 2)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario("retries refused methods every hour", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      let refuses = true
      one.intercept = (method, params, proceed) => {
        if (refuses && (method === "eth_getLogs" || params[0] === "finalized"))
          throw new Refused(-32701, "Please specify an address in your request")
        return proceed()
      }
      const { status } = yield* start({ DEVNET_WS_URL: "ws://one" })
      yield* extendInTime(chain, 3)
      const known = () => status.endpoints[0]!.capabilities!
      assert.isTrue(known().refused.has("eth_getLogs"))
      yield* TestClock.adjust("30 seconds")
      assert.isFalse(known().finalizedTag)
      const before = one.timesAsked("eth_getLogs")
      yield* extendInTime(chain, 30)
      assert.strictEqual(one.timesAsked("eth_getLogs"), before)
      yield* TestClock.adjust("1 hour")
      yield* extendInTime(chain, 3)
      assert.strictEqual(one.timesAsked("eth_getLogs"), before + 2, "retried, and refused for two blocks")
      refuses = false
      yield* TestClock.adjust("1 hour")
      yield* extendInTime(chain, 5)
      assert.strictEqual(known().refused.size, 0)
      assert.isTrue(known().finalizedTag)
      assert.isAtLeast(one.timesAsked("eth_getLogs"), before + 7)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario("fails over from an endpoint that refuses required methods", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start()
      yield* extendInTime(chain, 3)
      one.intercept = (method, _params, proceed) => {
        if (/Logs|Receipt/.test(method))
          throw new Refused(-32000, "Archive requests require a personal token")
        return proceed()
      }
      yield* extendInTime(chain, 2)
      assert.strictEqual(status.endpoint, status.endpoints[1])
      assert.isAbove(status.errors.rejected, 0)
      yield* caughtUp(store, chain, status)
    }),
  )
})

describe("an HTTP endpoint", () => {
  const withHttp = { DEVNET_RPC_URL: "http://http" }
  const long = Array.from({ length: 400 }, (_, i) => i % 4)

  scenario(
    "serves backfills, so that the WebSocket is free for heads",
    ({ chain, one, http, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...long)
        const { status } = yield* start(withHttp)
        yield* extendInTime(chain, 3)
        yield* caughtUp(store, chain, status)
        assert.isAbove(http.timesAsked("eth_getLogs"), 0)
        const ranges = one.timesAsked("eth_getLogs")
        assert.isBelow(ranges, 25, "the WebSocket serves unfinalized blocks only")
        assert.strictEqual(status.endpoints[2]!.name, "http:80")
        assert.strictEqual(status.endpoints[2]!.breakerState._tag, "Closed")
      }),
  )

  scenario(
    "falls back to the WebSocket when it is down, silent or of another chain",
    ({ chain, http, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...long)
        http.up = false
        const down = yield* start(withHttp)
        yield* caughtUp(store, chain, down.status)
        yield* down.stop
        const all = { from: undefined, filter: "none", delete: true }
        yield* store.reset(chain.id, all)
        http.up = true
        http.intercept = (method, _params, proceed) => (method === "eth_chainId" ? "0x5" : proceed())
        const foreign = yield* start(withHttp)
        yield* caughtUp(store, chain, foreign.status)
        assert.strictEqual(foreign.status.errors.wrong_chain, 1)
        yield* foreign.stop
        yield* store.reset(chain.id, all)
        http.intercept = (method, _params, proceed) => (method === "eth_getLogs" ? silence : proceed())
        const silent = yield* start(withHttp)
        yield* caughtUp(store, chain, silent.status)
      }),
  )

  scenario("with incomplete responses is disconnected, and loses no log", ({ chain, http, store, start }) =>
    Effect.gen(function* () {
      chain.extend(...long)
      http.intercept = (_method, _params, proceed) => {
        const answer = proceed()
        // Block 3 lacks its first log.
        return Array.isArray(answer)
          ? answer.filter(({ blockNumber, logIndex }) => blockNumber !== "0x3" || logIndex !== "0x0")
          : answer
      }
      const { status } = yield* start(withHttp)
      yield* caughtUp(store, chain, status)
      assert.isAbove(status.errors.unverified, 0)
      assert.isBelow(http.timesAsked("eth_getLogs"), 30)
    }),
  )

  scenario(
    "serves blocks for a WebSocket endpoint that refuses logs without an address",
    ({ chain, one, http, store, start }) =>
      Effect.gen(function* () {
        one.intercept = (method, params, proceed) => {
          if (/Receipt/.test(method)) throw new Refused(-32601, "the method does not exist")
          if (method === "eth_getLogs" && !JSON.stringify(params).includes("address"))
            throw new Refused(
              -32701,
              "Please specify an address in your request or, to remove restrictions, order a dedicated full node",
            )
          return proceed()
        }
        const { status } = yield* start({ ...withHttp, DEVNET_WS_URL: "ws://one" })
        yield* extendInTime(chain, 10)
        yield* caughtUp(store, chain, status)
        assert.isAbove(http.timesAsked("eth_getLogs"), 5)
      }),
  )

  scenario("closes its breaker when it serves an audit", ({ chain, http, store, start }) =>
    Effect.gen(function* () {
      http.up = false
      const { status } = yield* start({ DEVNET_RPC_URL: "http://http" })
      const failures = () => status.endpoints[2]!.breakerState.failures
      yield* extendInTime(chain, 5)
      assert.isAbove(failures(), 2)
      http.up = true
      yield* eventually("it is connected", () => status.endpoints[2]!.connects > 0, 120)
      yield* extendInTime(chain, (40 * 60) / blockTime)
      assert.strictEqual(failures(), 0)
      yield* caughtUp(store, chain, status)
    }),
  )

  for (const [title, answer] of [
    ["503 with Retry-After", { status: 503, headers: { "retry-after": "5" }, text: "" }],
    ["503 with a text", { status: 503, headers: {}, text: "slow down, please" }],
    ["429 with an HTML page", { status: 429, headers: {}, text: "<html><body>timed out</body></html>" }],
    [
      "403 with a gateway's JSON",
      { status: 403, headers: {}, text: '{"message":"API rate limit exceeded"}' },
    ],
  ] as const) {
    scenario(`is throttled by ${title}, over the same connection`, ({ chain, http, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start({ ...withHttp, RPC_RATE: "40" })
        yield* extendInTime(chain, 1)
        const endpoint = status.endpoints[2]!
        assert.strictEqual(endpoint.connects, 1)
        http.http = answer
        chain.extend(...long)
        yield* eventually("the rate is halved", () => endpoint.rateLimiter!.rate() <= 20, 120)
        http.http = { status: 200, headers: {} }
        yield* TestClock.adjust("20 seconds")
        yield* caughtUp(store, chain, status)
        assert.strictEqual(endpoint.connects, 1)
      }),
    )
  }

  scenario("is throttled by 429, and respects Retry-After", ({ chain, http, store, start }) =>
    Effect.gen(function* () {
      chain.extend(...long)
      http.http = { status: 429, headers: { "retry-after": "20" } }
      const { status } = yield* start(withHttp)
      yield* TestClock.adjust("1 second")
      const before = http.timesAsked("eth_chainId")
      yield* TestClock.adjust("18 seconds")
      assert.strictEqual(http.timesAsked("eth_chainId"), before)
      http.http = { status: 200, headers: {} }
      yield* caughtUp(store, chain, status)
    }),
  )
})
