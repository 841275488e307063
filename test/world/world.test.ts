/**
 * The dialects of the world's nodes and providers, one row each: what the node does, and what must come out. The whole
 * service runs under virtual time on a scripted node; the journal is compared with the chain.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../src/Domain.ts"
import { hex } from "../../src/endpoint/Decode.ts"
import { hash } from "../support/blocks.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode, Refused } from "../support/FakeNode.ts"
import type { Intercept } from "../support/FakeNode.ts"
import { caughtUp, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"

type Wire = Record<string, unknown>
type Wires = ReadonlyArray<Wire>

/** Every log of the chain is by one of these, so that a filter with all of them lets every log pass. */
const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)
const filtered = { ADDRESSES: contracts.join(",") }

const blockTime = 4

interface Dialect {
  readonly kind: string
  readonly name: string
  /** Makes the node speak the dialect. `milliseconds` is the time since the last block. */
  readonly node: (node: FakeNode, chain: FakeChain, milliseconds: () => number) => void
  readonly variables?: Record<string, string>
  /** Whether what was believed for a while is repaired by the audit: the journal is right in the end. */
  readonly audited?: boolean
  /** What is not zero: connections beyond the first, errors counted. */
  readonly reconnects?: number
  readonly errors?: number
  /** Logs of each block, over and over (default: 3, 0, 2, 1). */
  readonly logs?: ReadonlyArray<number>
}

const zeros = `0x${"0".repeat(512)}`
const ones = `0x${"f".repeat(512)}`

const isHeader = (method: string) => method.startsWith("eth_getBlockBy")

/** Changes every header, announced or fetched. */
const headers = (node: FakeNode, change: (header: Wire) => Wire) => {
  node.announced = change as FakeNode["announced"]
  fetched(node, change)
}

/** Changes fetched headers only. */
const fetched = (node: FakeNode, change: (header: Wire) => Wire) => {
  node.intercept = (method, _params, proceed) => {
    const answer = proceed()
    return isHeader(method) && answer !== null ? change(answer as Wire) : answer
  }
}

/** Changes the logs of `eth_getLogs`. */
const logs =
  (change: (logs: Wires) => unknown): Intercept =>
  (method, _params, proceed) =>
    method === "eth_getLogs" ? change(proceed() as Wires) : proceed()

/** Changes those of the newest block, when it is asked for by its hash. */
const logsOfTip =
  (chain: FakeChain, change: (logs: Wires) => unknown): Intercept =>
  (method, params, proceed) =>
    method === "eth_getLogs" && (params[0] as Wire)["blockHash"] === chain.head.hash
      ? change(proceed() as Wires)
      : proceed()

const each = (change: (log: Wire, i: number) => Wire) => logs((all) => all.map(change))

const noReceipts =
  (intercept: Intercept): Intercept =>
  (method, params, proceed) => {
    if (method === "eth_getBlockReceipts") throw new Refused(-32601, "the method does not exist")
    return intercept(method, params, proceed)
  }

const number = (text: unknown) => Number(text as string)

const dialects: ReadonlyArray<Dialect> = [
  // -- A1: blooms
  {
    kind: "A1",
    name: "announces zero blooms and answers right ones (Cosmos EVM, Sei)",
    node: (node) => {
      node.announced = (header) => ({ ...header, logsBloom: zeros, gasUsed: "0x0" })
    },
  },
  {
    kind: "A1",
    name: "has blooms of all ones (Filecoin)",
    node: (node) => headers(node, (header) => ({ ...header, logsBloom: ones })),
  },
  {
    kind: "A1",
    name: "has no blooms",
    node: (node) => headers(node, (header) => ({ ...header, logsBloom: undefined })),
  },
  {
    kind: "A1",
    name: "has null blooms, which are to be ignored",
    node: (node) => headers(node, (header) => ({ ...header, logsBloom: null })),
    variables: { LOGS_BLOOM: "ignore" },
  },
  {
    kind: "A1",
    name: "has a bloom on empty blocks (ZKsync)",
    node: (node) => headers(node, (header) => ({ ...header, logsBloom: `0x8${"0".repeat(510)}1` })),
  },
  {
    kind: "A1",
    name: "computes blooms only now and then",
    node: (node) =>
      headers(node, (header) =>
        number(header["number"]) % 3 === 0 ? header : { ...header, logsBloom: zeros },
      ),
  },
  // -- A2: short answers, under a filter
  {
    kind: "A2",
    name: "answers [] for 150 ms after it announced a block (op-geth, Erigon)",
    node: (node, chain, milliseconds) => {
      node.intercept = logsOfTip(chain, (all) => (milliseconds() < 150 ? [] : all))
    },
    variables: filtered,
  },
  {
    kind: "A2",
    name: "answers null for a block it just announced",
    node: (node, chain, milliseconds) => {
      node.intercept = logsOfTip(chain, (all) => (milliseconds() < 150 ? null : all))
    },
    variables: filtered,
  },
  {
    kind: "A2",
    name: "answers [] for 5 s, and has no receipts: the audit finds it",
    node: (node, chain, milliseconds) => {
      node.intercept = noReceipts(logsOfTip(chain, (all) => (milliseconds() < 3900 ? [] : all)))
    },
    variables: filtered,
    audited: true,
  },
  {
    kind: "A2",
    name: "leaves the last logs of a block out for a while: the audit finds it",
    node: (node, chain, milliseconds) => {
      node.intercept = logsOfTip(chain, (all) => (milliseconds() < 3900 ? all.slice(0, -1) : all))
    },
    variables: filtered,
    audited: true,
  },
  {
    kind: "A2",
    name: "answers blocks of 400 logs with the first 300",
    node: (node) => {
      node.intercept = logs((all) => (all.length === 400 ? all.slice(0, 300) : all))
    },
    logs: [400, 1],
  },
  // -- A3: times
  {
    kind: "A3",
    name: "sends logs with the time 0 (Sonic)",
    node: (node) => {
      node.intercept = each((log) => ({ ...log, blockTimestamp: "0x0" }))
    },
  },
  {
    kind: "A3",
    name: "sends logs with a time in milliseconds",
    node: (node) => {
      node.intercept = each((log) => ({ ...log, blockTimestamp: hex(number(log["blockTimestamp"]) * 1000) }))
    },
  },
  // -- A6: shapes
  {
    kind: "A6",
    name: "sends logs in any order",
    node: (node) => {
      node.intercept = logs((all) => all.toReversed())
    },
  },
  {
    kind: "A6",
    name: "sends every log twice",
    node: (node) => {
      node.intercept = logs((all) => [...all, ...all])
    },
  },
  {
    kind: "A6",
    name: "sends null for no logs and null for no topics",
    node: (node) => {
      node.intercept = logs((all) =>
        all.length === 0
          ? null
          : all.map((log) => ((log["topics"] as Wires).length === 0 ? { ...log, topics: null } : log)),
      )
    },
  },
  {
    kind: "A6",
    name: "sends quantities as numbers",
    node: (node) => {
      node.intercept = each((log) => ({
        ...log,
        logIndex: number(log["logIndex"]),
        blockNumber: number(log["blockNumber"]),
        transactionIndex: number(log["transactionIndex"]),
      }))
    },
  },
  {
    kind: "A6",
    name: "sends quantities as digits",
    node: (node) => {
      node.intercept = each((log) => ({ ...log, logIndex: String(number(log["logIndex"])) }))
    },
  },
  {
    kind: "A6",
    name: "ignores the filter",
    node: (node) => {
      node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs") delete (params[0] as { address?: unknown }).address
        return proceed()
      }
    },
    variables: filtered,
  },
]

/** Runs the service on a node that speaks the dialect: history, live blocks, then until everything is final. */
const run = Effect.fnUntraced(function* (dialect: Dialect) {
  const chain = new FakeChain({ finality: 10, blockTime, contracts })
  const node = new FakeNode(chain)
  const sizes = dialect.logs ?? [3, 0, 2, 1]
  const extend = (i: number) => chain.extend(sizes[i % sizes.length]!)
  for (let i = 0; i < 40; i++) extend(i)
  let since = 0
  dialect.node(node, chain, () => since)
  const store = yield* memoryStore()
  const variables = { ...variablesFor({ devnet: [chain, "one"] }), ...dialect.variables }
  const { status } = yield* startIngestor(store, { one: node }, variables)
  const live = Effect.fnUntraced(function* (blocks: number) {
    for (let i = 0; i < blocks; i++) {
      since = 0
      extend(i)
      for (; since < blockTime * 1000; since += 50) yield* TestClock.adjust("50 millis")
    }
  })
  yield* live(40)
  // Until the audit has been over all of it.
  for (let i = 0; i < 40; i++) {
    since = 1_000_000
    extend(i)
    yield* TestClock.adjust(`${blockTime} seconds`)
  }
  yield* caughtUp(store, chain, status, 0, dialect.audited !== true)
  const errors = Object.values(status.errors).reduce((sum, count) => sum + count, 0)
  return { connections: node.dials, errors, phase: status.phase }
})

describe("world", () => {
  for (const dialect of dialects) {
    it.effect(`${dialect.kind}: a node that ${dialect.name}`, () =>
      Effect.gen(function* () {
        const { connections, errors, phase } = yield* run(dialect)
        assert.deepStrictEqual(
          { connections, phase },
          { connections: 1 + (dialect.reconnects ?? 0), phase: "live" },
        )
        if (dialect.audited !== true) assert.strictEqual(errors, dialect.errors ?? 0)
      }),
    )
  }
})
