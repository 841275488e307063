/** Frames, ids, close codes and stalls, over a real socket where the wire format matters. A row each. */
import type { Hex } from "../../src/Domain.ts"
import { answers } from "../support/answers.ts"
import { both, filtered, on, refusal, unaffected } from "../support/dialect.ts"
import type { Row, Scene, Wires } from "../support/dialect.ts"
import { suite } from "../support/dialects.ts"
import { hash } from "../support/blocks.ts"
import { Raw, Refused } from "../support/FakeNode.ts"

type Wire = Wires[number]

const logs = (change: (logs: Wires) => unknown) => on("eth_getLogs", (all) => change(all as Wires))

const digits = (text: unknown) => String(Number(text as string))

/** Sends subscription ids as numbers. */
const numbered = ({ node }: Scene) => {
  node.intercept = on("eth_subscribe", Number)
  node.sends = (message) =>
    message["method"] === "eth_subscription"
      ? {
          ...message,
          params: {
            ...(message["params"] as Wire),
            subscription: Number((message["params"] as Wire)["subscription"]),
          },
        }
      : message
}

/** Enough addresses to make a request large; the first ones are the contracts that emit logs. */
const manyAddresses = (count: number) =>
  [filtered.ADDRESSES, ...Array.from({ length: count }, (_, i) => hash("unused", i).slice(0, 42))].join(",")

/** Refuses batches of more calls than this as geth does: with one response, to the first call. */
const limitsBatches =
  (calls: number) =>
  ({ node }: Scene) => {
    node.mostCalls = calls
  }

/** The machine may be busy: these rows do not test speed, and none of our timeouts is shorter. */
const inRealTime = { ...unaffected, maxDelay: 5 }

const rows: ReadonlyArray<Row> = [
  // -- A6: shape
  {
    kind: "A6",
    name: "sends subscription ids as numbers",
    over: "a socket",
    node: numbered,
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "returns request ids as strings",
    over: "a socket",
    node: ({ node }) => {
      node.sends = (message) => ("id" in message ? { ...message, id: String(message["id"]) } : message)
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "sends numbers where hex is expected [G-027]",
    over: "a socket",
    node: ({ node }) => {
      const asNumbers = (of: Wire, ...keys: ReadonlyArray<string>) => ({
        ...of,
        ...Object.fromEntries(keys.map((key) => [key, Number(of[key])])),
      })
      const header = (of: unknown) =>
        of === null ? null : asNumbers(of as Wire, "number", "timestamp", "gasUsed")
      node.announced = header
      node.intercept = both(
        on("eth_getBlockByNumber", header),
        both(
          on("eth_blockNumber", Number),
          logs((all) => all.map((log) => asNumbers(log, "logIndex", "blockNumber", "transactionIndex"))),
        ),
      )
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "sends decimal strings where hex is expected",
    over: "a socket",
    node: ({ node }) => {
      node.announced = (header) => ({ ...header, number: digits(header.number) })
      node.intercept = both(
        on("eth_blockNumber", digits),
        logs((all) => all.map((log) => ({ ...log, logIndex: digits(log["logIndex"]) }))),
      )
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "sends JSON in binary frames",
    over: "a socket",
    node: ({ node }) => {
      node.binary = true
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "sends blank frames",
    over: "a socket",
    node: () => {},
    before: ({ node }) => {
      for (const text of ["", " ", "\n"]) node.broadcast(text)
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "sends null for no logs and for no topics",
    over: "a socket",
    node: ({ node }) => {
      node.intercept = logs((all) =>
        all.length === 0
          ? null
          : all.map((log) => ((log["topics"] as Wires).length === 0 ? { ...log, topics: null } : log)),
      )
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "ignores the filter",
    over: "a socket",
    node: ({ node, chain }) => {
      node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs") delete (params[0] as { address?: unknown }).address
        const all = proceed()
        const { blockHash } = (params[0] ?? {}) as { blockHash?: Hex }
        if (method !== "eth_getLogs" || blockHash === undefined) return all
        // One more, from a contract outside the filter.
        const [log] = all as Wires
        if (log === undefined) return all
        const index = chain.byHash(blockHash)!.logs.length
        return [
          ...(all as Wires),
          { ...log, address: hash("else").slice(0, 42), logIndex: `0x${index.toString(16)}` },
        ]
      }
    },
    variables: filtered,
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "closes with 1009 at a large request [G-029]",
    over: "a socket",
    node: ({ node }) => {
      node.mostCharacters = 4000
    },
    variables: { ADDRESSES: manyAddresses(120) },
    // Each oversized request costs a connection: once for each halving.
    out: { ...inRealTime, connections: 2, errorCount: 1 },
    notes: /at most 62 addresses per request/,
  },
  {
    kind: "A6",
    name: "answers 413 to a large request over HTTP",
    over: "a socket",
    node: ({ node }) => {
      node.mostCharacters = 4000
    },
    urls: "http://one",
    variables: { ADDRESSES: manyAddresses(120), POLL_INTERVAL: "1s" },
    live: 3,
    out: { ...inRealTime, connections: 0 },
    notes: /at most 62 addresses per request/,
  },
  {
    kind: "A6",
    name: "closes with 1009 at a large batch",
    over: "a socket",
    node: ({ node }) => {
      node.mostCharacters = 700
    },
    before: ({ chain }, block) => {
      if (block === 3) chain.jump(...Array.from({ length: 16 }, (_, i) => i % 3))
    },
    out: { ...inRealTime, connections: 3, errorCount: 2 },
    atMost: true,
    notes: /\d headers per batch/,
  },
  {
    kind: "A6",
    name: "answers 413 to a large batch over HTTP",
    over: "a socket",
    node: ({ node }) => {
      node.mostCharacters = 700
    },
    before: ({ chain }, block) => {
      if (block === 1) chain.jump(...Array.from({ length: 16 }, (_, i) => i % 3))
    },
    urls: "http://one",
    variables: { POLL_INTERVAL: "1s" },
    live: 3,
    out: { ...inRealTime, connections: 0 },
    notes: /\d headers per batch/,
  },
  {
    kind: "A6",
    name: "skips every second log index",
    over: "a socket",
    node: () => {},
    holes: true,
    out: inRealTime,
  },
  {
    kind: "A4",
    name: "throttles with an error without an id, then with one",
    over: "a socket",
    node: ({ node }) => {
      let requests = 0
      node.intercept = (method, _params, proceed) => {
        if (method !== "eth_getLogs") return proceed()
        if (++requests % 6 === 5) return new Raw(answers["id null"]!.frame!)
        if (requests % 6 === 0) throw refusal("eip-1474", { hash: "0x", number: 0 })
        return proceed()
      }
    },
    live: 4,
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "accepts ten calls in a batch (geth 1.17) [G-030]",
    over: "a socket",
    node: limitsBatches(10),
    notes: /\d headers per batch/,
    before: ({ chain }, block) => {
      // A gap whose headers are fetched together.
      if (block === 3) chain.jump(...Array.from({ length: 16 }, (_, i) => i % 3))
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "accepts three calls in a batch, and serves only single receipts",
    over: "a socket",
    node: ({ node }) => {
      node.mostCalls = 3
      node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs") throw new Refused(-32701, "please specify an address")
        if (method === "eth_getBlockReceipts") throw new Refused(-32601, "the method does not exist")
        if (method === "eth_subscribe" && _params[0] === "logs")
          throw new Refused(-32601, "the method does not exist")
        return proceed()
      }
    },
    logs: [12, 0, 5, 1],
    out: inRealTime,
    notes: /\d headers per batch,\d receipts per batch/,
  },
  {
    kind: "A6",
    name: "numbers the logs of each transaction from 0, which is no identity: stores nothing and reports it [G-028]",
    node: ({ node }) => {
      const fromZero = (all: Wires) => {
        const seen = new Map<unknown, number>()
        return all.map((log) => {
          const index = seen.get(log["transactionHash"]) ?? 0
          seen.set(log["transactionHash"], index + 1)
          return { ...log, logIndex: `0x${index.toString(16)}` }
        })
      }
      const receipt = (of: Wire) => ({ ...of, logs: fromZero(of["logs"] as Wires) })
      node.intercept = both(
        on("eth_getBlockReceipts", (receipts) => (receipts as Wires).map(receipt)),
        both(
          on("eth_getTransactionReceipt", (of) => receipt(of as Wire)),
          logs(fromZero),
        ),
      )
    },
    logs: [5, 0, 2, 1],
    out: unaffected,
    stops: /two logs of block \d+ have the index 0: logs without an identity cannot be stored/,
  },
]

suite("loses no log and adds none with", rows)
