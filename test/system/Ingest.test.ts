import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Stream } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Monotonic from "../../src/Monotonic.ts"
import { mostRecorded } from "../../src/chain/Finality.ts"
import { digestOfPart } from "../../src/store/Pushes.ts"
import type { Push } from "../../src/store/Journal.ts"
import { newerJournal } from "../../src/store/StoreError.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode, Raw, Refused } from "../support/FakeNode.ts"
import type { Intercept } from "../support/FakeNode.ts"
import { around, failing, failure } from "../support/faultyStore.ts"
import {
  caughtUp,
  eventually,
  memoryStore,
  startIngestor,
  switching,
  variablesFor,
} from "../support/ingestor.ts"
import { assertComplete, replayOf } from "../support/oracle.ts"
import type { Client, Ingestor } from "../support/ingestor.ts"
import { eventsDeduplicated, eventsPublished } from "../../src/observability/ChainMetrics.ts"

interface Scenario {
  readonly chain: FakeChain
  readonly node: FakeNode
  readonly store: Client
  readonly start: (variables?: Record<string, string>) => Effect.Effect<Ingestor, unknown, Scope.Scope>
}

/** One chain, one node, one store. */
const scenario = (
  title: string,
  body: (scenario: Scenario) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options = {},
) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 16, ...options })
      const node = new FakeNode(chain)
      const store = yield* memoryStore()
      const start = (variables = {}) =>
        startIngestor(store, { one: node }, { ...variablesFor({ devnet: [chain, "one"] }), ...variables })
      yield* body({ chain, node, store, start })
    }),
  )

const logCounts = (count: number) => Array.from({ length: count }, (_, i) => (i * 7) % 5)

/** An ingestor that has stored a chain of this many blocks. */
const caughtUpIngestor = Effect.fnUntraced(function* (
  { chain, store, start }: Pick<Scenario, "chain" | "store" | "start">,
  blocks: number,
) {
  chain.extend(...logCounts(blocks))
  const ingestor = yield* start()
  yield* caughtUp(store, chain, ingestor.status)
  return ingestor
})

describe("the service", () => {
  scenario("backfills from the start block, then follows live", ({ chain, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* caughtUpIngestor({ chain, store, start }, 200)
      for (let i = 0; i < 20; i++) {
        chain.extend(i % 4)
        yield* TestClock.adjust("12 seconds")
      }
      const replay = yield* caughtUp(store, chain, status)
      assert.strictEqual(replay.removed, 0)
      assert.strictEqual(status.phase, "live")
      assert.isBelow(status.lag(yield* Monotonic.millis), 13_000)
      assert.strictEqual(status.count(eventsPublished), replay.entries)
      // Blocks are finalized once a minute, which is five blocks.
      assert.isAtLeast(status.final!, chain.final.number - 5)
    }),
  )

  scenario(
    "caps the reorg window at 50,000 blocks when finality stalls",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        chain.jump(...Array.from({ length: 50_050 }, () => 1))
        const { status } = yield* start()
        yield* eventually("it is stored", () => status.stored === chain.head.number, 600)
        yield* eventually("the oldest count as final", () => status.final === 51)
        assert.strictEqual((yield* store.load(chain.id))!.window.length, mostRecorded - 1)
        // The remaining window still rolls back.
        chain.fork(40, 2, ...logCounts(40))
        yield* eventually("a reorg is followed", () => status.stored === chain.head.number, 60)
        assert.strictEqual(status.phase, "live")
      }),
    { finality: 1_000_000 },
  )

  scenario(
    "begins at the latest block with START_BLOCK=latest, and resumes from the journal later",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...logCounts(50))
        const first = yield* start({ START_BLOCK: "latest" })
        yield* caughtUp(store, chain, first.status, 50)
        yield* first.stop
        chain.extend(...logCounts(40))
        const second = yield* start({ START_BLOCK: "latest" })
        yield* caughtUp(store, chain, second.status, 50)
        assert.strictEqual((yield* store.load(chain.id))!.start.number, 50)
      }),
  )

  scenario("frees a block's logs once stored", ({ chain, store, start }) =>
    Effect.gen(function* () {
      chain.extend(...logCounts(20))
      const first = yield* start()
      yield* caughtUp(store, chain, first.status)
      yield* first.stop
      const moves: Array<Push> = []
      const watched = failing(store, ({ push }) => {
        if (push === undefined) return undefined
        moves.push(push)
        assert.isAbove(push.blocks[0].logs.length, 0)
        return undefined
      })
      const node = new FakeNode(chain)
      const { status } = yield* startIngestor(
        watched,
        { one: node },
        variablesFor({ devnet: [chain, "one"] }),
      )
      for (let i = 0; i < 5; i++) {
        chain.extend(3)
        yield* caughtUp(store, chain, status)
      }
      assert.lengthOf(moves, 5)
      for (const { blocks } of moves) assert.isTrue(blocks.every(({ logs }) => logs.length === 0))
      assert.deepStrictEqual(
        status.tail.after(0).map(({ seq }) => seq),
        [6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
      )
    }),
  )

  scenario(
    "stores the chain again from its first start block when the store is emptied",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...logCounts(50))
        const { status } = yield* start({ START_BLOCK: "latest" })
        yield* caughtUp(store, chain, status, 50)
        for (let i = 0; i < 2; i++) {
          chain.extend(...logCounts(10))
          yield* caughtUp(store, chain, status, 50)
          yield* store.reset(chain.id, { from: undefined, filter: "none", delete: true })
          chain.extend(3)
          yield* caughtUp(store, chain, status, 50)
        }
      }),
  )

  scenario("waits until the chain reaches its start block", ({ chain, store, start }) =>
    Effect.gen(function* () {
      chain.extend(1, 1)
      const { status } = yield* start({ START_BLOCK: "5" })
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(yield* store.load(chain.id))
      chain.extend(1, 1, 2, 3)
      yield* caughtUp(store, chain, status, 5)
    }),
  )

  scenario(
    "follows forks, jumps, and repeated or late heads [G-007 G-075]",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* caughtUpIngestor({ chain, store, start }, 30)
        for (let i = 1; i <= 12; i++) {
          const before = chain.head
          chain.fork(i % 8, ...logCounts((i % 8) + 1 + (i % 3)))
          yield* TestClock.adjust(`${i % 3} seconds`)
          node.announce(before)
          node.announce(chain.head)
          node.announce(chain.head)
          yield* TestClock.adjust("1 second")
        }
        const replay = yield* caughtUp(store, chain, status)
        assert.isAbove(replay.removed, 10)
        assert.isAbove(status.reorgs, 5)
        assert.isAtMost(status.deepestReorg, 8)
      }),
  )

  scenario("fills gaps when heads are missed", ({ chain, node, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start()
      yield* caughtUp(store, chain, status)
      node.announces = false
      chain.extend(1, 2, 3)
      node.announces = true
      chain.extend(4)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario(
    "switches to an equal-height fork after 3 s when no endpoint serves ours [G-076]",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        yield* caughtUpIngestor({ chain, store, start }, 20)
        chain.fork(3, 2, 2, 2)
        yield* TestClock.adjust("2500 millis")
        assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
        yield* TestClock.adjust("2 seconds")
        yield* assertComplete(store, chain)
      }),
  )

  scenario(
    "recovers from a silent rollback once the chain outgrows the stored head",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* caughtUpIngestor({ chain, store, start }, 20)
        chain.rollback(5)
        for (let i = 0; i < 6; i++) {
          chain.extend(2)
          yield* TestClock.adjust("500 millis")
        }
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario(
    "never retracts a log of a reorg that is shallower than CONFIRMATIONS",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...logCounts(20))
        const { status } = yield* start({ CONFIRMATIONS: "4" })
        for (let i = 0; i < 10; i++) {
          chain.fork(i % 4, ...logCounts((i % 4) + 2))
          yield* TestClock.adjust("5 seconds")
        }
        yield* eventually("stored up to 4 below the head", () => status.stored === chain.head.number - 4)
        const replay = yield* replayOf(store, chain.id)
        assert.strictEqual(replay.removed, 0)
        assert.deepStrictEqual(
          replay.blocks.map(({ hash }) => hash),
          chain
            .blocks(0, chain.head.number - 4)
            .filter(({ logs }) => logs.length > 0)
            .map(({ hash }) => hash as string),
        )
      }),
  )

  scenario("stores up to the final block with CONFIRMATIONS=finalized", ({ chain, store, start }) =>
    Effect.gen(function* () {
      chain.extend(...logCounts(40))
      const { status } = yield* start({ CONFIRMATIONS: "finalized" })
      yield* eventually("stored up to the final block", () => status.stored === chain.final.number)
      chain.extend(...logCounts(5))
      yield* eventually("and the next final block", () => status.stored === chain.final.number)
      assert.strictEqual((yield* store.load(chain.id))!.head.number, chain.head.number - 16)
    }),
  )

  const finalAnswer =
    (answer: () => unknown): Intercept =>
    (method, params, proceed) =>
      method === "eth_getBlockByNumber" && params[0] === "finalized" ? answer() : proceed()

  scenario(
    "falls back to FINALITY_DEPTH while the finalized tag is null, reports it, and returns to the tag",
    ({ chain, node, start }) =>
      Effect.gen(function* () {
        chain.extend(...logCounts(40))
        node.intercept = finalAnswer(() => null)
        const { status } = yield* start({ CONFIRMATIONS: "finalized", FINALITY_DEPTH: "20" })
        yield* eventually("stored up to the depth", () => status.stored === 20)
        const { capabilities } = status.endpoints[0]!
        yield* eventually(
          "the limit is reported",
          () => capabilities!.limits.includes("no finalized tag"),
          60,
        )
        node.intercept = (_method, _params, proceed) => proceed()
        yield* eventually("the tag is in use again", () => capabilities!.finalizedTag, 60)
        chain.extend(...logCounts(5))
        yield* eventually("stored up to the final block", () => status.stored === chain.final.number, 60)
      }),
  )

  scenario(
    "reports a growing final block age while finality stalls, and lag only while blocks are missing [G-216]",
    ({ chain, node, store }) =>
      Effect.gen(function* () {
        let refuses = false
        const faulty = failing(store, ({ push }) => (push && refuses ? failure("push") : undefined))
        chain.extend(...logCounts(100))
        const { status } = yield* startIngestor(
          faulty,
          { one: node },
          variablesFor({ devnet: [chain, "one"] }),
        )
        yield* caughtUp(store, chain, status)
        yield* TestClock.adjust("3 minutes")
        const final = chain.final.number
        const age = () => (chain.head.number - final) * chain.blockTime
        assert.strictEqual(status.final, final)
        assert.deepStrictEqual([status.finalAge, status.lagSeconds], [age(), 0])
        node.intercept = finalAnswer(() => {
          throw new Refused(-39001, "finalized block not found")
        })
        chain.extend(...logCounts(50))
        yield* caughtUp(store, chain, status)
        yield* TestClock.adjust("3 minutes")
        assert.strictEqual(status.final, final)
        assert.deepStrictEqual([status.finalAge, status.lagSeconds], [age(), 0])
        const stored = chain.head.number
        refuses = true
        chain.extend(...logCounts(10))
        yield* eventually("the head is known", () => status.head === chain.head.number)
        assert.strictEqual(status.stored, stored)
        assert.strictEqual(status.lagSeconds, 10 * chain.blockTime)
      }),
  )

  scenario(
    "finalizes nothing while the node reports that nothing is final",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        node.intercept = finalAnswer(() => {
          throw new Refused(-39001, "finalized block not found")
        })
        const { status } = yield* start({ FINALITY_DEPTH: "5" })
        chain.extend(...logCounts(40))
        yield* caughtUp(store, chain, status)
        const { capabilities } = status.endpoints[0]!
        yield* eventually(
          "the limit is reported",
          () => capabilities!.limits.includes("nothing is final yet"),
          60,
        )
        yield* TestClock.adjust("3 minutes")
        assert.isUndefined((yield* store.load(chain.id))!.final)
        assert.isTrue(capabilities!.finalizedTag)
        node.intercept = (_method, _params, proceed) => proceed()
        yield* TestClock.adjust("3 minutes")
        assert.isDefined((yield* store.load(chain.id))!.final)
        assert.isFalse(capabilities!.nothingFinal)
      }),
  )

  scenario("stores only the logs that match the filter", ({ chain, node, store, start }) =>
    Effect.gen(function* () {
      chain.extend(...logCounts(40))
      const [wanted] = chain.at(4)!.logs
      const { status } = yield* start({ ADDRESSES: wanted!.contract })
      yield* eventually("caught up", () => status.stored === 40)
      const replay = yield* replayOf(store, chain.id)
      assert.deepStrictEqual(
        replay.blocks.map(({ number }) => number),
        [4],
      )
      const entries = yield* Stream.runCollect(store.after(chain.id))
      assert.isTrue(entries.every(({ entry }) => entry.contract === wanted!.contract))
      assert.isBelow(node.timesAsked("eth_getLogs"), 15)
    }),
  )

  scenario("stores and retracts a block of 5 000 logs", ({ chain, store, start }) =>
    Effect.gen(function* () {
      chain.extend(2)
      const { status } = yield* start()
      yield* caughtUp(store, chain, status)
      chain.extend(5000, 3)
      yield* caughtUp(store, chain, status)
      chain.fork(2, 2500, 1, 1)
      const replay = yield* caughtUp(store, chain, status)
      assert.strictEqual(replay.removed, 5003)
    }),
  )

  /** A journal at the head of the chain, with the first thousand logs of the next block on top. */
  const halfWritten = ({ chain, store, start }: Scenario, digestOf = digestOfPart) =>
    Effect.gen(function* () {
      chain.extend(1, 1)
      const first = yield* start()
      yield* caughtUp(store, chain, first.status)
      yield* first.stop
      const expected = (yield* store.load(chain.id))!.head
      chain.extend(3500)
      const [big] = chain.blocks(3)
      const slice = {
        ...big!,
        logs: big!.logs.slice(0, 1000),
        whole: false,
        digest: digestOf(big!, 1000),
      }
      yield* store.push(chain.id, "none", { _tag: "Push", expected, blocks: [slice], final: false })
    })

  scenario("completes a block that was half written at shutdown [G-077]", (scenario) =>
    Effect.gen(function* () {
      yield* halfWritten(scenario)
      const { status } = yield* scenario.start()
      const replay = yield* caughtUp(scenario.store, scenario.chain, status)
      assert.strictEqual(replay.removed, 0)
    }),
  )

  scenario("rewrites a half-written block whose digest does not match", (scenario) =>
    Effect.gen(function* () {
      yield* halfWritten(scenario, () => "another")
      const { status } = yield* scenario.start()
      const replay = yield* caughtUp(scenario.store, scenario.chain, status)
      assert.strictEqual(replay.removed, 1000)
    }),
  )

  scenario("retracts a half-written block that was orphaned", (scenario) =>
    Effect.gen(function* () {
      yield* halfWritten(scenario)
      scenario.chain.fork(1, 2, 2)
      const { status } = yield* scenario.start()
      const replay = yield* caughtUp(scenario.store, scenario.chain, status)
      assert.strictEqual(replay.removed, 1000)
    }),
  )

  scenario("retracts a half-written block whose height has no block any more", (scenario) =>
    Effect.gen(function* () {
      yield* halfWritten(scenario)
      scenario.chain.rollback(1)
      scenario.chain.addNullHeights(1, 2)
      const { status } = yield* scenario.start()
      const replay = yield* caughtUp(scenario.store, scenario.chain, status)
      assert.strictEqual(replay.removed, 1000)
    }),
  )

  scenario("waits with a half-written block until the node has its height", (scenario) =>
    Effect.gen(function* () {
      yield* halfWritten(scenario)
      scenario.chain.extend(1)
      // The replica that answers for the height of the block is behind.
      let isBehind = true
      scenario.node.intercept = (method, [number], proceed) =>
        isBehind && method === "eth_getBlockByNumber" && number === "0x3" ? null : proceed()
      const { status } = yield* scenario.start()
      yield* TestClock.adjust("20 seconds")
      isBehind = false
      const replay = yield* caughtUp(scenario.store, scenario.chain, status)
      assert.strictEqual(replay.removed, 0)
    }),
  )
})

describe("with one endpoint, the service", () => {
  scenario(
    "reconnects after the socket is cut without losing a log [G-001]",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        for (let i = 0; i < 10; i++) {
          chain.extend(1, i % 3)
          if (i % 2 === 0) node.drop()
          chain.extend(2)
          yield* TestClock.adjust("13 seconds")
        }
        yield* caughtUp(store, chain, status)
        assert.isAtLeast(node.connections, 5)
        assert.strictEqual(status.breakerState._tag, "Closed")
      }),
  )

  scenario(
    "backs off from an endpoint that accepts connections and drops them [G-002]",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        node.intercept = (method, _params, proceed) => {
          if (method === "eth_subscribe") node.drop()
          return proceed()
        }
        const { status } = yield* start()
        yield* TestClock.adjust("5 minutes")
        assert.isBelow(node.connections, 12)
        assert.notStrictEqual(status.breakerState._tag, "Closed")
        assert.strictEqual(status.phase, "connecting")
        node.intercept = (_method, _params, proceed) => proceed()
        chain.extend(1)
        yield* eventually("it is closed again", () => status.breakerState._tag === "Closed", 120)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario("waits a minute before retrying an endpoint of another chain [G-071]", ({ chain, store }) =>
    Effect.gen(function* () {
      const wrong = new FakeNode(new FakeChain({ id: 5 }))
      const ingestor = yield* startIngestor(store, { one: wrong }, variablesFor({ devnet: [chain, "one"] }))
      yield* TestClock.adjust("55 seconds")
      assert.strictEqual(wrong.connections, 1)
      assert.strictEqual(ingestor.status.failures[0]?.type, "wrong_chain")
      assert.match(ingestor.status.failures[0]!.text, /serves chain 5, not 31337/)
    }),
  )

  scenario("fails over to another endpoint when newHeads stop", ({ chain, node, store }) =>
    Effect.gen(function* () {
      const second = new FakeNode(chain)
      const { status } = yield* startIngestor(
        store,
        { one: node, two: second },
        variablesFor({ devnet: [chain, "one,two"] }),
      )
      yield* caughtUp(store, chain, status)
      assert.strictEqual(status.endpoint?.name, "one:80")
      node.announces = false
      chain.extend(1, 2, 3)
      yield* caughtUp(store, chain, status)
      assert.strictEqual(status.endpoint?.name, "two:80")
      assert.strictEqual(status.failures[0]?.type, "stalled")
    }),
  )

  for (const [title, misbehave, type] of [
    ["sends garbage", (node: FakeNode) => node.broadcast("{garbage"), "malformed"],
    [
      "sends a header without a hash",
      (node: FakeNode) => node.announce({ ...node.chain.head, hash: "0x" }),
      "malformed",
    ],
    ["goes silent", (node: FakeNode) => void (node.answers = false), "timeout"],
  ] as const) {
    scenario(
      `reconnects to an endpoint that ${title} without losing a log`,
      ({ chain, node, store, start }) =>
        Effect.gen(function* () {
          chain.extend(1, 2)
          const { status } = yield* start()
          yield* caughtUp(store, chain, status)
          misbehave(node)
          yield* eventually("the fault is detected", () => status.failures[0]?.type === type, 60)
          node.answers = true
          chain.extend(3)
          yield* caughtUp(store, chain, status)
          assert.isAtLeast(node.connections, 2)
        }),
    )
  }

  scenario(
    "splits requests that exceed WS_MAX_PAYLOAD, down to single receipts",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        chain.extend(3, 2)
        const { status } = yield* start({ WS_MAX_PAYLOAD: "200000" })
        yield* caughtUp(store, chain, status)
        // eth_getLogs and block receipts take about 600 bytes a log: neither fits, twenty transactions do.
        chain.extend(1500)
        chain.extend(1)
        yield* eventually("it is stored", () => status.stored === chain.head.number, 300)
        yield* assertComplete(store, chain)
        assert.isAbove(node.timesAsked("eth_getTransactionReceipt"), 100)
        assert.isAbove(status.errors.malformed, 0)
        // The backfill of such blocks as well.
        chain.extend(1500, 2, 1500, ...logCounts(40))
        const fresh = yield* memoryStore()
        const second = yield* startIngestor(
          fresh,
          { one: node },
          {
            ...variablesFor({ devnet: [chain, "one"] }),
            WS_MAX_PAYLOAD: "200000",
          },
        )
        yield* eventually("the backfill is stored", () => second.status.stored === chain.head.number, 600)
        yield* assertComplete(fresh, chain)
      }),
  )

  scenario(
    "lowers the request rate over the same connection when throttled, also by unknown messages or without an id",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start({ RPC_RATE: "40" })
        yield* caughtUp(store, chain, status)
        const words = [
          "project ID request rate exceeded",
          "limit exceeded",
          "call rate limit exhausted, retry in 10s",
          "please slow down",
          "capacity exceeded",
        ]
        const perSecond = 5
        let second = { from: 0, calls: 0 }
        let refusals = 0
        const lowest = { rate: Infinity }
        const clock = yield* Clock.Clock
        node.intercept = (_method, _params, proceed) => {
          const now = clock.currentTimeMillisUnsafe()
          if (now - second.from >= 1000) second = { from: now, calls: 0 }
          if (++second.calls <= perSecond) return proceed()
          const error = { code: -32005, message: words[refusals % words.length]! }
          if (refusals++ % 2 === 0) throw new Refused(error.code, error.message)
          return new Raw(JSON.stringify({ jsonrpc: "2.0", id: null, error }))
        }
        for (let i = 0; i < 60; i++) {
          chain.extend(...logCounts(7))
          yield* TestClock.adjust("3 seconds")
          lowest.rate = Math.min(lowest.rate, status.endpoints[0]!.rateLimiter!.rate())
        }
        yield* eventually("all of it is stored", () => status.stored === chain.head.number, 600)
        yield* caughtUp(store, chain, status)
        assert.isAbove(refusals, 2)
        assert.isBelow(refusals, 200)
        assert.isAtMost(lowest.rate, 20)
        assert.strictEqual(node.connections, 1)
      }),
  )

  scenario("a rate-limited `finalized` query does not disable the tag [G-062]", (scenario) =>
    Effect.gen(function* () {
      const { chain, node, store, start } = scenario
      const { status } = yield* caughtUpIngestor({ chain, store, start }, 5)
      let refusals = 0
      node.intercept = (method, params, proceed) => {
        if (method !== "eth_getBlockByNumber" || params[0] !== "finalized") return proceed()
        refusals++
        throw new Refused(-32005, "too many requests")
      }
      yield* eventually("the query was refused repeatedly", () => refusals > 5, 600)
      node.intercept = (_method, _params, proceed) => proceed()
      assert.isTrue(status.endpoints[0]!.capabilities!.finalizedTag)
      chain.extend(...logCounts(3))
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario(
    "retries a head that the balanced node does not serve yet [G-042]",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* caughtUpIngestor({ chain, store, start }, 20)
        let asked = 0
        node.intercept = (method, _params, proceed) => {
          if (method === "eth_getLogs" && asked++ === 0) node.lag = 1
          return proceed()
        }
        chain.extend(2)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(status.stored, chain.head.number - 1)
        assert.strictEqual(status.endpoints[0]!.connects, 1)
        node.lag = 0
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(status.stored, chain.head.number)
        yield* assertComplete(store, chain)
      }),
  )

  for (const [what, extend] of [
    ["one head", [2]],
    ["several heads", [2, 0, 3]],
  ] as const) {
    scenario(
      `retries the logs of ${what} that the node serves before their logs [G-043]`,
      ({ chain, node, store, start }) =>
        Effect.gen(function* () {
          const { status } = yield* caughtUpIngestor({ chain, store, start }, 20)
          let knows = false
          node.intercept = (method, _params, proceed) => {
            if (!knows && method === "eth_getLogs") throw new Refused(-32000, "unknown block")
            return proceed()
          }
          chain.jump(...extend)
          yield* TestClock.adjust("5 seconds")
          assert.strictEqual(status.endpoints[0]!.connects, 1)
          knows = true
          yield* TestClock.adjust("3 seconds")
          assert.strictEqual(status.stored, chain.head.number)
          yield* assertComplete(store, chain)
        }),
    )
  }

  scenario(
    "does not count an announced head that is already orphaned as a failure [G-044]",
    ({ chain, node, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* caughtUpIngestor({ chain, store, start }, 20)
        let asked = 0
        node.intercept = (method, _params, proceed) => {
          // The node switches to a shorter chain just when its new head is requested.
          if (method === "eth_getLogs" && asked++ === 0) chain.fork(2, 1)
          return proceed()
        }
        chain.extend(2)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(status.endpoints[0]!.connects, 1)
        yield* caughtUp(store, chain, status)
        chain.extend(1, 1)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario("stops retrying a head that the node never serves", ({ chain, node, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* caughtUpIngestor({ chain, store, start }, 20)
      node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs") node.lag = 1
        return proceed()
      }
      chain.extend(2)
      yield* TestClock.adjust("5 minutes")
      const asked = node.timesAsked("eth_getLogs")
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(node.timesAsked("eth_getLogs"), asked)
      node.intercept = (_method, _params, proceed) => proceed()
      node.lag = 0
      chain.extend(1)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario("accepts an endpoint that pruned the start block [G-046]", ({ chain, node, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* caughtUpIngestor({ chain, store, start }, 60)
      yield* TestClock.adjust("2 minutes")
      assert.isAbove(status.final!, 10)
      node.intercept = (method, [block], proceed) => {
        if (method === "eth_getBlockByNumber" && /^0x[0-9a]$/.test(String(block)))
          throw new Refused(4444, "pruned history unavailable")
        return proceed()
      }
      node.drop()
      chain.extend(3)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario("waits for a lagging endpoint instead of reverting", ({ chain, node, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* caughtUpIngestor({ chain, store, start }, 20)
      node.lag = 5
      node.drop()
      yield* TestClock.adjust("30 seconds")
      chain.extend(1)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
      node.lag = 0
      chain.extend(1)
      yield* caughtUp(store, chain, status)
    }),
  )
})

describe("two ingestors", () => {
  scenario("write one journal together, each entry once [G-200]", ({ chain, node, store }) =>
    Effect.gen(function* () {
      const second = new FakeNode(chain)
      chain.extend(...logCounts(30))
      const variables = variablesFor({ devnet: [chain, "one"] })
      const a = yield* startIngestor(store, { one: node }, variables)
      const b = yield* startIngestor(store, { one: second }, variables)
      for (let i = 0; i < 15; i++) {
        second.lag = i % 3
        node.lag = (i + 1) % 2
        chain.fork(i % 4, ...logCounts((i % 4) + 2))
        yield* TestClock.adjust(`${(i % 4) * 700} millis`)
      }
      node.lag = second.lag = 0
      chain.extend(1, 1)
      yield* caughtUp(store, chain, a.status)
      yield* eventually("the other one is at the head", () => b.status.stored === chain.head.number)
      assert.isAbove(a.status.count(eventsDeduplicated) + b.status.count(eventsDeduplicated), 0)
      const replay = yield* replayOf(store, chain.id)
      assert.strictEqual(
        a.status.count(eventsPublished) + b.status.count(eventsPublished),
        replay.entries - replay.removed,
      )
    }),
  )

  scenario(
    "with different filters: the newer one takes over, the older one stops writing",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...logCounts(20))
        const old = yield* start()
        yield* caughtUp(store, chain, old.status)
        const contract = chain.at(1)!.logs[0]?.contract ?? chain.at(4)!.logs[0]!.contract
        const next = yield* start({ ADDRESSES: contract })
        yield* eventually("it has taken over", () => next.status.stored === chain.head.number)
        chain.extend(3)
        yield* eventually("the old one stops writing", () => old.status.phase === "superseded")
        chain.extend(3)
        yield* eventually("the new one continues", () => next.status.stored === chain.head.number)
        const journal = (yield* store.load(chain.id))!
        assert.strictEqual(journal.filterSince, 21)
        yield* next.stop
        yield* store.changeFilter(chain.id, "none", "", 1)
        chain.extend(2)
        yield* eventually("the old one resumes", () => old.status.stored === chain.head.number)
      }),
  )
})

describe("with a failing store, the service", () => {
  /** A store with outages on command. */
  const breakable = (store: Client) => {
    const state = { down: false, failures: 0 }
    const wrapped = failing(store, ({ operation }) => {
      if (!state.down) return undefined
      // Housekeeping has an interval of its own.
      if (operation !== "trim") state.failures++
      return failure(operation)
    })
    return { state, wrapped }
  }

  scenario("follows heads through a store outage and backfills afterwards", ({ chain, node, store }) =>
    Effect.gen(function* () {
      const { state, wrapped } = breakable(store)
      const { status } = yield* startIngestor(
        wrapped,
        { one: node },
        variablesFor({ devnet: [chain, "one"] }),
      )
      chain.extend(...logCounts(10))
      yield* caughtUp(store, chain, status)
      state.down = true
      const before = status.count(eventsPublished)
      for (let i = 0; i < 50; i++) {
        chain.extend(2)
        yield* TestClock.adjust("12 seconds")
      }
      assert.strictEqual(status.phase, "store-unavailable")
      assert.strictEqual(status.head, chain.head.number)
      assert.isAbove(status.lag(yield* Monotonic.millis), 500_000)
      assert.strictEqual(status.failures[0]?.type, "store")
      assert.strictEqual(node.connections, 1, "the connection stays")
      assert.isAtMost(state.failures, 600 * 2 + 5, "the store is probed at most twice a second")
      state.down = false
      yield* eventually("publishing resumes", () => status.count(eventsPublished) > before, 1.5)
      yield* eventually("it is back", () => status.stored === chain.head.number, 100)
      yield* assertComplete(store, chain)
      const now = yield* Monotonic.millis
      yield* eventually("the lag is gone", () => status.lag(now) === now - status.headSince)
    }),
  )

  scenario(
    "resumes within 1.5 s after the store is back, however long the outage [G-163]",
    ({ chain, node, store }) =>
      Effect.gen(function* () {
        const { state, wrapped } = breakable(store)
        const { status } = yield* startIngestor(
          wrapped,
          { one: node },
          variablesFor({ devnet: [chain, "one"] }),
        )
        for (const away of [0.2, 1, 3, 60, 600]) {
          chain.extend(1)
          yield* caughtUp(store, chain, status)
          state.down = true
          chain.extend(1)
          yield* TestClock.adjust(`${away} seconds`)
          state.down = false
          yield* eventually(`back after ${away} s`, () => status.stored === chain.head.number, 1.5)
        }
        assert.strictEqual(status.storeBreakerState.failures, 0)
      }),
  )

  for (const [what, reason, detail] of [
    ["refuses large pushes", "refused", "ERR max request size exceeded"],
    ["closes the connection at a large push", "unreachable", "ERR Protocol error: invalid bulk length"],
    ["closes the connection at a large push without an error", "unreachable", "Connection is closed."],
    ["does not answer a large push in time", "timeout", "no answer within 5000 ms"],
  ] as const)
    scenario(
      `sends smaller pushes to a store that ${what}, and larger ones again later [G-166]`,
      ({ chain, node, store }) =>
        Effect.gen(function* () {
          let largest = 40
          let seen = 0
          const sizeOf = ({ blocks }: Push) =>
            blocks.reduce((sum, { logs }) => sum + logs.length, blocks.length)
          const small = failing(store, ({ operation, push }) => {
            if (push === undefined) return undefined
            if (sizeOf(push) > largest) return failure(operation, reason, detail)
            seen = Math.max(seen, sizeOf(push))
            return undefined
          })
          chain.extend(...logCounts(60), 300, 2, 150)
          const { status } = yield* startIngestor(
            small,
            { one: node },
            variablesFor({ devnet: [chain, "one"] }),
          )
          yield* eventually("it is stored", () => status.stored === chain.head.number)
          yield* assertComplete(store, chain, 0, false)
          largest = Infinity
          for (let i = 0; i < 120; i++) {
            chain.extend(60)
            yield* TestClock.adjust("2 seconds")
          }
          yield* eventually("it is stored", () => status.stored === chain.head.number)
          assert.isAbove(seen, 40)
          assert.strictEqual(node.connections, 1)
        }),
    )

  scenario("rewrites entries that the store lost [G-098]", ({ chain, node, store, start }) =>
    Effect.gen(function* () {
      yield* caughtUpIngestor({ chain, store, start }, 30)
      const other = yield* memoryStore()
      const swap = switching(store, other)
      const second = yield* startIngestor(swap.store, { one: node }, variablesFor({ devnet: [chain, "one"] }))
      yield* TestClock.adjust("5 seconds")
      swap.change()
      chain.extend(1, 2)
      yield* eventually("it is full again", () => second.status.stored === chain.head.number)
      chain.extend(1)
      yield* eventually("it continues", () => second.status.stored === chain.head.number)
      yield* assertComplete(other, chain)
    }),
  )

  scenario(
    "stays in the phase store-unavailable when the endpoint reconnects during a store outage",
    ({ chain, node, store }) =>
      Effect.gen(function* () {
        const { state, wrapped } = breakable(store)
        const { status } = yield* startIngestor(
          wrapped,
          { one: node },
          variablesFor({ devnet: [chain, "one"] }),
        )
        chain.extend(1, 2)
        yield* caughtUp(store, chain, status)
        state.down = true
        chain.extend(3)
        yield* eventually("it waits", () => status.phase === "store-unavailable")
        const since = status.phaseSince
        node.drop()
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(status.endpoints[0]!.connects, 2)
        assert.deepStrictEqual([status.phase, status.phaseSince], ["store-unavailable", since])
        state.down = false
        yield* eventually("it is live", () => status.phase === "live", 120)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario("completes the in-flight move before shutdown [G-183]", ({ chain, node, store }) =>
    Effect.gen(function* () {
      const entered = yield* Deferred.make<void>()
      const release = yield* Deferred.make<void>()
      let finished = 0
      const slow = around(store, ({ operation }, act) =>
        operation === "push"
          ? Deferred.succeed(entered, undefined).pipe(
              Effect.andThen(Deferred.await(release)),
              Effect.andThen(act),
              Effect.tap(() => Effect.sync(() => finished++)),
            )
          : act,
      )
      chain.extend(3)
      const ingestor = yield* startIngestor(slow, { one: node }, variablesFor({ devnet: [chain, "one"] }))
      yield* TestClock.adjust("1 second")
      yield* Deferred.await(entered)
      const stopping = yield* Effect.forkChild(ingestor.stop, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isUndefined(stopping.pollUnsafe())
      yield* Deferred.succeed(release, undefined)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopping)
      assert.isAbove(finished, 0)
    }),
  )
})

describe("failures are isolated per chain:", () => {
  const two = (
    title: string,
    body: (scenario: {
      a: FakeChain
      b: FakeChain
      nodes: Record<string, FakeNode>
      store: Client
      variables: Record<string, string>
    }) => Effect.Effect<unknown, unknown, Scope.Scope>,
  ) =>
    it.effect(title, () =>
      Effect.gen(function* () {
        const a = new FakeChain({ id: 1001, finality: 16 })
        const b = new FakeChain({ id: 1002, finality: 16 })
        const nodes = { a: new FakeNode(a), b: new FakeNode(b) }
        yield* body({
          a,
          b,
          nodes,
          store: yield* memoryStore(),
          variables: variablesFor({ a: [a, "a"], b: [b, "b"] }),
        })
      }),
    )

  two(
    "a defect restarts only its own chain, every time, and is reported",
    ({ a, b, nodes, store, variables }) =>
      Effect.gen(function* () {
        let defects = 0
        const faulty = failing(store, ({ operation, chain }) => {
          if (operation !== "push" || chain !== 1001 || defects === 4) return undefined
          defects++
          return Effect.die(new Error("a bug"))
        })
        const { all } = yield* startIngestor(faulty, nodes, variables)
        a.extend(1, 2)
        b.extend(1, 2)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(all[1]!.stored, 2)
        assert.strictEqual(all[0]!.failures[0]?.type, "defect")
        assert.match(all[0]!.failures[0]!.text, /a bug/)
        b.extend(3)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(all[1]!.stored, 3)
        yield* eventually("it has recovered", () => all[0]!.stored === 2, 120)
        yield* assertComplete(store, a)
        yield* assertComplete(store, b)
      }),
  )

  scenario(
    "a defect in a background fiber ends the connection, and the chain reconnects [G-195]",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* caughtUpIngestor({ chain, store, start }, 40)
        let defects = 0
        Object.defineProperty(status, "finalSeen", {
          set() {
            if (defects++ === 0) throw new Error("a bug")
          },
        })
        chain.extend(1, 2)
        yield* eventually("it is reported", () => status.failures[0]?.type === "defect")
        assert.match(status.failures[0]!.text, /a bug/)
        const { endpoints } = status
        yield* eventually("it is connected again", () => endpoints[0]!.connects === 2)
        yield* caughtUp(store, chain, status)
        // The final block is fetched again.
        yield* TestClock.adjust("1 minute")
        assert.isAbove(defects, 1)
        assert.strictEqual(endpoints[0]!.connects, 2)
      }),
  )

  two(
    "a defect outside of a connection restarts only its own chain, without a growing delay [G-196]",
    ({ a, b, nodes, store, variables }) =>
      Effect.gen(function* () {
        const { all } = yield* startIngestor(store, nodes, variables)
        const [broken, other] = [all[0]!, all[1]!]
        for (let times = 1; times <= 5; times++) {
          a.extend(1)
          b.extend(1)
          yield* caughtUp(store, a, broken)
          broken.endpoints[0]!.capabilities!.relax = () => {
            throw new Error(`bug ${times}`)
          }
          yield* eventually("it is reported", () => broken.errors.defect === times, 3601)
          assert.match(broken.failures[0]!.text, new RegExp(`bug ${times}`))
          const { connects } = broken.endpoints[0]!
          yield* eventually("it is connected again", () => broken.endpoints[0]!.connects > connects, 3)
        }
        yield* caughtUp(store, b, other)
        assert.strictEqual(other.endpoints[0]!.connects, 1)
      }),
  )

  scenario("a defect in the store's ping does not block the chain [G-197]", ({ chain, store, node }) =>
    Effect.gen(function* () {
      let faults = 0
      const faulty = failing(store, ({ operation }) => {
        if (operation === "push" && faults === 0) return failure(operation)
        return operation === "answer" && faults++ === 0 ? Effect.die(new Error("a bug")) : undefined
      })
      const { status } = yield* startIngestor(faulty, { one: node }, variablesFor({ devnet: [chain, "one"] }))
      chain.extend(1, 2)
      yield* caughtUp(store, chain, status)
      assert.isAbove(faults, 1)
    }),
  )

  two(
    "backs off from a store that refuses the moves of one chain while the other chain continues [G-164]",
    ({ a, b, nodes, store, variables }) =>
      Effect.gen(function* () {
        let refuses = false
        let tries = 0
        const refusing = failing(store, ({ operation, chain }) => {
          if (!refuses || operation !== "push" || chain !== a.id) return undefined
          tries++
          return failure(operation, "corrupt", "WRONGTYPE")
        })
        const { all } = yield* startIngestor(refusing, nodes, variables)
        yield* caughtUp(store, a, all[0]!)
        const asked = () => [...nodes["a"]!.requests.values()].reduce((sum, count) => sum + count, 0)
        refuses = true
        a.extend(2)
        yield* eventually("it waits", () => all[0]!.phase === "store-unavailable")
        const [triesBefore, askedBefore] = [tries, asked()]
        for (let i = 0; i < 5; i++) {
          b.extend(1)
          yield* TestClock.adjust("12 seconds")
          assert.strictEqual(all[1]!.stored, b.head.number, "the other chain continues")
        }
        assert.isAtMost(tries - triesBefore, 14, "tries in a minute: 1, 2, 4, 5, 5 … s apart")
        assert.strictEqual(all[0]!.storeBreakerState._tag, "Open")
        assert.strictEqual(all[1]!.storeBreakerState._tag, "Closed")
        assert.isAtMost(asked() - askedBefore, 10, "calls to the provider in a minute")
        refuses = false
        yield* eventually("the move is accepted", () => all[0]!.stored === a.head.number, 6)
        assert.strictEqual(all[0]!.storeBreakerState.failures, 0)
        yield* assertComplete(store, a)
      }),
  )

  two(
    "a finality violation halts one chain until its journal is changed [G-080]",
    ({ a, b, nodes, store, variables }) =>
      Effect.gen(function* () {
        a.extend(...logCounts(60))
        b.extend(1)
        const first = yield* startIngestor(store, nodes, variables)
        yield* caughtUp(store, a, first.all[0]!)
        yield* TestClock.adjust("1 minute")
        yield* first.stop
        // The same id, other blocks: a development chain that was reset.
        const changed = new FakeChain({ id: 1001, finality: 16, blockTime: 1 })
        changed.fork(0, ...logCounts(3))
        changed.fork(3, ...logCounts(90))
        const second = yield* startIngestor(store, { ...nodes, a: new FakeNode(changed) }, variables)
        yield* eventually("it is halted", () => second.all[0]!.phase === "halted")
        assert.match(
          second.all[0]!.failures[0]!.text,
          /was final as .* another chain, or a reorg below finality/,
        )
        b.extend(2, 2)
        yield* eventually("the other continues", () => second.all[1]!.stored === b.head.number)
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(second.all[0]!.phase, "halted")
        assert.strictEqual((yield* replayOf(store, 1001)).removed, 0)
        // Emptied, it begins at the configured start block, and not where the other chain's journal began.
        yield* store.reset(1001, { from: undefined, filter: "none", delete: true })
        yield* caughtUp(store, changed, second.all[0]!)
      }),
  )

  two(
    "a journal of a newer version halts its chain until it is readable, and the others continue [G-169]",
    ({ a, b, nodes, store, variables }) =>
      Effect.gen(function* () {
        let isNewer = true
        const refused = Effect.fail(newerJournal("load", 3))
        const half = failing(store, ({ operation, chain }) =>
          isNewer && operation === "load" && chain === a.id ? refused : undefined,
        )
        const { all } = yield* startIngestor(half, nodes, variables)
        yield* eventually("it is halted", () => all[0]!.phase === "halted")
        assert.match(
          all[0]!.failures[0]!.text,
          /version 3 and this release writes version 2: run the release/,
        )
        b.extend(2, 2)
        yield* eventually("the other continues", () => all[1]!.stored === b.head.number)
        isNewer = false
        a.extend(3)
        yield* caughtUp(store, a, all[0]!)
      }),
  )

  /** A store in which a chain has final blocks, and nodes of another chain with the same id. */
  const changedChain = Effect.fnUntraced(function* () {
    const chain = new FakeChain({ id: 1001, finality: 16 })
    chain.extend(...logCounts(60))
    const store = yield* memoryStore()
    const right = new FakeNode(chain)
    const variables = variablesFor({ a: [chain, "wrong,right"] })
    const first = yield* startIngestor(store, { wrong: right, right }, variables)
    yield* caughtUp(store, chain, first.status)
    yield* TestClock.adjust("1 minute")
    yield* first.stop
    const changed = new FakeChain({ id: 1001, finality: 16, blockTime: 1 })
    changed.fork(0, ...logCounts(3))
    changed.fork(3, ...logCounts(90))
    return { chain, store, right, wrong: new FakeNode(changed), variables }
  })

  it.effect("a halted chain resumes when an endpoint that connects later serves the finalized block", () =>
    Effect.gen(function* () {
      const { chain, store, right, wrong, variables } = yield* changedChain()
      right.up = false
      const { status } = yield* startIngestor(store, { wrong, right }, variables)
      yield* eventually("it is halted", () => status.phase === "halted")
      right.up = true
      yield* eventually("it resumes", () => status.phase === "live", 120)
      chain.extend(1)
      yield* caughtUp(store, chain, status)
      assert.strictEqual(status.endpoint, status.endpoints[1])
    }),
  )

  it.effect(
    "a halted chain resumes when an endpoint that failed to answer serves the finalized block [G-081]",
    () =>
      Effect.gen(function* () {
        const { chain, store, right, wrong, variables } = yield* changedChain()
        let fails = true
        right.intercept = (method, _params, proceed) => {
          if (fails && method === "eth_getBlockByNumber") throw new Refused(-32603, "internal error")
          return proceed()
        }
        const { status } = yield* startIngestor(store, { wrong, right }, variables)
        yield* eventually("it is halted", () => status.phase === "halted")
        fails = false
        yield* eventually("it resumes", () => status.phase === "live", 120)
        chain.extend(1)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario("a defect does not return the journal to a superseded filter", ({ chain, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* caughtUpIngestor({ chain, store, start }, 20)
      yield* store.changeFilter(chain.id, "another")
      chain.extend(1)
      yield* eventually("it stops writing", () => status.phase === "superseded")
      status.endpoints[0]!.capabilities!.relax = () => {
        throw new Error("a bug")
      }
      yield* eventually("it is restarted", () => status.errors.defect === 1, 3601)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* store.load(chain.id))!.filter, "another")
      assert.strictEqual(status.phase, "superseded")
    }),
  )

  it.effect("a halted chain stays halted while its endpoint reconnects", () =>
    Effect.gen(function* () {
      const { store, right, wrong, variables } = yield* changedChain()
      right.up = false
      const { status } = yield* startIngestor(store, { wrong, right }, variables)
      yield* eventually("it is halted", () => status.phase === "halted")
      const since = status.phaseSince
      for (let i = 0; i < 3; i++) {
        wrong.drop()
        for (let millis = 0; millis < 20_000; millis += 250) {
          yield* TestClock.adjust("250 millis")
          assert.deepStrictEqual([status.phase, status.phaseSince], ["halted", since])
        }
      }
      assert.isAbove(status.endpoints[0]!.connects, 3)
    }),
  )
})
