import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import { EndpointError, Rejected } from "../../../src/endpoint/EndpointError.ts"
import * as Eth from "../../../src/endpoint/Eth.ts"
import type { Call } from "../../../src/endpoint/JsonRpc.ts"
import type { RpcClient } from "../../../src/endpoint/RpcClient.ts"
import { hash } from "../../support/blocks.ts"
import { FakeChain } from "../../support/FakeChain.ts"

/** A client that records its calls and returns this answer to each. */
const answering = (result: unknown): RpcClient & { readonly calls: ReadonlyArray<Call> } => {
  const calls: Array<Call> = []
  return {
    calls,
    name: "fake",
    request: (method, params) => Effect.sync(() => (calls.push({ method, params }), result)),
    batch: (some) =>
      Effect.sync(() => {
        calls.push(...some)
        return some.map(() => ({ _tag: "Result" as const, result }))
      }),
  }
}

const reasonOf = <A>(action: Effect.Effect<A, EndpointError>) =>
  Effect.map(Effect.flip(action), ({ reason }) => `${reason._tag}: ${reason.message}`)

const filter = { addresses: [`0x${"aa".repeat(20)}` as const], topics: [] }

describe("the actions of a node", () => {
  it.effect("accept the expected chain id as text only", () =>
    Effect.gen(function* () {
      yield* Eth.confirmChain(answering("0x1"), 1)
      yield* Eth.confirmChain(answering("0x2105"), undefined)
      assert.strictEqual(
        yield* reasonOf(Eth.confirmChain(answering("0x2"), 1)),
        "WrongChain: serves chain 2, not 1",
      )
      assert.match(yield* reasonOf(Eth.confirmChain(answering(1), 1)), /^Malformed: .*eth_chainId did not/)
    }),
  )

  it.effect("fail on a height that is not a number", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Eth.blockNumber(answering("0x10")), 16)
      assert.match(yield* reasonOf(Eth.blockNumber(answering("latest"))), /eth_blockNumber did not return/)
    }),
  )

  it.effect("read every answer to eth_syncing but false and null as syncing", () =>
    Effect.gen(function* () {
      const answers = [true, { currentBlock: "0x1" }, false, null]
      const syncing = yield* Effect.forEach(answers, (answer) => Eth.syncing(answering(answer)))
      assert.deepStrictEqual(syncing, [true, true, false, false])
    }),
  )

  it.effect("encode a log query by hash or by heights", () =>
    Effect.gen(function* () {
      const client = answering([])
      yield* Eth.logs(client, filter, { blockHash: hash("a") })
      yield* Eth.logs(client, { addresses: [], topics: [null] }, { from: 9, to: 16 })
      assert.deepStrictEqual(client.calls, [
        { method: "eth_getLogs", params: [{ address: filter.addresses, blockHash: hash("a") }] },
        { method: "eth_getLogs", params: [{ topics: [null], fromBlock: "0x9", toBlock: "0x10" }] },
      ])
    }),
  )

  it.effect("tell a missing block or missing receipts from malformed ones", () =>
    Effect.gen(function* () {
      const header = new FakeChain().head
      assert.isUndefined(yield* Eth.blockByNumber(answering(null), 5))
      assert.match(yield* reasonOf(Eth.latestBlock(answering(null))), /there is no latest block/)
      assert.match(yield* reasonOf(Eth.transactionsOf(answering(null), header)), /^Unverified: .*not have/)
      assert.deepStrictEqual(yield* Eth.transactionsOf(answering({ transactions: [] }), header), [])
      assert.match(yield* reasonOf(Eth.blockReceipts(answering(null), header)), /^Unverified: .*no receipts/)
      assert.deepStrictEqual(yield* Eth.blockReceipts(answering([{ logs: [] }]), header), {
        count: 1,
        logs: [],
      })
      assert.match(yield* reasonOf(Eth.blockReceipts(answering([{}]), header)), /^Malformed/)
    }),
  )

  it.effect("fail on a subscription without an id of reasonable length", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Eth.subscribe(answering(7), ["newHeads"]), { id: "7", raw: 7 })
      for (const id of [null, {}, "0x".padEnd(300, "1")])
        assert.match(yield* reasonOf(Eth.subscribe(answering(id), ["newHeads"])), /did not return an id/)
    }),
  )

  it.effect("halve a batch of receipts that exceeds one response, and keep the size", () =>
    Effect.gen(function* () {
      const capabilities = new Capabilities()
      const sizes: Array<number> = []
      const refusal = { kind: "RangeTooLarge" } as const
      const reason = new Rejected({ method: "", code: -32003, detail: "response too large", refusal })
      const client: RpcClient = {
        ...answering([]),
        batch: (calls) => {
          sizes.push(calls.length)
          return calls.length > 3
            ? Effect.fail(new EndpointError({ endpoint: "fake", reason }))
            : Effect.succeed(calls.map(() => ({ _tag: "Result" as const, result: { logs: [] } })))
        },
      }
      const transactions = Array.from({ length: 8 }, (_, i) => hash(String(i)))
      assert.deepStrictEqual(yield* Eth.logsOfTransactions(client, transactions, capabilities), [])
      assert.deepStrictEqual(sizes, [8, 4, 2, 2, 2, 2])
      assert.strictEqual(capabilities.receipts.current, 2)
    }),
  )
})
