/** The audit in the whole service: omissions that integrity checks cannot detect are corrected before they are final. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../../src/Domain.ts"
import { hex } from "../../../src/endpoint/Decode.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode, Refused, silence } from "../../support/FakeNode.ts"
import type { Intercept } from "../../support/FakeNode.ts"
import { hash } from "../../support/blocks.ts"
import { caughtUp, eventually, memoryStore, startIngestor, variablesFor } from "../../support/ingestor.ts"
import type { Client, Ingestor } from "../../support/ingestor.ts"
import { replayOf } from "../../support/oracle.ts"
import {
  blocksUnaudited,
  eventsAuditedExtra,
  eventsAuditedMissing,
  eventsDeduplicated,
  eventsPublished,
} from "../../../src/observability/ChainMetrics.ts"

interface Scenario {
  readonly chain: FakeChain
  readonly one: FakeNode
  readonly two: FakeNode
  readonly store: Client
  readonly start: (variables?: Record<string, string>) => Effect.Effect<Ingestor, unknown, Scope.Scope>
}

const scenario = (
  title: string,
  body: (scenario: Scenario) => Effect.Effect<unknown, unknown, Scope.Scope>,
) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 6, contracts })
      const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
      const store = yield* memoryStore()
      const start = (variables = {}) =>
        startIngestor(store, { one, two }, { ...variablesFor({ devnet: [chain, "one,two"] }), ...variables })
      yield* body({ chain, one, two, store, start })
    }),
  )

const blocks = (chain: FakeChain, count: number, logs = 4) =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) {
      chain.extend(logs)
      yield* TestClock.adjust("12 seconds")
    }
  })

/** A fork from block 3 on. All of its blocks are empty, so that no other hash shows that it is another one. */
const emptyFork = (chain: FakeChain) => chain.branch(3, 0, 0, 0, 0)

/** The chain becomes final, and no log of another fork counts as missing. */
const finalWithoutCorrection = Effect.fnUntraced(function* (
  store: Client,
  chain: FakeChain,
  status: Ingestor["status"],
) {
  yield* blocks(chain, 30)
  yield* caughtUp(store, chain, status, 0, false)
  assert.isAbove(status.final!, chain.head.number - 15)
  assert.strictEqual(status.count(eventsAuditedMissing), 0)
  assert.strictEqual(status.count(blocksUnaudited), 0)
  assert.notMatch(status.failures.map(({ text }) => text).join(), /contradicted/)
})

const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)

/** A filter that matches all logs; but under a filter the log indexes prove nothing. */
const allContracts = { ADDRESSES: contracts.join(",") }

type WireLog = { readonly blockNumber: string; readonly logIndex: string }

/** Answers with altered logs for the chosen blocks. */
const altering =
  (
    isChosen: (number: number) => boolean,
    change: (logs: ReadonlyArray<WireLog>) => ReadonlyArray<WireLog>,
  ): Intercept =>
  (method, _params, proceed) => {
    const answer = proceed()
    if (method !== "eth_getLogs") return answer
    const logs = answer as ReadonlyArray<WireLog>
    const numbers = [...new Set(logs.map(({ blockNumber }) => Number(blockNumber)))]
    return numbers.flatMap((number) => {
      const own = logs.filter(({ blockNumber }) => Number(blockNumber) === number)
      return isChosen(number) ? change(own) : own
    })
  }

/** Omits all logs of one block, and serves no receipts: no other method can reveal them. */
const omittingBlock = (wrong: number): Intercept => {
  const alter = altering(
    (number) => number === wrong,
    () => [],
  )
  return (method, params, proceed) => {
    if (method === "eth_getBlockReceipts") throw new Refused(-32601, "the method does not exist")
    return alter(method, params, proceed)
  }
}

/** Omits the first log of one block. */
const omittingLog = (wrong: number) =>
  altering(
    (number) => number === wrong,
    (logs) => logs.slice(1),
  )

const isThird = (number: number) => number % 3 === 0

describe("the audit", () => {
  scenario(
    "adds logs that an endpoint omitted under a filter, and names the endpoint [G-048]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        one.intercept = altering(isThird, (logs) => logs.toSpliced(1, 1))
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 30)
        assert.isAbove(status.count(eventsAuditedMissing), 3)
        assert.strictEqual(status.count(eventsAuditedExtra), 0)
        assert.isAbove(status.endpoints[0]!.auditMismatches, 3)
        assert.strictEqual(status.endpoints[1]!.auditMismatches, 0)
        assert.match(status.failures.map(({ text }) => text).join(), /one:80: contradicted/)
        one.intercept = (_method, _params, proceed) => proceed()
        yield* blocks(chain, 10)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.count(blocksUnaudited), 0)
      }),
  )

  scenario("adds a block whose logs an endpoint omitted entirely [G-049]", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      one.intercept = omittingBlock(9)
      const { status } = yield* start(allContracts)
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.count(eventsAuditedMissing), 4)
    }),
  )

  const takeDown = (node: FakeNode) => {
    node.up = false
    node.drop()
  }

  scenario(
    "audits a block with an endpoint other than its source, whichever is in use now [G-050]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        two.intercept = omittingLog(14)
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 5)
        one.drop()
        yield* blocks(chain, 9)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        yield* eventually("the first is in use again", () => status.endpoint === status.endpoints[0])
        assert.isBelow(status.final!, 14)
        yield* blocks(chain, 15)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.count(eventsAuditedMissing), 1)
        assert.isAbove(status.endpoints[1]!.auditMismatches, 0)
        assert.strictEqual(status.endpoints[0]!.auditMismatches, 0)
      }),
  )

  scenario(
    "audits with two endpoints when the source of a block is unknown [G-051]",
    ({ chain, two, store, start }) =>
      Effect.gen(function* () {
        two.intercept = omittingLog(9)
        const before = yield* start({ ...allContracts, DEVNET_WS_URL: "ws://two" })
        yield* blocks(chain, 10)
        yield* before.stop
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 20)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.count(eventsAuditedMissing), 1)
      }),
  )

  scenario(
    "waits for a disconnected auditor instead of asking the source again [G-052]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        one.intercept = omittingBlock(9)
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 3)
        takeDown(two)
        yield* blocks(chain, 35)
        assert.strictEqual(status.count(blocksUnaudited), 0)
        assert.isBelow(status.final!, 9)
        two.up = true
        yield* blocks(chain, 15)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.count(eventsAuditedMissing), 4)
        assert.strictEqual(status.count(blocksUnaudited), 0)
      }),
  )

  scenario(
    "runs before a backfill finalizes blocks that were not audited [G-059]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        one.intercept = omittingBlock(9)
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 10)
        takeDown(one)
        takeDown(two)
        chain.extend(...Array.from({ length: 30 }, () => 4))
        two.up = true
        yield* blocks(chain, 10)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.count(eventsAuditedMissing), 4)
      }),
  )

  scenario("finds what each of two endpoints omitted [G-053]", ({ chain, one, two, store, start }) =>
    Effect.gen(function* () {
      one.intercept = omittingLog(10)
      two.intercept = omittingLog(14)
      const { status } = yield* start(allContracts)
      yield* blocks(chain, 11)
      one.drop()
      yield* blocks(chain, 4)
      assert.strictEqual(status.endpoint, status.endpoints[1])
      assert.isBelow(status.final!, 10)
      takeDown(one)
      takeDown(two)
      chain.extend(...Array.from({ length: 30 }, () => 4))
      one.up = two.up = true
      yield* blocks(chain, 10)
      yield* caughtUp(store, chain, status, 0, false)
      // Correcting the lower block may rewrite the higher one as well.
      assert.include([1, 2], status.count(eventsAuditedMissing))
      assert.strictEqual(status.count(blocksUnaudited), 0)
    }),
  )

  scenario(
    "audits without a quorum after the timeout, and counts the blocks as unaudited [G-054]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        one.intercept = omittingLog(9)
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 10)
        takeDown(one)
        yield* blocks(chain, 80)
        assert.strictEqual(status.count(eventsAuditedMissing), 1)
        assert.isAbove(status.count(blocksUnaudited), 0)
        assert.isAtMost(status.count(blocksUnaudited), chain.head.number)
        yield* caughtUp(store, chain, status, 0, false)
      }),
  )

  scenario("never removes a log on a single endpoint's word [G-055]", ({ chain, one, two, store, start }) =>
    Effect.gen(function* () {
      two.intercept = omittingLog(9)
      // The source of the block cannot confirm it.
      one.intercept = (method, params, proceed) => {
        const isAsked =
          /Logs|Receipt/.test(method) && JSON.stringify(params).includes(chain.at(9)?.header.hash ?? "none")
        if (isAsked && chain.head.number > 9) throw new Refused(-32005, "too many requests")
        return proceed()
      }
      const { status } = yield* start(allContracts)
      yield* blocks(chain, 30)
      const replay = yield* caughtUp(store, chain, status)
      assert.strictEqual(replay.removed, 0)
      assert.strictEqual(status.count(eventsAuditedExtra), 0)
      assert.isAbove(status.endpoints[1]!.auditMismatches, 0)
      assert.strictEqual(status.endpoints[0]!.auditMismatches, 0)
    }),
  )

  it.effect("rewrites a block once, also if the head is final and the chain stalls [G-058]", () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 0, contracts })
      const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
      const store = yield* memoryStore()
      one.intercept = omittingLog(9)
      const variables = { ...variablesFor({ devnet: [chain, "one,two"] }), ...allContracts }
      const { status } = yield* startIngestor(store, { one, two }, variables)
      yield* blocks(chain, 8)
      yield* TestClock.adjust("2 minutes")
      yield* blocks(chain, 1)
      yield* TestClock.adjust("2 minutes")
      const replay = yield* caughtUp(store, chain, status, 0, false)
      assert.isAtMost(replay.removed, 3)
      assert.strictEqual(status.count(eventsAuditedMissing), 1)
    }),
  )

  scenario(
    "waits for the auditor also with blocks that are final before they are stored [G-057]",
    (scenario) =>
      Effect.gen(function* () {
        const { chain, one, two, start } = scenario
        one.intercept = omittingLog(9)
        const { status } = yield* start({ ...allContracts, CONFIRMATIONS: "8" })
        yield* blocks(chain, 17)
        takeDown(two)
        yield* blocks(chain, 3)
        two.up = true
        yield* blocks(chain, 20)
        assert.strictEqual(status.count(blocksUnaudited), 0)
        assert.strictEqual(status.count(eventsAuditedMissing), 1)
        one.intercept = (_method, _params, proceed) => proceed()
        yield* eventually("it is eight blocks behind the head", () => status.stored === chain.head.number - 8)
      }),
  )

  scenario("applies a correction also if no endpoint serves the logs again [G-056]", (scenario) =>
    Effect.gen(function* () {
      const { chain, one, two, store, start } = scenario
      one.intercept = omittingLog(9)
      const { status } = yield* start(allContracts)
      two.intercept = (method, _params, proceed) => {
        if (/Logs|Receipt/.test(method) && status.count(eventsAuditedMissing) > 0)
          throw new Refused(-32005, "too many requests")
        return proceed()
      }
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.count(eventsAuditedMissing), 1)
    }),
  )

  scenario(
    "does not compare another ingestor's fork with what the endpoints serve [G-229]",
    ({ chain, two, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 10)
        const fork = emptyFork(chain)
        two.follow(fork)
        const other = yield* start({ ...allContracts, DEVNET_WS_URL: "ws://two,ws://one" })
        for (let i = 0; i < 10; i++) {
          fork.extend(0)
          yield* blocks(chain, 1)
        }
        assert.strictEqual((yield* store.load(chain.id))?.head.hash, fork.head.hash)
        yield* other.stop
        two.follow(chain)
        yield* finalWithoutCorrection(store, chain, status)
      }),
  )

  scenario(
    "does not compare our fork with the one that the node has by now [G-231]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        yield* blocks(chain, 10)
        const fork = emptyFork(chain)
        one.follow(fork)
        const { status } = yield* start(allContracts)
        // While the nodes disagree, no block of the fork becomes final.
        for (let i = 0; i < 10; i++) {
          fork.extend(0)
          yield* blocks(chain, 1)
        }
        assert.strictEqual((yield* store.load(chain.id))?.head.hash, fork.head.hash)
        // Its final block is known before it announces a head.
        one.announces = false
        one.follow(chain)
        yield* blocks(chain, 2)
        one.announces = true
        yield* finalWithoutCorrection(store, chain, status)
      }),
  )

  scenario(
    "begins again when the blocks that it waits to audit are replaced [G-230]",
    ({ chain, two, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start({ ...allContracts, FINALITY: "depth", FINALITY_DEPTH: "6" })
        yield* blocks(chain, 12)
        takeDown(two)
        yield* blocks(chain, 8)
        // Deeper than the depth at which blocks count as final.
        const depth = chain.head.number - status.final! - 1
        assert.isAbove(depth, 6)
        chain.revert(depth)
        chain.jump(...Array.from({ length: depth + 1 }, () => 4))
        two.up = true
        yield* blocks(chain, 20)
        yield* caughtUp(store, chain, status)
        assert.isAbove(status.final!, chain.head.number - 12)
      }),
  )

  scenario(
    "does not compare our fork with the one that the node has since the audit began [G-231]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        const { status } = yield* start({ ...allContracts, FINALITY: "depth", FINALITY_DEPTH: "6" })
        yield* blocks(chain, 3)
        two.intercept = (method, params, proceed) => {
          const { fromBlock } = (params as ReadonlyArray<{ readonly fromBlock?: string }>)[0] ?? {}
          if (one.announces && method === "eth_getLogs" && Number(fromBlock) > 3) {
            one.announces = two.announces = false
            // Deeper than the depth at which blocks count as final.
            const depth = chain.head.number - Number(fromBlock)
            assert.isAbove(depth, 6)
            chain.revert(depth)
            chain.jump(...Array.from({ length: depth }, () => 4))
          }
          return proceed()
        }
        while (one.announces) yield* blocks(chain, 1, 0)
        two.intercept = (_method, _params, proceed) => proceed()
        one.announces = two.announces = true
        yield* blocks(chain, 20)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.count(eventsAuditedMissing), 0)
        assert.strictEqual(status.count(blocksUnaudited), 0)
      }),
  )

  for (const logs of [2, 0])
    scenario(
      `does not apply a correction to the block with ${logs} logs that replaced the corrected one [G-232]`,
      ({ chain, one, store, start }) =>
        Effect.gen(function* () {
          const { status } = yield* start({ ...allContracts, FINALITY: "depth", FINALITY_DEPTH: "6" })
          let replaced = 0
          one.intercept = (method, params, proceed) => {
            if (replaced === 0 && status.count(eventsAuditedMissing) > 0) {
              // Deeper than the depth at which blocks count as final.
              replaced = chain.head.number - 8
              chain.revert(replaced)
              chain.jump(...Array.from({ length: replaced + 1 }, () => logs))
            }
            return omittingLog(9)(method, params, proceed)
          }
          yield* blocks(chain, 40)
          assert.isAbove(replaced, 6)
          yield* caughtUp(store, chain, status, 0, false)
        }),
    )

  scenario("rewrites a block that was half written under a filter [G-060]", ({ chain, store, start }) =>
    Effect.gen(function* () {
      chain.extend(1, 1)
      const first = yield* start(allContracts)
      yield* caughtUp(store, chain, first.status)
      yield* first.stop
      const { head: expected, filter } = (yield* store.load(chain.id))!
      chain.extend(3500)
      const [big] = chain.blocks(3)
      // The answer that was being written omitted a log.
      const slice = { ...big!, logs: big!.logs.toSpliced(5, 1).slice(0, 1000), whole: false }
      yield* store.push(chain.id, filter, { _tag: "Push", expected, blocks: [slice], final: false })
      const { status } = yield* start(allContracts)
      const replay = yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(replay.removed, 1000)
    }),
  )

  scenario("adds the omitted last log of a block without a usable bloom", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      chain.blooms = false
      one.intercept = altering(
        (number) => number === 5,
        (logs) => logs.slice(0, -1),
      )
      const { status } = yield* start()
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.count(eventsAuditedMissing), 1)
    }),
  )

  scenario("removes a log that was never in its block", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      one.intercept = altering(
        (number) => number === 7 && chain.head.number === 7,
        (logs) => [...logs, { ...logs.at(-1)!, logIndex: hex(99) }],
      )
      const { status } = yield* start(allContracts)
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.count(eventsAuditedExtra), 1)
      assert.isAbove((yield* replayOf(store, chain.id)).removed, 0)
    }),
  )

  scenario(
    "keeps blocks that were read with another filter, and counts them as unaudited [G-201]",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        const before = yield* start({ ADDRESSES: contracts[0]! })
        yield* blocks(chain, 12)
        yield* before.stop
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 20)
        assert.isAbove(status.final!, 12)
        assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
        assert.strictEqual(status.count(eventsAuditedMissing) + status.count(eventsAuditedExtra), 0)
        assert.isAbove(status.count(blocksUnaudited), 0)
        assert.isAtMost(status.count(blocksUnaudited), 12)
      }),
  )

  scenario(
    "adds logs that another ingestor omitted when it wrote a block first [G-063]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        const faulty = new FakeNode(chain)
        faulty.intercept = omittingLog(9)
        const variables = { ...variablesFor({ devnet: [chain, "faulty"] }), ...allContracts }
        const other = yield* startIngestor(store, { faulty }, variables)
        const { status } = yield* start(allContracts)
        // This ingestor is later than the other one.
        one.intercept = (method, _params, proceed) => (method === "eth_getLogs" ? silence : proceed())
        yield* blocks(chain, 8)
        one.intercept = (_method, _params, proceed) => proceed()
        yield* blocks(chain, 4)
        const published = other.status.count(eventsPublished)
        yield* other.stop
        yield* blocks(chain, 20)
        assert.isAbove(published, 30)
        assert.isAbove(status.count(eventsDeduplicated), 0)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.count(eventsAuditedMissing), 1)
      }),
  )

  scenario("retracts nothing when the auditor omits logs", ({ chain, two, store, start }) =>
    Effect.gen(function* () {
      two.intercept = altering(isThird, (logs) => logs.slice(1))
      const { status } = yield* start(allContracts)
      yield* blocks(chain, 30)
      const replay = yield* caughtUp(store, chain, status)
      assert.strictEqual(replay.removed, 0)
      assert.isAbove(status.endpoints[1]!.auditMismatches, 3)
      assert.strictEqual(status.endpoints[0]!.auditMismatches, 0)
      assert.strictEqual(status.count(eventsAuditedMissing) + status.count(eventsAuditedExtra), 0)
    }),
  )

  scenario(
    "compares final blocks before they are stored, so that none has to be retracted [G-064]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...Array.from({ length: 300 }, (_, i) => i % 5))
        one.intercept = altering(
          (number) => isThird(number) && number < 280,
          () => [],
        )
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 2)
        const replay = yield* caughtUp(store, chain, status)
        assert.strictEqual(replay.removed, 0)
        assert.strictEqual(status.count(blocksUnaudited), 0)
        assert.isAbove(status.endpoints[0]!.auditMismatches, 50)
      }),
  )

  scenario(
    "finalizes unaudited blocks after 10 minutes and counts them [G-065]",
    ({ chain, two, store, start }) =>
      Effect.gen(function* () {
        two.intercept = (method, _params, proceed) => {
          if (/Logs|Receipt/.test(method))
            throw new Refused(-32000, "Archive requests require a personal token")
          return proceed()
        }
        const { status } = yield* start(allContracts)
        yield* blocks(chain, 40)
        assert.isBelow(status.final ?? 0, 10)
        assert.strictEqual(status.count(blocksUnaudited), 0)
        yield* blocks(chain, 40)
        assert.isAbove(status.count(blocksUnaudited), 5)
        assert.isAbove(status.final!, 5)
        yield* caughtUp(store, chain, status)
      }),
  )

  scenario("reads no more than 1 000 stored logs in one range", ({ chain, two, start }) =>
    Effect.gen(function* () {
      const sizes: Array<number> = []
      two.intercept = (method, _params, proceed) => {
        const answer = proceed()
        if (method === "eth_getLogs") sizes.push((answer as ReadonlyArray<unknown>).length)
        return answer
      }
      const { status } = yield* start(allContracts)
      yield* blocks(chain, 25, 300)
      assert.isAbove(status.final!, 10)
      assert.isAbove(sizes.length, 3)
      assert.isAtMost(Math.max(...sizes), 1000)
    }),
  )

  scenario(
    "sends no requests when off, and one request per finalization with a single endpoint",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        const off = yield* start({ ...allContracts, AUDIT: "off" })
        yield* blocks(chain, 20)
        assert.strictEqual(two.timesAsked("eth_getLogs"), 0)
        assert.isAtLeast(off.status.final!, chain.final.number - 5)
        yield* off.stop
        const single = yield* start({ ...allContracts, DEVNET_WS_URL: "ws://one" })
        const before = one.timesAsked("eth_getLogs")
        yield* blocks(chain, 10)
        assert.strictEqual(one.timesAsked("eth_getLogs") - before, 10 + 2)
        yield* caughtUp(store, chain, single.status)
        assert.strictEqual(single.status.count(blocksUnaudited), 0)
      }),
  )
})
