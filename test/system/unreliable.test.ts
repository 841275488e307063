/**
 * Two endpoints, one of which is faulty at any time, for five minutes: the journal equals the chain, and failover is fast.
 * `UNRELIABLE_FIGURES=1` prints the measurements.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../src/Domain.ts"
import { hash } from "../support/blocks.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { caughtUp, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import { withJitter } from "../support/simulation.ts"
import {
  blocksUnaudited,
  eventsAuditedExtra,
  eventsAuditedMissing,
  eventsPublished,
} from "../../src/observability/ChainMetrics.ts"

const blockTime = 2
const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)
const filter = { ADDRESSES: contracts.join(",") }

/** The resolution of the measured times (milliseconds). */
const tick = 50

interface Fault {
  readonly what: string
  /** Runs on the node in use before each block, numbered from 0. */
  readonly before: (node: FakeNode, block: number) => void
}

/** Omits one log in a hundred from every response. */
const omitLogs = (node: FakeNode) => {
  let state = 7
  node.intercept = (method, _params, proceed) => {
    const answer = proceed()
    if (method !== "eth_getLogs") return answer
    return (answer as ReadonlyArray<unknown>).filter(() => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
      return state % 100 !== 0
    })
  }
}

const faults: ReadonlyArray<Fault> = [
  {
    what: "stalls",
    before: (node, block) => {
      if (block % 12 === 7) node.announces = false
    },
  },
  {
    what: "omits logs",
    before: (node, block) => {
      if (block === 0) omitLogs(node)
    },
  },
  {
    what: "disappears every few seconds",
    before: (node, block) => {
      if (block % 3 === 2) {
        node.up = false
        node.drop()
      }
    },
  },
]

/** For each failover, the time from the announcement of the first block until it was stored (milliseconds). */
const failovers: Array<number> = []

const at = (sorted: ReadonlyArray<number>, share: number) => sorted[Math.floor((sorted.length - 1) * share)]!

describe("with two endpoints, the service", () => {
  for (const { what, before } of faults) {
    for (const filtered of [false, true]) {
      it.effect(`stores the chain while one ${what}, ${filtered ? "with" : "without"} a filter`, () =>
        Effect.gen(function* () {
          const chain = new FakeChain({ finality: 10, blockTime, contracts })
          const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
          const store = yield* memoryStore()
          const variables = variablesFor({ devnet: [chain, "one,two"] })
          const { status } = yield* startIngestor(
            store,
            { one, two },
            { ...variables, ...(filtered && filter) },
          )
          const nodes = [one, two] as const
          for (let block = 0; block < 300 / blockTime; block++) {
            const inUse = status.endpoints.indexOf(status.endpoint!)
            before(nodes[inUse] ?? one, block)
            chain.extend(20 + (block % 30))
            const { number } = chain.head
            let waited = 0
            do {
              yield* TestClock.adjust(tick)
              waited += tick
            } while (waited < 4 * blockTime * 1000 && (status.stored ?? -1) < number)
            if (inUse !== -1 && status.endpoint !== status.endpoints[inUse]) failovers.push(waited)
            yield* TestClock.adjust(Math.max(blockTime * 1000 - waited, 0))
            // The failed node recovers while the other one is in use.
            if (what !== "omits logs" && status.endpoint !== status.endpoints[inUse]) {
              for (const node of nodes) node.up = node.announces = true
            }
          }
          // Until all of it is final and audited.
          one.intercept = (_method, _params, proceed) => proceed()
          one.up = one.announces = true
          for (let i = 0; i < 30; i++) {
            chain.extend(1)
            yield* TestClock.adjust(`${blockTime} seconds`)
          }
          yield* caughtUp(store, chain, status, 0, !(what === "omits logs" && filtered))
          if (process.env["UNRELIABLE_FIGURES"] !== undefined) {
            const figures = {
              published: status.count(eventsPublished),
              auditedMissing: status.count(eventsAuditedMissing),
              unaudited: status.count(blocksUnaudited),
            }
            process.stdout.write(`${JSON.stringify({ what, filtered, ...figures })}\n`)
          }
          if (what === "omits logs" && filtered) assert.isAbove(status.count(eventsAuditedMissing), 10)
          assert.strictEqual(status.count(eventsAuditedExtra), 0)
        }).pipe(withJitter),
      )
    }
  }
  it("fails over within a second at the median, and within two blocks and 2 s at most [G-072]", () => {
    const sorted = failovers.toSorted((a, b) => a - b)
    const [p50, max] = [at(sorted, 0.5), sorted.at(-1)!]
    if (process.env["UNRELIABLE_FIGURES"] !== undefined) {
      process.stdout.write(`${JSON.stringify({ failovers: sorted.length, p50, max })}\n`)
    }
    assert.isAbove(sorted.length, 50)
    assert.isBelow(p50, 1000)
    assert.isBelow(max, 2 * blockTime * 1000 + 2000)
  })
})
