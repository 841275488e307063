import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { Block, Hex } from "../../../src/Domain.ts"
import { quantity } from "../../../src/endpoint/Decode.ts"
import { errorKind } from "../../../src/endpoint/EndpointError.ts"
import type { EndpointError } from "../../../src/endpoint/EndpointError.ts"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import * as LogSource from "../../../src/logs/LogSource.ts"
import { allChecks } from "../../../src/logs/Integrity.ts"
import { Refused, silence } from "../../support/FakeNode.ts"
import type { Intercept } from "../../support/FakeNode.ts"
import { connected, soon } from "../../support/virtual.ts"
import type { World } from "../../support/virtual.ts"

const unfiltered = { filter: { addresses: [], topics: [] }, logsBloom: "trust" } as const

/** The log source of a connection, and the capabilities of its endpoint. */
const make = (
  { chain: source, connection }: World,
  chain: Parameters<typeof LogSource.make>[1] = unfiltered,
) => {
  const capabilities = new Capabilities()
  return {
    ...LogSource.make(connection, chain, capabilities, allChecks, () => source.head.timestamp),
    capabilities,
    width: () => capabilities.width.current,
  }
}

const shape = (blocks: ReadonlyArray<Block>) =>
  blocks.map(({ number, hash, timestamp, logs }) => ({
    number,
    hash,
    timestamp,
    logs: logs.map(({ index, txHash, contract, topics, data, txIndex }) => [
      index,
      txHash,
      contract,
      topics,
      data,
      txIndex,
    ]),
  }))

/** Replaces the response of one method. */
const on =
  (
    method: string,
    answer: (filter: Readonly<Record<string, string>>, proceed: () => unknown) => unknown,
  ): Intercept =>
  (called, params, proceed) =>
    called === method ? answer((params[0] ?? {}) as Record<string, string>, proceed) : proceed()

const refuse = (code: number, message: string) => () => {
  throw new Refused(code, message)
}

type Wire = Array<{ blockHash: string; logIndex: string; removed: boolean; address: string }>

/** A finalized range, response after response. */
const wholeHistory = (
  { finalizedRange }: Pick<LogSource.LogSource, "finalizedRange">,
  from: number,
  to: number,
): Effect.Effect<ReadonlyArray<Block>, EndpointError> =>
  Effect.flatMap(finalizedRange(from, to), (blocks) => {
    const last = blocks.at(-1)!.number
    return last === to
      ? Effect.succeed(blocks)
      : Effect.map(wholeHistory({ finalizedRange }, last + 1, to), (more) => [...blocks, ...more])
  })

describe("the logs of one block", () => {
  connected("are requested by its hash", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5)
      const block = yield* soon(make(world).block(world.chain.head))
      assert.deepStrictEqual(shape([block]), shape(world.chain.blocks(1)))
      assert.strictEqual(block.parentHash, world.chain.at(0)!.header.hash)
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 1)
    }),
  )

  connected("cost no request if the bloom proves that there are none", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 0, 3)
      const logs = make(world)
      yield* soon(logs.block(world.chain.at(1)!.header))
      assert.deepStrictEqual((yield* soon(logs.block(world.chain.at(2)!.header))).logs, [])
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 1)
    }),
  )

  connected("cost no request if the bloom does not match the filter", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3, 3)
      const contract = world.chain.at(1)!.logs[0]!.contract
      const logs = make(world, { ...unfiltered, filter: { addresses: [contract], topics: [] } })
      const block = yield* soon(logs.block(world.chain.at(1)!.header))
      assert.deepStrictEqual(
        block.logs.map(({ index }) => index),
        [0],
      )
      yield* soon(logs.block(world.chain.at(2)!.header))
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 1)
    }),
  )

  connected("are requested under a zero bloom until the chain has been seen to compute blooms", (world) =>
    Effect.gen(function* () {
      world.chain.blooms = false
      world.chain.extend(4, 0)
      const logs = make(world)
      assert.strictEqual((yield* soon(logs.block(world.chain.at(1)!.header))).logs.length, 4)
      assert.strictEqual((yield* soon(logs.block(world.chain.at(2)!.header))).logs.length, 0)
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 2)
    }),
  )

  connected("are always requested with LOGS_BLOOM=ignore", (world) =>
    Effect.gen(function* () {
      world.chain.extend(1, 0)
      const logs = make(world, { ...unfiltered, logsBloom: "ignore" })
      yield* soon(logs.block(world.chain.at(1)!.header))
      yield* soon(logs.block(world.chain.at(2)!.header))
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 2)
    }),
  )

  connected("are accepted under a wrong bloom if it is ignored or the receipts agree", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3, 2, 0, 4)
      const headers = [1, 2, 3, 4].map((number) => world.chain.at(number)!.header)
      for (const header of headers) Object.assign(header, { logsBloom: `0x01${"0".repeat(510)}` })
      const trusting = make(world)
      for (const header of headers) {
        const { number, logs } = yield* soon(trusting.block(header), "10 seconds")
        assert.lengthOf(logs, world.chain.at(number)!.logs.length)
      }
      assert.strictEqual(trusting.capabilities.bloomMismatches, 4)
      assert.match(trusting.capabilities.limits.join(), /LOGS_BLOOM=ignore/)
      const logs = make(world, { ...unfiltered, logsBloom: "ignore" })
      for (const read of [
        Effect.forEach(headers, logs.block),
        logs.unfinalizedRange(1, 4),
        Effect.map(logs.finalizedRange(1, 4), (blocks) =>
          blocks.toSpliced(2, 0, ...world.chain.blocks(3, 3)),
        ),
      ]) {
        assert.deepStrictEqual(shape(yield* soon(read)), shape(world.chain.blocks(1)))
      }
    }),
  )

  connected("are requested again if they are missing although an ignored bloom is not zero", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3)
      let tries = 0
      world.node.intercept = on("eth_getLogs", (_, proceed) => (tries++ < 2 ? [] : proceed()))
      const logs = make(world, { ...unfiltered, logsBloom: "ignore" })
      assert.strictEqual((yield* soon(logs.block(world.chain.head))).logs.length, 3)
      world.node.intercept = on("eth_getLogs", () => [])
      assert.deepStrictEqual((yield* soon(logs.block(world.chain.head))).logs, [])
    }),
  )

  connected("are requested again while a fresh block is unknown [G-041]", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2)
      let tries = 0
      world.node.intercept = on("eth_getLogs", (_, proceed) => {
        if (tries++ < 2) throw new Refused(-32000, "unknown block")
        return proceed()
      })
      assert.strictEqual((yield* soon(make(world).block(world.chain.head))).logs.length, 2)
      assert.strictEqual(tries, 3)
    }),
  )

  connected("are requested again after an empty list for a fresh block [G-008]", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2)
      let tries = 0
      world.node.intercept = on("eth_getLogs", (_, proceed) => (tries++ < 2 ? [] : proceed()))
      assert.strictEqual((yield* soon(make(world).block(world.chain.head))).logs.length, 2)
    }),
  )

  connected("are read from receipts if eth_getLogs stays wrong", (world) =>
    Effect.gen(function* () {
      world.chain.extend(7)
      world.node.intercept = on("eth_getLogs", () => [])
      const block = yield* soon(make(world).block(world.chain.head), "5 seconds")
      assert.deepStrictEqual(
        shape([{ ...block, timestamp: 0 }]),
        shape(world.chain.blocks(1).map((b) => ({ ...b, timestamp: 0 }))),
      )
      assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 1)
    }),
  )

  connected(
    "are read from receipts where eth_getLogs without an address is refused, directly after two refusals",
    (world) =>
      Effect.gen(function* () {
        world.chain.extend(3, 4, 5)
        world.node.intercept = on("eth_getLogs", refuse(-32701, "Please specify an address in your request"))
        const logs = make(world)
        assert.strictEqual((yield* soon(logs.block(world.chain.at(1)!.header))).logs.length, 3)
        assert.strictEqual((yield* soon(logs.block(world.chain.at(2)!.header))).logs.length, 4)
        assert.strictEqual((yield* soon(logs.block(world.chain.at(3)!.header))).logs.length, 5)
        assert.strictEqual(world.node.timesAsked("eth_getLogs"), 2)
      }),
  )

  connected("are read from receipts and filtered if one response would be too large", (world) =>
    Effect.gen(function* () {
      world.chain.extend(9)
      const contract = world.chain.head && world.chain.at(1)!.logs[1]!.contract
      world.node.intercept = on("eth_getLogs", refuse(-32008, "Response is too big"))
      const logs = make(world, { ...unfiltered, filter: { addresses: [contract], topics: [] } })
      const block = yield* soon(logs.block(world.chain.head))
      assert.deepStrictEqual(
        block.logs.map(({ index }) => index),
        [1, 6],
      )
    }),
  )

  connected("are read from single receipts where block receipts are refused as well", (world) =>
    Effect.gen(function* () {
      world.chain.extend(90, 4, 5)
      world.node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs") throw new Refused(-32701, "Please specify an address in your request")
        if (method === "eth_getBlockReceipts") throw new Refused(-32601, "method not found")
        return proceed()
      }
      const logs = make(world)
      const block = yield* soon(logs.block(world.chain.at(1)!.header))
      assert.deepStrictEqual(shape([block]), shape(world.chain.blocks(1, 1)))
      assert.strictEqual(world.node.timesAsked("eth_getTransactionReceipt"), 30)
      yield* soon(logs.block(world.chain.at(2)!.header))
      yield* soon(logs.block(world.chain.at(3)!.header))
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 2, "refusals are remembered")
      assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 2)
    }),
  )

  connected("are treated as not available yet for five seconds after an ambiguous error", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3, 4, 5)
      world.node.intercept = (method, _params, proceed) => {
        if (/Logs|Receipt/.test(method)) throw new Refused(-32000, "le bloc fait défaut")
        return proceed()
      }
      const logs = make(world)
      const { header } = world.chain.at(1)!
      const ask = soon(Effect.flip(logs.block(header)))
      assert.strictEqual(errorKind(yield* ask), "BlockNotFound")
      yield* soon(Effect.flip(logs.block(world.chain.at(2)!.header)))
      yield* soon(Effect.flip(logs.block(world.chain.at(3)!.header)))
      assert.strictEqual(logs.capabilities.refused.size, 0, "no method is disabled")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(errorKind(yield* ask), "Unavailable", "after five seconds it is a refusal")
      world.node.intercept = (_method, _params, proceed) => proceed()
      assert.strictEqual((yield* soon(logs.block(header))).logs.length, 3)
    }),
  )

  connected(
    "leave a method enabled after ambiguous errors for fresh blocks, and disable it for an old block",
    (world) =>
      Effect.gen(function* () {
        world.chain.extend(1, 2, 3)
        world.node.intercept = on("eth_getLogs", refuse(-32004, "unsupported"))
        const logs = make(world)
        for (const { header } of world.chain.blocks(1).map(({ number }) => world.chain.at(number)!))
          assert.isAbove((yield* soon(logs.block(header))).logs.length, 0)
        assert.strictEqual(logs.capabilities.refused.size, 0)
        yield* soon(logs.block({ ...world.chain.head, timestamp: -61 }))
        assert.deepStrictEqual([...logs.capabilities.refused], ["eth_getLogs"])
      }),
  )

  const withoutHash = (words: string) =>
    on("eth_getLogs", (filter, proceed) => {
      if (filter["blockHash"] !== undefined) throw new Refused(-32602, words)
      return proceed()
    })

  for (const words of ["missing fromBlock", "invalid argument 0: json: unknown field blockHash"]) {
    connected(`are requested by height where the hash is refused (${words}), and from then on`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(1, 2, 3)
        world.node.intercept = withoutHash(words)
        const logs = make(world)
        for (const number of [1, 2, 3])
          assert.strictEqual((yield* soon(logs.block(world.chain.at(number)!.header))).logs.length, number)
        assert.isFalse(logs.capabilities.byHash)
        assert.strictEqual(world.node.timesAsked("eth_getLogs"), 5)
        assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 0)
      }),
    )
  }

  connected("are accepted by height only from a node that has this block", (world) =>
    Effect.gen(function* () {
      world.chain.blooms = false
      world.chain.extend(2, 0)
      const ours = world.chain.blocks(1).map(({ number }) => world.chain.at(number)!.header)
      const refusing = withoutHash("missing fromBlock")
      world.node.intercept = (method, params, proceed) =>
        method === "eth_getBlockReceipts" || method === "eth_getBlockByHash"
          ? refuse(-32601, "method not found")()
          : refusing(method, params, proceed)
      const logs = make(world)
      assert.deepStrictEqual((yield* soon(logs.block(ours[1]!))).logs, [], "the node has it")
      world.node.lag = 1
      assert.match((yield* soon(Effect.flip(logs.block(ours[1]!)), "5 seconds")).message, /does not have/)
      world.node.lag = 0
      const another = { ...ours[0]!, hash: ours[1]!.hash }
      assert.match(
        (yield* soon(Effect.flip(logs.block(another)), "5 seconds")).message,
        /logs of another block/,
      )
    }),
  )

  connected("are read in smaller batches of receipts if one response would be too large", (world) =>
    Effect.gen(function* () {
      world.chain.extend(300)
      let inBatch = 0
      world.node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs" || method === "eth_getBlockReceipts")
          throw new Refused(-32008, "Response is too big")
        if (method === "eth_getTransactionReceipt" && ++inBatch > 5)
          throw new Refused(-32003, "response too large")
        return proceed()
      }
      const receive = world.node.receive.bind(world.node)
      world.node.receive = (session, text) => {
        inBatch = 0
        receive(session, text)
      }
      const logs = make(world)
      const block = yield* soon(logs.block(world.chain.head), "1 minute")
      assert.deepStrictEqual(shape([block]), shape(world.chain.blocks(1)))
      assert.isAtMost(logs.capabilities.receipts.current, 5)
    }),
  )

  connected("fail with the first error if every method is refused", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3)
      world.node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs") throw new Refused(-32701, "Please specify an address in your request")
        if (method === "eth_getBlockReceipts" || method === "eth_getTransactionReceipt") {
          throw new Refused(-32601, "method not found")
        }
        return proceed()
      }
      const error = yield* soon(Effect.flip(make(world).block(world.chain.head)), "5 seconds")
      assert.match(error.message, /Please specify an address/)
    }),
  )

  const corruptions: ReadonlyArray<readonly [string, (logs: Wire) => unknown]> = [
    ["the last log is missing", (logs) => logs.slice(0, -1)],
    ["a log in the middle is missing", (logs) => logs.toSpliced(2, 1)],
    ["the first log is missing", (logs) => logs.slice(1)],
    ["two logs have the same index", (logs) => logs.with(1, { ...logs[1]!, logIndex: "0x0" })],
    ["a log is of another block", (logs) => logs.with(1, { ...logs[1]!, blockHash: `0x${"99".repeat(32)}` })],
    ["a log is marked as removed", (logs) => logs.with(1, { ...logs[1]!, removed: true })],
    ["a log has another address", (logs) => logs.with(1, { ...logs[1]!, address: `0x${"99".repeat(20)}` })],
  ]

  const dialects: ReadonlyArray<readonly [string, (logs: Wire) => unknown]> = [
    ["a log comes twice", (logs) => [...logs, logs.at(-1)]],
    ["logs are out of order", (logs) => logs.toReversed()],
    ["quantities are numbers", (logs) => logs.map((log) => ({ ...log, logIndex: Number(log.logIndex) }))],
    ["quantities are digits", (logs) => logs.map((log) => ({ ...log, logIndex: `${Number(log.logIndex)}` }))],
    ["removed is null", (logs) => logs.map((log) => ({ ...log, removed: null }))],
  ]
  for (const [title, change] of dialects) {
    connected(`are accepted when ${title}`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(5)
        world.node.intercept = on("eth_getLogs", (_, proceed) => change(proceed() as Wire))
        const block = yield* soon(make(world).block(world.chain.head))
        assert.deepStrictEqual(shape([block]), shape(world.chain.blocks(1)))
        assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 0)
      }),
    )
  }

  connected("may have gaps in their indexes if the receipts have the same gaps", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5, 4, 3)
      const holed = (logs: Wire) =>
        logs.map((log) => ({ ...log, logIndex: `0x${(Number(log.logIndex) * 2).toString(16)}` }))
      world.node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs") return holed(proceed() as Wire)
        if (method !== "eth_getBlockReceipts") return proceed()
        return (proceed() as Array<{ logs: Wire }>).map(({ logs, ...rest }) => ({
          ...rest,
          logs: holed(logs),
        }))
      }
      const logs = make(world)
      const first = yield* soon(logs.block(world.chain.at(1)!.header), "5 seconds")
      assert.deepStrictEqual(
        first.logs.map(({ index }) => index),
        [0, 2, 4, 6, 8],
      )
      assert.lengthOf((yield* soon(logs.block(world.chain.head))).logs, 3)
      assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 4)
      const blocks = yield* soon(make(world).finalizedRange(1, 3), "5 seconds")
      assert.deepStrictEqual(
        blocks.map(({ logs }) => logs.length),
        [5, 4, 3],
      )
    }),
  )

  connected("under a filter are requested again and then read from receipts, if the bloom matches", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5)
      const filter = { addresses: [world.chain.at(1)!.logs[0]!.contract], topics: [] }
      let early = 2
      world.node.intercept = on("eth_getLogs", (_, proceed) => (early-- > 0 ? [] : proceed()))
      assert.lengthOf((yield* soon(make(world, { ...unfiltered, filter }).block(world.chain.head))).logs, 1)
      assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 0)
      world.node.intercept = on("eth_getLogs", () => null)
      assert.lengthOf(
        (yield* soon(make(world, { ...unfiltered, filter }).block(world.chain.head), "5 seconds")).logs,
        1,
      )
      assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 1)
    }),
  )

  connected("under a filter may be empty under a matching bloom if no other method is supported", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5)
      const filter = { addresses: [world.chain.at(1)!.logs[0]!.contract], topics: [] }
      world.node.intercept = (method, _params, proceed) => {
        if (/Receipts?$/.test(method)) throw new Refused(-32601, "method not found")
        return method === "eth_getLogs" ? [] : proceed()
      }
      const { logs } = yield* soon(
        make(world, { ...unfiltered, filter }).block(world.chain.head),
        "5 seconds",
      )
      assert.lengthOf(logs, 0)
      assert.strictEqual(world.node.timesAsked("eth_getBlockByHash"), 1)
      assert.strictEqual(world.node.timesAsked("eth_getTransactionReceipt"), 0)
    }),
  )

  const zeros = `0x${"0".repeat(512)}` as const
  connected("are complete under announced zero blooms, if fetched headers have correct blooms", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3, 2, 4)
      const logs = make(world)
      yield* soon(logs.unfinalizedRange(1, 2))
      const announced = { ...world.chain.head, logsBloom: zeros, origin: "announced" } as const
      assert.lengthOf((yield* soon(logs.block(announced))).logs, 4)
      let early = 1
      world.node.intercept = on("eth_getLogs", (_, proceed) => (early-- > 0 ? [] : proceed()))
      assert.lengthOf((yield* soon(logs.block(announced))).logs, 4)
    }),
  )

  for (const [title, bloom] of [
    ["zero although gas was used", zeros],
    ["all ones", `0x${"f".repeat(512)}`],
    ["missing", undefined],
  ] as const) {
    connected(`are complete where the bloom is ${title}`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(3, 2, 4)
        for (const settings of [unfiltered, { ...unfiltered, logsBloom: "ignore" as const }]) {
          const logs = make(world, settings)
          yield* soon(logs.unfinalizedRange(1, 2))
          const header = { ...world.chain.head, logsBloom: bloom, executed: true }
          assert.lengthOf((yield* soon(logs.block(header))).logs, 4)
        }
      }),
    )
  }

  connected("include logs of eth_getLogs without a receipt (Polygon's state sync)", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5)
      const extra = { logIndex: "0x5", transactionIndex: "0x2", transactionHash: `0x${"77".repeat(32)}` }
      world.node.intercept = on("eth_getLogs", (_, proceed) => {
        const logs = proceed() as Wire
        return [...logs, { ...logs[0]!, ...extra, address: `0x${"88".repeat(20)}` }]
      })
      for (const settings of [unfiltered, { ...unfiltered, logsBloom: "ignore" as const }]) {
        const { logs } = yield* soon(make(world, settings).block(world.chain.head), "5 seconds")
        assert.lengthOf(logs, 6)
      }
    }),
  )

  connected("are not accepted from receipts that lack a transaction, even without a bloom", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5)
      world.node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs") throw new Refused(-32701, "Please specify an address in your request")
        if (method === "eth_getTransactionReceipt") throw new Refused(-32601, "method not found")
        return method === "eth_getBlockReceipts" ? [] : proceed()
      }
      const header = { ...world.chain.head, logsBloom: undefined, executed: true }
      const error = yield* soon(Effect.flip(make(world).block(header)), "10 seconds")
      assert.match(error.message, /specify an address/)
    }),
  )
  for (const [title, corrupt] of corruptions) {
    connected(`are rejected when ${title}`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(5)
        world.node.intercept = (method, _params, proceed) => {
          if (/Receipts?$/.test(method)) throw new Refused(-32601, "method not found")
          return method === "eth_getLogs" ? corrupt(proceed() as Wire) : proceed()
        }
        const error = yield* soon(Effect.flip(make(world).block(world.chain.head)), "5 seconds")
        assert.strictEqual(error.reason._tag, "Unverified")
      }),
    )
  }

  connected("are dropped if they do not match the filter", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5)
      const contract = world.chain.at(1)!.logs[0]!.contract
      world.node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs") delete (params[0] as { address?: unknown }).address
        return proceed()
      }
      const logs = make(world, { ...unfiltered, filter: { addresses: [contract], topics: [] } })
      assert.lengthOf((yield* soon(logs.block(world.chain.head))).logs, 1)
    }),
  )

  connected("of a large block must have no index gap", (world) =>
    Effect.gen(function* () {
      world.chain.extend(400)
      assert.strictEqual((yield* soon(make(world).block(world.chain.head))).logs.length, 400)
      world.node.intercept = (method, _params, proceed) => {
        if (/Receipts?$/.test(method)) throw new Refused(-32601, "method not found")
        return method === "eth_getLogs" ? (proceed() as Wire).toSpliced(300, 1) : proceed()
      }
      const error = yield* soon(Effect.flip(make(world).block(world.chain.head)), "5 seconds")
      assert.match(error.message, /log 300 is missing/)
    }),
  )
})

describe("the logs of an unfinalized range", () => {
  connected("are read in one request, with all headers", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 0, 3, 0, 1)
      const blocks = yield* soon(make(world).unfinalizedRange(1, 5))
      assert.deepStrictEqual(shape(blocks), shape(world.chain.blocks(1)))
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 1)
    }),
  )

  connected("are requested block by block if the range omits a block with logs", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 3, 1)
      world.node.intercept = on("eth_getLogs", (filter, proceed) => {
        const logs = proceed() as ReadonlyArray<{ blockNumber: string }>
        return "blockHash" in filter ? logs : logs.filter(({ blockNumber }) => blockNumber !== "0x2")
      })
      assert.deepStrictEqual(
        shape(yield* soon(make(world).unfinalizedRange(1, 3))),
        shape(world.chain.blocks(1)),
      )
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 2)
    }),
  )

  connected("are requested block by block if range and headers belong to different forks [G-047]", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 3)
      world.node.intercept = on("eth_getLogs", (filter, proceed) => {
        const logs = proceed() as Wire
        return "blockHash" in filter
          ? logs
          : logs.map((log) => ({ ...log, blockHash: `0x${"99".repeat(32)}` }))
      })
      assert.deepStrictEqual(
        shape(yield* soon(make(world).unfinalizedRange(1, 2))),
        shape(world.chain.blocks(1)),
      )
    }),
  )

  connected("are requested block by block where the range is refused", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 3)
      world.node.intercept = on("eth_getLogs", (filter, proceed) => {
        if (!("blockHash" in filter)) throw new Refused(-32005, "query returned more than 10000 results")
        return proceed()
      })
      assert.deepStrictEqual(
        shape(yield* soon(make(world).unfinalizedRange(1, 2))),
        shape(world.chain.blocks(1)),
      )
    }),
  )

  connected("are retried later if a header is not available yet", (world) =>
    Effect.gen(function* () {
      world.chain.extend(1, 1)
      const error = yield* soon(Effect.flip(make(world).unfinalizedRange(1, 5)), "5 seconds")
      assert.match(error.message, /block 3 is not available yet/)
    }),
  )

  connected("tolerate heights without a block", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 3, 1)
      const [first, , third] = [1, 2, 3].map((number) => world.chain.at(number)!)
      Object.assign(third!.header, { parentHash: first!.header.hash })
      world.node.intercept = (method, params, proceed) =>
        method === "eth_getBlockByNumber" && params[0] === "0x2" ? null : proceed()
      for (const [from, to] of [
        [1, 3],
        [2, 3],
        [1, 2],
      ] as const) {
        const blocks = yield* soon(make(world).unfinalizedRange(from, to), "5 seconds")
        assert.deepStrictEqual(
          blocks.map(({ number }) => number),
          [1, 3].filter((number) => number >= from && number <= to),
        )
      }
    }),
  )

  connected("are retried later if a replica that is behind leaves out the first headers", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 3, 1, 0)
      // The replica has block 1; another one returns blocks 4 and above.
      world.node.intercept = on("eth_getBlockByNumber", (params, proceed) =>
        ["0x2", "0x3"].includes(String(params)) ? null : proceed(),
      )
      const error = yield* soon(Effect.flip(make(world).unfinalizedRange(3, 4)), "5 seconds")
      assert.match(error.message, /block 3 is not available yet/)
    }),
  )

  connected("are read without batches where the node refuses them", (world) =>
    Effect.gen(function* () {
      world.chain.extend(1, 2, 1)
      let batched = true
      world.node.intercept = on("eth_getBlockByNumber", (_, proceed) => {
        if (batched) throw new Refused(-32600, "batch too large")
        return proceed()
      })
      const blocks = yield* Effect.forkChild(make(world).unfinalizedRange(1, 3), { startImmediately: true })
      yield* soon(Effect.void, "2 millis")
      batched = false
      yield* soon(Effect.void)
      assert.strictEqual(blocks.pollUnsafe()?._tag, "Success")
    }),
  )

  connected("are read with smaller header batches after a large one is refused without an id", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 20 }, () => 1))
      world.node.mostCalls = 10
      world.node.tooLarge = "no id"
      const logs = make(world)
      assert.deepStrictEqual(
        shape(yield* soon(logs.unfinalizedRange(1, 20))),
        shape(world.chain.blocks(1, 20)),
      )
      assert.strictEqual(logs.capabilities.headers.current, 10)
    }),
  )

  connected("are read with smaller header batches after responses to a large one are missing", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 20 }, () => 1))
      let asked = 0
      world.node.intercept = on("eth_getBlockByNumber", (_, proceed) =>
        ++asked > 10 && asked <= 20 ? silence : proceed(),
      )
      const logs = make(world)
      assert.deepStrictEqual(
        shape(yield* soon(logs.unfinalizedRange(1, 20))),
        shape(world.chain.blocks(1, 20)),
      )
      assert.strictEqual(logs.capabilities.headers.current, 10)
    }),
  )

  connected("fail with a hint to START_BLOCK where the node has no block 0", (world) =>
    Effect.gen(function* () {
      world.chain.extend(1)
      world.node.intercept = (method, params, proceed) => {
        const block = proceed()
        return method === "eth_getBlockByNumber" && params[0] === "0x0"
          ? { ...(block as object), number: "0x1" }
          : block
      }
      const error = yield* soon(Effect.flip(make(world).unfinalizedRange(0, 1)), "5 seconds")
      assert.match(error.message, /block 1 instead of 0.*START_BLOCK=1/)
    }),
  )

  connected("are read in the largest header batches that the node accepts, and from then on", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 40 }, () => 1))
      world.node.mostCalls = 10
      const logs = make(world)
      assert.deepStrictEqual(
        shape(yield* soon(logs.unfinalizedRange(1, 20))),
        shape(world.chain.blocks(1, 20)),
      )
      assert.strictEqual(logs.capabilities.headers.current, 10)
      world.node.mostCalls = 4
      yield* soon(logs.unfinalizedRange(21, 40))
      assert.strictEqual(logs.capabilities.headers.current, 3)
      const frames = world.node.timesAsked("eth_getBlockByNumber")
      yield* soon(logs.unfinalizedRange(1, 20))
      assert.strictEqual(
        world.node.timesAsked("eth_getBlockByNumber") - frames,
        20,
        "each header is requested once",
      )
    }),
  )
})

describe("the logs of a finalized range", () => {
  connected("are read in one request: blocks with logs, and the last block", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 0, 3, 0)
      const blocks = yield* soon(make(world).finalizedRange(1, 4))
      const all = world.chain.blocks(1)
      assert.deepStrictEqual(shape(blocks), shape([all[0]!, all[2]!, all[3]!]))
      assert.strictEqual(world.node.timesAsked("eth_getBlockByNumber"), 2)
    }),
  )

  connected("have the headers' timestamps where their own are implausible", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 0, 3, 1)
      for (const time of ["0x0", "0x6553f100123", null]) {
        world.node.intercept = on("eth_getLogs", (_, proceed) =>
          (proceed() as Wire).map((log) => ({ ...log, blockTimestamp: time })),
        )
        const blocks = yield* soon(make(world).finalizedRange(1, 4))
        assert.deepStrictEqual(
          shape(blocks),
          shape(world.chain.blocks(1).filter(({ logs }) => logs.length > 0)),
        )
      }
    }),
  )

  connected("have the headers' timestamps where logs have none", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 0, 3)
      world.node.timestamps = false
      const blocks = yield* soon(make(world).finalizedRange(1, 3))
      const all = world.chain.blocks(1)
      assert.deepStrictEqual(shape(blocks), shape([all[0]!, all[2]!]))
    }),
  )

  /** Refuses ranges with more logs or blocks, and records the width of each request. */
  const limited = (
    world: World,
    most: { readonly logs?: number; readonly blocks?: number },
    text: string,
  ) => {
    const ranges: Array<number> = []
    world.node.intercept = on("eth_getLogs", (filter, proceed) => {
      const { fromBlock, toBlock } = filter
      const logs = proceed() as ReadonlyArray<unknown>
      if (fromBlock === undefined) return logs
      const blocks = quantity(toBlock)! - quantity(fromBlock)! + 1
      ranges.push(blocks)
      if (logs.length > (most.logs ?? Infinity) || blocks > (most.blocks ?? Infinity))
        throw new Refused(-32005, text)
      return logs
    })
    return ranges
  }

  connected("are requested in halves when there are too many", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 64 }, (_, i) => i % 3))
      const ranges = limited(world, { logs: 10 }, "query returned more than 10 results")
      const logs = make(world)
      const blocks = yield* soon(wholeHistory(logs, 1, 64), "5 seconds")
      assert.deepStrictEqual(
        shape(blocks.filter((block) => block.logs.length > 0)),
        shape(world.chain.blocks(1).filter((block) => block.logs.length > 0)),
      )
      assert.deepStrictEqual(ranges.slice(0, 4), [64, 32, 16, 8])
      assert.isBelow(logs.width(), 64)
    }),
  )

  connected("are returned in part if the whole range is refused, to bound memory", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 64 }, () => 3))
      limited(world, { logs: 10 }, "query returned more than 10 results")
      const blocks = yield* soon(make(world).finalizedRange(1, 64), "5 seconds")
      assert.isAtMost(blocks.flatMap(({ logs }) => logs).length, 10)
      assert.deepStrictEqual(shape(blocks), shape(world.chain.blocks(1).slice(0, blocks.length)))
    }),
  )

  connected("are requested as wide as a refusal allows [G-066]", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 64 }, () => 1))
      const ranges = limited(world, { blocks: 10 }, "eth_getLogs is limited to a 10 range")
      const logs = make(world)
      assert.strictEqual((yield* soon(wholeHistory(logs, 1, 64), "5 seconds")).length, 64)
      assert.deepStrictEqual(ranges.slice(0, 3), [64, 10, 54])
      assert.isAtMost(logs.width(), 15)
    }),
  )

  connected("are requested in halves where a refusal names no width", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 64 }, () => 1))
      const ranges = limited(world, { blocks: 10 }, "ranges over 10000 blocks are not supported on free plan")
      const logs = make(world)
      assert.strictEqual((yield* soon(wholeHistory(logs, 1, 64), "5 seconds")).length, 64)
      assert.deepStrictEqual(ranges.slice(0, 4), [64, 32, 16, 8])
      yield* soon(logs.unfinalizedRange(1, 20), "5 seconds")
      assert.strictEqual(logs.capabilities.recentWidth.current, 10)
    }),
  )

  connected("fail where a single block is refused too", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 64 }, () => 1))
      world.node.intercept = (method, _params, proceed) => {
        if (/Logs|Receipt/.test(method))
          throw new Refused(-32602, "Archive requests require a personal token")
        return proceed()
      }
      const error = yield* soon(Effect.flip(wholeHistory(make(world), 1, 64)), "5 seconds")
      assert.match(error.message, /Archive requests/)
      assert.isBelow(world.node.timesAsked("eth_getLogs"), 10)
    }),
  )

  connected("are read from receipts if even one block exceeds the limit", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5, 6)
      limited(world, { logs: 4 }, "query returned more than 4 results")
      assert.deepStrictEqual(
        shape(yield* soon(wholeHistory(make(world), 1, 2), "5 seconds")),
        shape(world.chain.blocks(1)),
      )
    }),
  )

  connected("are requested in a narrower range after a timeout", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 8 }, () => 1))
      world.node.intercept = on("eth_getLogs", (filter, proceed) => {
        const { fromBlock, toBlock } = filter
        return quantity(toBlock)! - quantity(fromBlock)! >= 4 ? silence : proceed()
      })
      assert.strictEqual((yield* soon(wholeHistory(make(world), 1, 8), "1 minute")).length, 8)
    }),
  )

  for (const [title, code, message] of [
    ["is refused without an address", -32701, "Please specify an address in your request"],
    ["is not supported", -32601, "the method eth_getLogs does not exist/is not available"],
  ] as const) {
    connected(`are read from receipts where eth_getLogs ${title}`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(...Array.from({ length: 50 }, (_, i) => i % 2))
        world.node.intercept = on("eth_getLogs", refuse(code, message))
        const blocks = yield* soon(wholeHistory(make(world), 1, 50), "5 seconds")
        assert.strictEqual(blocks.flatMap(({ logs }) => logs).length, 25)
        assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 25)
        // The range, and the single blocks that are read concurrently.
        assert.isAtMost(world.node.timesAsked("eth_getLogs"), 5)
      }),
    )
  }

  connected("are read by eth_getLogs block by block where only ranges are refused", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 40 }, () => 2))
      let ranges = 0
      world.node.intercept = on("eth_getLogs", ({ blockHash }, proceed) => {
        if (blockHash !== undefined) return proceed()
        ranges++
        throw new Refused(-32601, "the method eth_getLogs does not exist/is not available")
      })
      const logs = make(world)
      assert.strictEqual((yield* soon(wholeHistory(logs, 1, 20), "5 seconds")).length, 20)
      for (const from of [21, 31]) yield* soon(logs.unfinalizedRange(from, from + 9), "5 seconds")
      assert.strictEqual(ranges, 1)
      assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 0)
    }),
  )

  connected("are read in ranges again after a single refusal", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 30 }, () => 2))
      const logs = make(world)
      world.node.intercept = on("eth_getLogs", ({ blockHash }, proceed) => {
        if (blockHash === undefined) throw new Refused(-32601, "the method eth_getLogs does not exist")
        return proceed()
      })
      yield* soon(logs.unfinalizedRange(1, 2), "5 seconds")
      world.node.intercept = (_method, _params, proceed) => proceed()
      const before = world.node.timesAsked("eth_getLogs")
      yield* soon(logs.unfinalizedRange(11, 20), "5 seconds")
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), before + 1)
    }),
  )

  const corruptions: ReadonlyArray<readonly [string, (logs: Array<Record<string, unknown>>) => unknown]> = [
    ["a log is outside the range", (logs) => logs.with(0, { ...logs[0], blockNumber: "0x0" })],
    ["a block has two hashes", (logs) => logs.with(1, { ...logs[1], blockHash: `0x${"99".repeat(32)}` })],
    [
      "the last block has another hash",
      (logs) =>
        logs.map((log) =>
          log["blockNumber"] === "0x3" ? { ...log, blockHash: `0x${"99".repeat(32)}` } : log,
        ),
    ],
    ["a log is missing", (logs) => logs.toSpliced(1, 1)],
    ["a log was removed", (logs) => logs.with(1, { ...logs[1], removed: true })],
  ]
  for (const [title, corrupt] of corruptions) {
    connected(`are rejected when ${title}`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(3, 3, 3)
        world.node.intercept = on("eth_getLogs", (_, proceed) =>
          corrupt(proceed() as Array<Record<string, unknown>>),
        )
        const error = yield* soon(Effect.flip(make(world).finalizedRange(1, 3)), "5 seconds")
        assert.strictEqual(error.reason._tag, "Unverified")
      }),
    )
  }

  const clamped = (to: number): Intercept =>
    on("eth_getLogs", ({ fromBlock }, proceed) =>
      fromBlock === undefined
        ? proceed()
        : (proceed() as Array<Record<string, unknown>>).filter((log) => quantity(log["blockNumber"])! < to),
    )

  for (const [title, filterOf] of [
    ["without a filter", () => unfiltered.filter],
    ["under a filter", (contract: Hex) => ({ addresses: [contract], topics: [] })],
  ] as const) {
    connected(`are rejected if the response ends before the range, ${title}`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(3, 3, 3, 1)
        const filter = filterOf(world.chain.at(4)!.logs[0]!.contract)
        world.node.intercept = clamped(3)
        const logs = make(world, { ...unfiltered, filter })
        const error = yield* soon(Effect.flip(logs.finalizedRange(1, 4)), "5 seconds")
        assert.match(error.message, /block 4/)
      }),
    )
  }

  connected(
    "are rejected if the response ends before the range, on a chain without blooms [G-045]",
    (world) =>
      Effect.gen(function* () {
        world.chain.blooms = false
        world.chain.extend(3, 3, 3, 1)
        world.node.intercept = clamped(3)
        const error = yield* soon(Effect.flip(make(world).finalizedRange(1, 4)), "5 seconds")
        assert.match(error.message, /the logs of block 4 are missing/)
      }),
  )

  connected("are accepted unchecked from an endpoint that serves ranges only", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3, 3, 3, 0)
      world.chain.blooms = false
      world.chain.extend(0)
      world.node.intercept = on("eth_getLogs", ({ blockHash }, proceed) =>
        blockHash === undefined ? proceed() : refuse(-32601, "the method does not exist")(),
      )
      const logs = make(world)
      assert.strictEqual((yield* soon(logs.finalizedRange(1, 5))).length, 4)
      yield* soon(logs.finalizedRange(1, 4))
    }),
  )

  connected("are requested in a narrower range after a truncated response", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 100 }, () => 3))
      world.node.intercept = on("eth_getLogs", (_, proceed) => (proceed() as Array<unknown>).slice(0, 30))
      const logs = make(world)
      const before = logs.width()
      yield* soon(Effect.flip(logs.finalizedRange(1, 100)), "5 seconds")
      assert.isBelow(logs.width(), before)
    }),
  )

  connected("are requested in wider ranges while responses stay small", (world) =>
    Effect.gen(function* () {
      world.chain.extend(...Array.from({ length: 2000 }, () => 0))
      const logs = make(world)
      const first = logs.width()
      yield* soon(logs.finalizedRange(1, first))
      assert.isAbove(logs.width(), first)
      const second = logs.width()
      yield* soon(logs.finalizedRange(first + 1, first + second))
      assert.isAbove(logs.width(), second)
    }),
  )

  connected("are read again if a replica that is behind leaves out blocks below an empty last one", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 3, 1, 0, 0)
      let isBehind = true
      world.node.intercept = on("eth_getLogs", (filter, proceed) => {
        if (!isBehind || "blockHash" in filter) return proceed()
        isBehind = false
        return (proceed() as Array<{ blockNumber: string }>).filter(({ blockNumber }) => blockNumber <= "0x2")
      })
      const blocks = yield* soon(make(world).finalizedRange(1, 5), "5 seconds")
      assert.deepStrictEqual(
        blocks.map(({ number, logs }) => [number, logs.length]),
        [
          [1, 2],
          [2, 3],
          [3, 1],
          [5, 0],
        ],
      )
    }),
  )

  connected("cost no more headers at the end of a range that every replica has", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, ...Array.from({ length: 12 }, () => 0))
      yield* soon(make(world).finalizedRange(1, 5))
      // The last header, and one where a pruned answer would begin.
      assert.strictEqual(world.node.timesAsked("eth_getBlockByNumber"), 2)
    }),
  )

  connected("are retried later if a replica that is behind does not have the last block", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2, 3, 0)
      world.node.intercept = (method, params, proceed) => {
        // Another replica has block 3.
        if (method === "eth_getBlockByNumber" && params[0] === "0x2") return null
        const answer = proceed()
        return method === "eth_getLogs"
          ? (answer as Array<{ blockNumber: string }>).filter(({ blockNumber }) => blockNumber === "0x1")
          : answer
      }
      const error = yield* soon(Effect.flip(make(world).finalizedRange(1, 2)), "5 seconds")
      assert.match(error.message, /block 2 is not available yet/)
    }),
  )
})

describe("the width of unfinalized ranges", () => {
  connected("follows the density of logs in blocks and ranges", (world) =>
    Effect.gen(function* () {
      world.chain.extend(2000, 1000, 2, ...Array.from({ length: 30 }, () => 1))
      const logs = make(world)
      assert.strictEqual(logs.capabilities.recentWidth.current, 20)
      yield* soon(logs.block(world.chain.at(1)!.header))
      assert.strictEqual(logs.capabilities.recentWidth.current, 2)
      yield* soon(logs.unfinalizedRange(3, 4))
      yield* soon(logs.unfinalizedRange(5, 7))
      assert.strictEqual(logs.capabilities.recentWidth.current, 4)
      yield* soon(logs.finalizedRange(1, 2))
      assert.strictEqual(logs.capabilities.recentWidth.current, 3)
    }),
  )
})

describe("a filter of many addresses", () => {
  const many = (world: World, count: number) => {
    const wanted = world.chain.blocks().flatMap(({ logs }) => logs.map(({ contract }) => contract))
    const others = Array.from(
      { length: count },
      (_, i) => `0x${(i + 1).toString(16).padStart(40, "0")}` as const,
    )
    return {
      filter: { addresses: [...new Set([...others, ...wanted])], topics: [] },
      logsBloom: "trust",
    } as const
  }

  connected("is split over requests, and the logs are in order", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5, 4, 3)
      const sizes: Array<number> = []
      world.node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs")
          sizes.push((params[0] as { address: ReadonlyArray<string> }).address.length)
        return proceed()
      }
      const logs = make(world, many(world, 2500))
      const blocks = yield* soon(logs.finalizedRange(1, 3))
      assert.deepStrictEqual(shape(blocks), shape(world.chain.blocks(1)))
      assert.strictEqual(sizes.length, 3)
      assert.isAtMost(Math.max(...sizes), 1000)
    }),
  )

  connected("is split further where the endpoint refuses it, and from then on", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5, 4)
      let refusals = 0
      world.node.intercept = on("eth_getLogs", ({ address }, proceed) => {
        if (address!.length < 10) return proceed()
        refusals++
        throw new Refused(-32602, "Request blocked")
      })
      const logs = make(world, many(world, 60))
      yield* soon(logs.block(world.chain.at(1)!.header))
      assert.isBelow(logs.capabilities.addresses.current, 10)
      const before = refusals
      const block = yield* soon(logs.block(world.chain.at(2)!.header))
      assert.deepStrictEqual(shape([block]), shape(world.chain.blocks(2)))
      assert.strictEqual(refusals, before)
    }),
  )

  connected("is also split where blocks are requested by height", (world) =>
    Effect.gen(function* () {
      world.chain.extend(5)
      world.node.intercept = on("eth_getLogs", ({ address, blockHash }, proceed) => {
        if (blockHash !== undefined) throw new Refused(-32602, "invalid argument 0: blockHash")
        if (address!.length >= 10) throw new Refused(-32602, "Request blocked")
        return proceed()
      })
      const logs = make(world, many(world, 60))
      const block = yield* soon(logs.block(world.chain.head))
      assert.deepStrictEqual(shape([block]), shape(world.chain.blocks(1)))
      assert.isBelow(logs.capabilities.addresses.current, 10)
      assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), 0)
    }),
  )
})

describe("an empty response where heads are polled", () => {
  /** The log source of the same connection, with polled heads. */
  const polled = (world: World, chain?: Parameters<typeof LogSource.make>[1]) =>
    make({ ...world, connection: { ...world.connection, polled: true } }, chain)

  /** A filter for the second contract of a block. */
  const forOneOf = ({ chain }: World, number: number) =>
    ({ ...unfiltered, filter: { addresses: [chain.at(number)!.logs[1]!.contract], topics: [] } }) as const

  const empty = on("eth_getLogs", () => [])

  for (const [title, blooms, logs, filtered] of [
    ["without a filter and a bloom", false, 3, false],
    ["under a filter, without a bloom", false, 3, true],
    ["under a filter, with a bloom full enough to match by chance", true, 400, true],
  ] as const) {
    connected(`is checked against the receipts ${title}`, (world) =>
      Effect.gen(function* () {
        world.chain.blooms = blooms
        world.chain.extend(logs)
        world.node.intercept = empty
        const chain = filtered ? forOneOf(world, 1) : unfiltered
        const block = yield* soon(polled(world, chain).block(world.chain.head))
        const [wanted] = chain.filter.addresses
        assert.deepStrictEqual(
          block.logs.map(({ txHash, index }) => [txHash, index]),
          world.chain
            .at(1)!
            .logs.filter(({ contract }) => wanted === undefined || contract === wanted)
            .map(({ txHash, index }) => [txHash, index]),
        )
        assert.strictEqual(world.node.timesAsked("eth_getLogs"), 1)
      }),
    )
  }

  connected(
    "costs one request of receipts if it is right, and none under a bloom that does not match",
    (world) =>
      Effect.gen(function* () {
        world.chain.extend(3, 3)
        const { block } = polled(world, forOneOf(world, 1))
        assert.lengthOf((yield* soon(block(world.chain.at(2)!.header))).logs, 0)
        assert.strictEqual(world.node.timesAsked("eth_getLogs"), 0)
        world.chain.blooms = false
        world.chain.extend(3)
        assert.lengthOf((yield* soon(block(world.chain.head))).logs, 0)
        assert.deepStrictEqual(
          [world.node.timesAsked("eth_getLogs"), world.node.timesAsked("eth_getBlockReceipts")],
          [1, 1],
        )
      }),
  )

  connected("is retried where receipts are refused [G-009]", (world) =>
    Effect.gen(function* () {
      world.chain.blooms = false
      world.chain.extend(3, 3, 3, 3)
      const filter = forOneOf(world, 4)
      const { capabilities, block: read } = polled(world, filter)
      let answers = 0
      world.node.intercept = on("eth_getLogs", (_filter, proceed) => (++answers < 4 ? [] : proceed()))
      capabilities.refused.add("eth_getBlockReceipts")
      const block = yield* soon(read(world.chain.head))
      assert.deepStrictEqual(
        block.logs.map(({ index }) => index),
        [1],
      )
      assert.strictEqual(answers, 4)
    }),
  )

  connected("is checked as soon as a subscription is refused", (world) =>
    Effect.gen(function* () {
      world.chain.blooms = false
      world.chain.extend(3)
      const { block } = make(world)
      world.node.intercept = empty
      assert.lengthOf((yield* soon(block(world.chain.head))).logs, 0)
      world.node.intercept = (method, params, proceed) =>
        method === "eth_subscribe"
          ? refuse(-32601, "the method does not exist")()
          : empty(method, params, proceed)
      yield* soon(world.connection.subscribe(["newHeads"], () => {}))
      assert.lengthOf((yield* soon(block(world.chain.head))).logs, 3)
    }),
  )

  for (const [unit, unitsPerSecond] of [
    ["seconds", 1],
    ["milliseconds", 1000],
  ] as const) {
    connected(`is accepted for a block a minute older than the head, with timestamps in ${unit}`, (world) =>
      Effect.gen(function* () {
        world.chain.blooms = false
        world.chain.extend(3, 3)
        const now = 1_700_000_000 * unitsPerSecond
        const [block, head] = [world.chain.at(1)!.header, world.chain.head]
        const { block: read } = polled(world, {
          ...unfiltered,
          filter: { addresses: [`0x${"1".repeat(40)}`], topics: [] },
        })
        Object.assign(block, { timestamp: now })
        for (const [age, receipts] of [
          [59, 1],
          [60, 1],
        ] as const) {
          Object.assign(head, { timestamp: now + age * unitsPerSecond })
          assert.lengthOf((yield* soon(read(block))).logs, 0)
          assert.strictEqual(world.node.timesAsked("eth_getBlockReceipts"), receipts)
        }
      }),
    )
  }

  connected("is checked for the newest head, whatever the local clock says [G-186]", (world) =>
    Effect.gen(function* () {
      world.chain.blooms = false
      world.chain.extend(3)
      world.node.intercept = empty
      yield* TestClock.adjust("1 day")
      assert.lengthOf((yield* soon(polled(world).block(world.chain.head))).logs, 3)
    }),
  )
})

describe("logs that eth_getLogs and all receipts omit", () => {
  for (const [title, filtered] of [
    ["without a filter", false],
    ["under a filter", true],
  ] as const) {
    connected(`are detected by an index gap and the bloom, ${title} [G-010]`, (world) =>
      Effect.gen(function* () {
        world.chain.extend(2, 5)
        const { contract } = world.chain.at(2)!.logs[1]!
        const drop = (logs: Wire) => logs.filter(({ logIndex }) => logIndex !== "0x1")
        world.node.intercept = (method, _params, proceed) => {
          const answer = proceed()
          if (method === "eth_getLogs") return drop(answer as Wire)
          const without = (one: { logs: Wire }) => ({ ...one, logs: drop(one.logs) })
          if (method === "eth_getTransactionReceipt") return without(answer as { logs: Wire })
          if (method !== "eth_getBlockReceipts") return answer
          return (answer as ReadonlyArray<{ logs: Wire }>).map(without)
        }
        const { capabilities, block } = make(
          world,
          filtered ? { ...unfiltered, filter: { addresses: [contract], topics: [] } } : unfiltered,
        )
        yield* soon(Effect.flip(block(world.chain.head)), "10 seconds")
        assert.isFalse(capabilities.hasIndexGaps)
      }),
    )
  }
})
