/** Known faults of providers, each against the whole service: no log is lost or duplicated. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { quantity } from "../../src/endpoint/Decode.ts"
import { Refused } from "../support/FakeNode.ts"
import { caughtUp, eventually, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import { replayOf } from "../support/oracle.ts"
import { publicnode, refusal, widthOf } from "../support/providers.ts"
import type { Query } from "../support/providers.ts"
import { blockTime, steps, scenario } from "../support/quirks.ts"
import type { WireLog } from "../support/quirks.ts"

describe("stores every log once from a provider that", () => {
  scenario(
    "requires an address in eth_getLogs, and refuses ten of them (publicnode)",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        one.intercept = publicnode(one)
        chain.extend(...Array.from({ length: 60 }, (_, i) => i % 4))
        const all = yield* start()
        yield* steps(chain, 20)
        yield* caughtUp(store, chain, all.status)
        yield* all.stop

        const filtered = yield* memoryStore()
        const wanted = chain.blocks(50).flatMap(({ logs }) => logs.map(({ contract }) => contract))
        const addresses = [...new Set(wanted)].slice(0, 25)
        const some = yield* startIngestor(
          filtered,
          { one },
          { ...variablesFor({ devnet: [chain, "one"] }), ADDRESSES: addresses.join(","), START_BLOCK: "50" },
        )
        yield* eventually("it is stored", () => some.status.stored === chain.head.number)
        const { blocks } = yield* replayOf(filtered, chain.id)
        assert.deepStrictEqual(
          blocks.flatMap(({ hash, logs }) => logs.map(({ index }) => [hash, index])),
          chain
            .blocks(50)
            .flatMap(({ hash, logs }) =>
              logs.filter(({ contract }) => addresses.includes(contract)).map(({ index }) => [hash, index]),
            ),
        )
        assert.isBelow(some.status.endpoints[0]!.capabilities!.addresses.current, 10)
      }),
  )

  for (const [title, hint] of [
    ["from > to", (from: number, to: number) => [to, from]],
    ["another start block", (from: number, to: number) => [from - 5000, to - 5000]],
    ["as wide as the refused one", (from: number, to: number) => [from, to]],
  ] as const) {
    scenario(`suggests an invalid block range: ${title} (Alchemy)`, ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...Array.from({ length: 300 }, (_, i) => i % 3))
        let refusals = 0
        one.intercept = (method, params, proceed) => {
          if (method !== "eth_getLogs" || widthOf(params[0] as Query) <= 10) return proceed()
          refusals++
          const { fromBlock, toBlock } = params[0] as Query
          const [from, to] = hint(quantity(fromBlock)!, quantity(toBlock)!)
          const recorded = refusal("alchemy (free)", "Under the Free tier plan")
          const range = `[0x${from!.toString(16)}, 0x${to!.toString(16)}]`
          throw new Refused(recorded.code, recorded.message.replace(/\[0x.*?\]/, range))
        }
        const { status } = yield* start()
        yield* caughtUp(store, chain, status)
        yield* steps(chain, 10)
        yield* caughtUp(store, chain, status)
        assert.isBelow(refusals, 60)
        assert.deepStrictEqual(status.failures, [])
      }),
    )
  }

  scenario("balances between nodes up to three blocks apart", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      let requests = 0
      one.intercept = (_method, _params, proceed) => {
        one.lag = [0, 3, 1, 2, 0][requests++ % 5]!
        try {
          return proceed()
        } finally {
          one.lag = 0
        }
      }
      const { status } = yield* start()
      yield* steps(chain, 60, (step) => {
        const other = chain.at(chain.head.number - (step % 4))
        if (other) one.announce(other.header)
      })
      yield* eventually("it is stored", () => status.stored === chain.head.number)
      yield* caughtUp(store, chain, status)
    }),
  )

  scenario("closes the socket with 1006 every thirty seconds", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      const { status } = yield* start()
      for (let i = 0; i < 20; i++) {
        yield* TestClock.adjust("2 seconds")
        yield* steps(chain, 7)
        one.drop(1006)
      }
      yield* steps(chain, 2)
      yield* caughtUp(store, chain, status)
      assert.strictEqual(status.reconnects, 20)
      assert.strictEqual(status.breakerState._tag, "Closed")
    }),
  )

  scenario("mixes two forks in one response", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      const known = new Map<string, ReadonlyArray<WireLog>>()
      let mixed = 0
      one.intercept = (method, _params, proceed) => {
        const answer = proceed()
        if (method !== "eth_getLogs") return answer
        const byNumber = Map.groupBy(answer as ReadonlyArray<WireLog>, ({ blockNumber }) => blockNumber)
        return [...byNumber].flatMap(([number, logs]) => {
          const before = known.get(number)
          known.set(number, logs)
          if (before === undefined || before[0]!.blockHash === logs[0]!.blockHash) return logs
          mixed++
          return before
        })
      }
      const { status } = yield* start()
      for (let i = 0; i < 10; i++) {
        chain.extend(2, 3, 1, 2)
        yield* TestClock.adjust(`${blockTime} seconds`)
        chain.fork(4, 1, 4, 2, 2, 1)
        yield* TestClock.adjust(`${blockTime} seconds`)
      }
      yield* caughtUp(store, chain, status)
      assert.isAbove(mixed, 20)
    }),
  )
})
