/** Known faults of nodes, each against the whole service: no log is lost or duplicated. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { caughtUp, eventually } from "../support/ingestor.ts"
import { without } from "../support/providers.ts"
import { blockTime, steps, withBoth, scenario } from "../support/quirks.ts"
import type { WireLog } from "../support/quirks.ts"

describe("stores every log once from a node that", () => {
  scenario("returns [] for a block that it has just announced (op-geth)", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      const times = new Map<string, number>()
      one.intercept = (method, _params, proceed) => {
        const answer = proceed()
        if (method !== "eth_getLogs") return answer
        const logs = answer as ReadonlyArray<WireLog>
        for (const hash of new Set(logs.map(({ blockHash }) => blockHash)))
          times.set(hash, (times.get(hash) ?? 0) + 1)
        return logs.filter(({ blockHash }) => times.get(blockHash)! > 2)
      }
      const { status } = yield* start()
      yield* steps(chain, 40)
      yield* caughtUp(store, chain, status)
      assert.deepStrictEqual(status.failures, [])
      assert.isAtLeast(one.timesAsked("eth_getLogs"), 3 * 30)
    }),
  )

  for (const [title, unwilling] of [
    ["reth", []],
    ["reth, with logs from its subscription", ["eth_getLogs", "eth_getBlockReceipts"]],
  ] as const) {
    scenario(`drops notifications silently (${title})`, ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        one.intercept = without(...unwilling)
        const { status } = yield* start()
        yield* steps(chain, 60, (step) => {
          one.announces = step % 10 < 8
        })
        one.announces = true
        yield* steps(chain, 1)
        yield* caughtUp(store, chain, status)
        assert.strictEqual(one.connections, 1)
      }),
    )
  }

  for (const [title, logsFirst, unwilling] of [
    ["geth", false, []],
    ["geth, with logs from its subscription", false, ["eth_getLogs", "eth_getBlockReceipts"]],
    ["geth, with logs before their head", true, ["eth_getLogs", "eth_getBlockReceipts"]],
  ] as const) {
    scenario(`announces only the last block of a fork (${title})`, ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        one.logsFirst = logsFirst
        one.intercept = without(...unwilling)
        const { status } = yield* start()
        for (let depth = 1; depth <= 12; depth++) {
          chain.extend(...Array.from({ length: depth }, (_, i) => i % 3))
          yield* TestClock.adjust(`${blockTime} seconds`)
          chain.fork(depth, ...Array.from({ length: depth + 1 + (depth % 2) }, (_, i) => (i + 1) % 4))
          yield* TestClock.adjust(`${blockTime} seconds`)
        }
        const replay = yield* caughtUp(store, chain, status)
        assert.isAbove(replay.removed, 50)
        assert.deepStrictEqual(status.failures, [])
      }),
    )
  }

  scenario(
    "drops every third notification and repeats orphaned heads (erigon)",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start()
        const heads = [chain.head]
        yield* steps(chain, 60, (step) => {
          one.announces = step % 3 !== 1
          one.announce(heads.at(-1 - (step % 4)) ?? heads[0]!)
          heads.push(chain.head)
        })
        yield* caughtUp(store, chain, status)
        assert.strictEqual(one.connections, 1)
      }),
  )

  for (const [title, unwilling] of [
    ["ganache", []],
    ["ganache, with logs from its subscription", ["eth_getLogs", "eth_getBlockReceipts"]],
  ] as const) {
    scenario(
      `reuses another node's subscription ids and sends logs before heads and keys in reverse order (${title})`,
      ({ chain, one, two, store, start }) =>
        Effect.gen(function* () {
          for (const node of [one, two]) {
            node.likeGanache = node.logsFirst = true
            node.intercept = without(...unwilling)
          }
          const { status } = yield* start(withBoth)
          for (let i = 0; i < 6; i++) {
            yield* steps(chain, 8)
            ;(i % 2 === 0 ? one : two).drop()
          }
          yield* caughtUp(store, chain, status)
          assert.isAbove(one.connections + two.connections, 6)
        }),
    )
  }

  scenario("answers pings and sends no heads", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      one.announces = false
      const { status } = yield* start({ STALL_TIMEOUT: "20s" })
      yield* steps(chain, 100)
      yield* eventually("it reconnects and catches up", () => status.stored === chain.head.number, 60)
      yield* caughtUp(store, chain, status)
      assert.isAbove(status.errors.stalled, 5)
      assert.strictEqual(status.breakerState._tag, "Closed")
    }),
  )

  scenario(
    "answers pings and sends no heads, by failing over to another one",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        one.announces = false
        const { status } = yield* start(withBoth)
        yield* steps(chain, 20)
        yield* caughtUp(store, chain, status)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        assert.strictEqual(two.connections, 1)
      }),
  )

  scenario(
    "serves another chain after a reconnect, by waiting for the configured one",
    ({ chain, one, hosts, store, start }) =>
      Effect.gen(function* () {
        const foreign = new FakeChain({ id: 5, blockTime })
        foreign.extend(...Array.from({ length: 200 }, () => 2))
        const { status } = yield* start()
        yield* steps(chain, 10)
        const { stored } = status
        hosts["one"] = new FakeNode(foreign)
        one.drop()
        yield* steps(chain, 30)
        assert.strictEqual(status.stored, stored)
        assert.isAbove(status.errors.wrong_chain, 0)
        assert.strictEqual(hosts["one"].timesAsked("eth_getLogs"), 0)
        hosts["one"] = one
        yield* eventually("it is back", () => status.stored === chain.head.number, 200)
        yield* caughtUp(store, chain, status)
      }),
  )
})
