/** The logs that a connection announces: when they are used, and when they are rejected. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Block, Log } from "../../../src/Domain.ts"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import { bloomOf } from "../../../src/logs/Bloom.ts"
import * as LogSource from "../../../src/logs/LogSource.ts"
import * as LogsSubscription from "../../../src/logs/LogsSubscription.ts"
import { allChecks } from "../../../src/logs/Integrity.ts"
import { hash } from "../../support/blocks.ts"
import { Refused } from "../../support/FakeNode.ts"
import { connected, endOf, soon } from "../../support/virtual.ts"
import type { World } from "../../support/virtual.ts"

const unfiltered = { filter: { addresses: [], topics: [] }, logsBloom: "trust" } as const

/** Refuses these methods; subscriptions by their kind. */
const refuse = ({ node }: World, ...methods: ReadonlyArray<string>) => {
  node.intercept = (method, params, proceed) => {
    const name = method === "eth_subscribe" ? `${method} ${String(params[0])}` : method
    if (!methods.includes(name)) return proceed()
    throw name === "eth_getLogs"
      ? new Refused(-32701, "Please specify an address in your request")
      : new Refused(-32601, "the method does not exist")
  }
}

const both = ["eth_getLogs", "eth_getBlockReceipts"]

const make = Effect.fnUntraced(function* (
  { chain: source, connection }: World,
  chain: Parameters<typeof LogSource.make>[1] = unfiltered,
) {
  const announced = yield* LogsSubscription.make(connection)
  return LogSource.make(
    connection,
    chain,
    new Capabilities(),
    allChecks,
    () => source.head.timestamp,
    announced,
  )
})

/** The log source of an endpoint that refuses the cheaper methods; its subscription has started. */
const startSubscription = Effect.fnUntraced(function* (world: World) {
  refuse(world, ...both)
  world.chain.extend(1)
  const logs = yield* make(world)
  yield* soon(logs.block(world.chain.head))
  return logs
})

const receipts = (world: World) => world.node.timesAsked("eth_getTransactionReceipt")

/** A block that is not announced. */
const silentBlock = (world: World, logs: number) => {
  world.node.announces = false
  world.chain.extend(logs)
  world.node.announces = true
  return world.chain.at(world.chain.head.number)!
}

const assertIs = (block: Block, { chain }: World) => {
  const [expected] = chain.blocks(block.number, block.number)
  const bare = (logs: ReadonlyArray<Log>) =>
    logs.map(({ index, txIndex, txHash, contract, topics, data }) => [
      index,
      txIndex,
      txHash,
      contract,
      topics,
      data,
    ])
  assert.deepStrictEqual([block.hash, bare(block.logs)], [expected!.hash, bare(expected!.logs)])
}

describe("the logs subscription", () => {
  connected("starts when both cheaper methods are refused, and then replaces them", (world) =>
    Effect.gen(function* () {
      world.chain.extend(3, 4)
      const logs = yield* make(world)
      yield* soon(logs.block(world.chain.head))
      assert.strictEqual(world.node.timesAsked("eth_subscribe"), 0)
      refuse(world, ...both)
      // A block announced before the subscription started is read receipt by receipt, at once.
      assertIs(yield* soon(logs.block(world.chain.at(1)!.header), "100 millis"), world)
      assert.strictEqual(world.node.timesAsked("eth_subscribe"), 1)
      const before = receipts(world)
      for (const count of [5, 1, 300]) {
        world.chain.extend(count)
        assertIs(yield* soon(logs.block(world.chain.head), "100 millis"), world)
      }
      assert.strictEqual(receipts(world), before)
      assert.strictEqual(world.node.timesAsked("eth_subscribe"), 1)
      assert.strictEqual(world.node.timesAsked("eth_getLogs"), 3)
    }),
  )

  connected("does not start under a filter, nor for a block that is merely too large", (world) =>
    Effect.gen(function* () {
      world.chain.extend(4, 4)
      const { contract } = world.chain.at(1)!.logs[0]!
      refuse(world, ...both)
      const filtered = yield* make(world, { ...unfiltered, filter: { addresses: [contract], topics: [] } })
      assert.strictEqual((yield* soon(filtered.block(world.chain.at(1)!.header))).logs.length, 1)
      world.node.intercept = (method, _params, proceed) => {
        if (both.includes(method)) throw new Refused(-32008, "Response is too big")
        return proceed()
      }
      assertIs(yield* soon((yield* make(world)).block(world.chain.head)), world)
      assert.strictEqual(world.node.timesAsked("eth_subscribe"), 0)
    }),
  )

  connected("waits for logs that arrive after their head", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      const before = receipts(world)
      const late = silentBlock(world, 7)
      const reading = yield* Effect.forkChild(logs.block(late.header), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      world.node.announceLogs(late, late.logs.slice(0, 4))
      yield* TestClock.adjust("500 millis")
      assert.isUndefined(reading.pollUnsafe())
      world.node.announceLogs(late, late.logs.slice(4))
      yield* TestClock.adjust("100 millis")
      assertIs(yield* Fiber.join(reading), world)
      assert.strictEqual(receipts(world), before)
    }),
  )

  connected("waits at most two seconds", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      const before = receipts(world)
      const block = silentBlock(world, 7)
      assertIs(yield* soon(logs.block(block.header), "2100 millis"), world)
      assert.isAbove(receipts(world), before)
    }),
  )

  connected("does not wait after logs of a later block have arrived", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      const block = silentBlock(world, 7)
      world.node.announceLogs({
        ...block,
        header: { ...block.header, number: block.header.number + 1, hash: hash("later") },
      })
      yield* TestClock.adjust("10 millis")
      assertIs(yield* soon(logs.block(block.header), "100 millis"), world)
    }),
  )

  connected("accepts repeated logs, and logs in any order", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      const before = receipts(world)
      const block = silentBlock(world, 9)
      world.node.announceLogs(block, [...block.logs.toReversed(), ...block.logs])
      assertIs(yield* soon(logs.block(block.header), "100 millis"), world)
      assert.strictEqual(receipts(world), before)
    }),
  )

  const corruptions: ReadonlyArray<readonly [string, (logs: ReadonlyArray<Log>) => ReadonlyArray<Log>]> = [
    ["the first log is missing", (logs) => logs.slice(1)],
    ["a log in the middle is missing", (logs) => logs.toSpliced(150, 1)],
    ["the last log is missing", (logs) => logs.slice(0, -1)],
    [
      "a log has other topics",
      (logs) => logs.with(299, { ...logs[299]!, topics: [1, 2, 3, 4].map((i) => hash("other", i)) }),
    ],
    ["there is one log too many", (logs) => [...logs, { ...logs[0]!, index: 300, topics: [hash("more")] }]],
  ]
  for (const [title, corrupt] of corruptions) {
    connected(`is rejected when ${title}, in a block of 300 logs`, (world) =>
      Effect.gen(function* () {
        const logs = yield* startSubscription(world)
        const before = receipts(world)
        const block = silentBlock(world, 300)
        world.node.announceLogs(block, corrupt(block.logs))
        assertIs(yield* soon(logs.block(block.header), "3 seconds"), world)
        assert.isAbove(receipts(world), before)
      }),
    )
  }

  connected("waits while more logs arrive, although the bloom already matches", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      const block = silentBlock(world, 6)
      // All logs have the same contract and topics, so the first one completes the bloom.
      const [first] = block.logs
      const same = block.logs.map((log) => ({ ...log, contract: first!.contract, topics: first!.topics }))
      const header = { ...block.header, logsBloom: bloomOf(same) }
      const reading = yield* Effect.forkChild(logs.block(header), { startImmediately: true })
      world.node.announceLogs(block, same.slice(0, 1))
      yield* TestClock.adjust("1 milli")
      world.node.announceLogs(block, same.slice(1, 4))
      yield* TestClock.adjust("2 millis")
      world.node.announceLogs(block, same.slice(4))
      yield* TestClock.adjust("100 millis")
      assert.strictEqual((yield* Fiber.join(reading)).logs.length, 6)
      assert.isAtLeast(world.node.timesAsked("eth_blockNumber"), 2)
    }),
  )

  connected(
    "accepts no logs if the connection ends during the round trip that would prove them complete",
    (world) =>
      Effect.gen(function* () {
        const logs = yield* startSubscription(world)
        const block = silentBlock(world, 6)
        const [first, second] = block.logs
        const same = block.logs.map((log) => ({ ...log, contract: first!.contract, topics: first!.topics }))
        const header = { ...block.header, logsBloom: bloomOf(same) }
        const reading = yield* Effect.forkChild(Effect.result(logs.block(header)), { startImmediately: true })
        world.node.announceLogs(block, same.slice(0, 1))
        yield* TestClock.adjust("3 millis")
        world.node.announceLogs(block, [{ ...second!, contract: "0x1" }])
        yield* TestClock.adjust("100 millis")
        assert.strictEqual((yield* Fiber.join(reading))._tag, "Failure")
      }),
  )

  connected("drops the logs of a removed block", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      const block = silentBlock(world, 5)
      world.node.announceLogs(block)
      world.node.announceLogs(block, block.logs.toReversed(), true)
      const before = receipts(world)
      assertIs(yield* soon(logs.block(block.header), "3 seconds"), world)
      assert.isAbove(receipts(world), before)
      // And accepts the block when its logs arrive again.
      world.node.announceLogs(block)
      const after = receipts(world)
      assertIs(yield* soon(logs.block(block.header), "100 millis"), world)
      assert.strictEqual(receipts(world), after)
    }),
  )

  connected("delivers all blocks of a fork of which only the last head is announced", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      world.chain.extend(2, 3, 1)
      const before = receipts(world)
      world.chain.fork(2, 4, 5, 6)
      const blocks = yield* soon(logs.unfinalizedRange(3, 5), "100 millis")
      for (const block of blocks) assertIs(block, world)
      assert.strictEqual(receipts(world), before)
    }),
  )

  connected("keeps a bounded number of blocks and of logs, the newest ones", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      world.chain.extend(...Array.from({ length: 64 }, () => 1))
      yield* TestClock.adjust("10 millis")
      const before = receipts(world)
      assertIs(yield* soon(logs.block(world.chain.at(2)!.header), "100 millis"), world)
      assert.strictEqual(receipts(world), before)
      world.chain.extend(1)
      assertIs(yield* soon(logs.block(world.chain.head), "100 millis"), world)
      assert.strictEqual(receipts(world), before)
      assertIs(yield* soon(logs.block(world.chain.at(2)!.header), "100 millis"), world)
      assert.strictEqual(receipts(world), before + 1)
      world.chain.extend(19_999)
      yield* TestClock.adjust("10 millis")
      assertIs(yield* soon(logs.block(world.chain.at(66)!.header), "100 millis"), world)
      assert.strictEqual(receipts(world), before + 1)
      world.chain.extend(1)
      yield* TestClock.adjust("10 millis")
      assertIs(yield* soon(logs.block(world.chain.at(66)!.header), "100 millis"), world)
      assert.strictEqual(receipts(world), before + 2)
    }),
  )

  connected("keeps a bounded number of bytes", (world) =>
    Effect.gen(function* () {
      const logs = yield* startSubscription(world)
      world.chain.extend(2, 1)
      yield* TestClock.adjust("10 millis")
      const block = world.chain.at(world.chain.head.number - 1)!
      const before = receipts(world)
      const large = `0x${"ab".repeat(1024 * 1024)}` as const
      const another = { header: { ...world.chain.head, hash: hash("another") }, logs: [] }
      const log = world.chain.at(1)!.logs[0]!
      const announce = (from: number, to: number) => {
        for (let index = from; index < to; index++)
          world.node.announceLogs(another, [{ ...log, index, data: large }])
      }
      announce(0, 15)
      yield* TestClock.adjust("10 millis")
      assertIs(yield* soon(logs.block(block.header), "100 millis"), world)
      assert.strictEqual(receipts(world), before)
      announce(15, 17)
      yield* TestClock.adjust("10 millis")
      assertIs(yield* soon(logs.block(block.header), "100 millis"), world)
      assert.strictEqual(receipts(world), before + 1)
    }),
  )

  connected("is neither used nor awaited where blooms are zero", (world) =>
    Effect.gen(function* () {
      refuse(world, ...both)
      world.chain.blooms = false
      world.chain.extend(3)
      const logs = yield* make(world)
      assertIs(yield* soon(logs.block(world.chain.head), "100 millis"), world)
      assert.strictEqual(world.node.timesAsked("eth_subscribe"), 0)
    }),
  )

  connected("remembers its own refusal", (world) =>
    Effect.gen(function* () {
      refuse(world, ...both, "eth_subscribe logs")
      const logs = yield* make(world)
      for (const count of [3, 4, 5, 6]) {
        world.chain.extend(count)
        assertIs(yield* soon(logs.block(world.chain.head), "100 millis"), world)
      }
      assert.strictEqual(world.node.timesAsked("eth_subscribe"), 2)
    }),
  )

  connected("ends with its scope", (world) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      yield* Scope.provide(startSubscription(world), scope)
      const kinds = () => [...world.node.sessions].flatMap(({ subscriptions }) => [...subscriptions.values()])
      assert.deepStrictEqual(kinds(), ["logs"])
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(kinds(), [])
    }),
  )

  connected("ends the connection at a malformed log", (world) =>
    Effect.gen(function* () {
      yield* startSubscription(world)
      const block = world.chain.at(1)!
      world.node.announceLogs(block, [{ ...block.logs[0]!, contract: "0x1" }])
      yield* TestClock.adjust("10 millis")
      assert.strictEqual((yield* endOf(world.connection))?.reason._tag, "Malformed")
    }),
  )
})
