/** Frames, ids, closes and silence: over a real socket where the wire itself is at stake. A row each. */
import { assert } from "@effect/vitest"
import type { Hex } from "../../src/Domain.ts"
import { answers } from "../support/answers.ts"
import { both, filtered, on, refusal, suite, unharmed } from "../support/dialects.ts"
import type { Row, Scene, Wires } from "../support/dialects.ts"
import { hash } from "../support/blocks.ts"
import { Raw, Refused } from "../support/FakeNode.ts"
import type { Intercept } from "../support/FakeNode.ts"

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

/** So many contracts that a request with all of them is large; those that emit are the first. */
const manyAddresses = (count: number) =>
  [filtered.ADDRESSES, ...Array.from({ length: count }, (_, i) => hash("nobody", i).slice(0, 42))].join(",")

/** Refuses batches of more calls than this as geth does: one answer, to the first. */
const smallBatches =
  (calls: number) =>
  ({ node }: Scene) => {
    node.mostCalls = calls
  }

const asked = ({ node }: Pick<Scene, "node">, method: string) => node.requests.get(method) ?? 0

const noSubscriptions: Intercept = (method, _params, proceed) => {
  if (method === "eth_subscribe") throw refusal("geth subscribe", { hash: "0x" as Hex, number: 0 })
  return proceed()
}

/** The machine may be busy: what is merely slow is not what these rows are about, and no timeout of ours is as short. */
const inRealTime = { ...unharmed, stoodStill: 5 }

const rows: ReadonlyArray<Row> = [
  // -- A6: shape
  {
    kind: "A6",
    name: "numbers its subscriptions",
    over: "a socket",
    node: numbered,
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "sends ids back as digits",
    over: "a socket",
    node: ({ node }) => {
      node.sends = (message) => ("id" in message ? { ...message, id: String(message["id"]) } : message)
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "sends numbers where hex is expected",
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
    name: "sends digits where hex is expected",
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
      for (const text of ["", " ", "\n"]) node.say(text)
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
    name: "does not heed the filter",
    over: "a socket",
    node: ({ node, chain }) => {
      node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs") delete (params[0] as { address?: unknown }).address
        const all = proceed()
        const { blockHash } = (params[0] ?? {}) as { blockHash?: Hex }
        if (method !== "eth_getLogs" || blockHash === undefined) return all
        // One more, of a contract that is not asked for.
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
    name: "closes with 1009 at a large request",
    over: "a socket",
    node: ({ node }) => {
      node.mostCharacters = 4000
    },
    variables: { ADDRESSES: manyAddresses(120) },
    // The connection is lost with what was too large: once for each halving.
    out: { ...inRealTime, connections: 2, blamed: 1 },
    notes: /at most 62 addresses a request/,
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
    notes: /at most 62 addresses a request/,
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
    out: { ...inRealTime, connections: 3, blamed: 2 },
    atMost: true,
    notes: /\d headers in a batch/,
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
    notes: /\d headers in a batch/,
  },
  {
    kind: "A6",
    name: "leaves out every second log index",
    over: "a socket",
    node: () => {},
    holes: true,
    out: inRealTime,
  },
  {
    kind: "A4",
    name: "throttles without an id, and once more with one",
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
    name: "takes ten calls in a batch (geth 1.17)",
    over: "a socket",
    node: smallBatches(10),
    notes: /\d headers in a batch/,
    before: ({ chain }, block) => {
      // A gap whose headers are fetched together.
      if (block === 3) chain.jump(...Array.from({ length: 16 }, (_, i) => i % 3))
    },
    out: inRealTime,
  },
  {
    kind: "A6",
    name: "takes three calls in a batch, and gives receipts one by one only",
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
    notes: /\d headers in a batch,\d receipts in a batch/,
  },
  {
    kind: "A6",
    name: "numbers the logs of each transaction from 0, which is no identity: nothing is stored, and that is said",
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
    out: unharmed,
    stops: /two logs of block \d+ have the index 0: logs without an identity cannot be stored/,
  },
  // -- A9: one sign of life
  {
    kind: "A9",
    name: "never answers a ping",
    node: ({ node }) => {
      node.pongs = false
    },
    out: unharmed,
  },
  {
    kind: "A9",
    name: "announces 1 200 heads one by one",
    node: () => {},
    before: ({ chain }, block) => {
      if (block === 5) chain.extend(...Array.from({ length: 1200 }, (_, i) => i % 2))
    },
    out: { ...unharmed, stoodStill: 5 },
  },
  {
    kind: "A9",
    name: "does not take blockHash in eth_getLogs: that is remembered",
    node: ({ node }) => {
      node.intercept = (method, params, proceed) => {
        if (method !== "eth_getLogs" || !("blockHash" in (params[0] as object))) return proceed()
        node.requests.set("by hash", asked({ node }, "by hash") + 1)
        throw refusal("no hash", { hash: "0x", number: 0 })
      }
    },
    out: unharmed,
    also: (end) => assert.isAtMost(asked(end, "by hash"), 4),
    notes: /refuses eth_getLogs by blockHash/,
  },
  {
    kind: "A9",
    name: "refuses eth_subscribe: heads are polled",
    node: ({ node }) => {
      node.intercept = noSubscriptions
    },
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unharmed, stoodStill: 2 },
    notes: /heads are polled/,
    also: (end) => assert.strictEqual(asked(end, "eth_subscribe"), 1),
  },
  {
    kind: "A9",
    name: "is followed over HTTP, beside a socket that is preferred and down",
    node: ({ node }) => {
      node.up = false
    },
    urls: "ws://one,http://two",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unharmed, stoodStill: 2, connections: 0, blamed: 20 },
    atMost: true,
  },
  {
    kind: "A9",
    name: "stands by over a socket, beside one that is preferred, polled over HTTP and goes away",
    node: () => {},
    before: ({ two }, block) => {
      if (block === 6) two.up = false
    },
    urls: "http://two,ws://one",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unharmed, stoodStill: 8, blamed: 20 },
    atMost: true,
    also: ({ status }) => assert.strictEqual(status.endpoint, status.endpoints[1]),
  },
  {
    kind: "A9",
    name: "is polled over HTTP, and does not answer two polls in a row",
    node: ({ node }) => {
      node.intercept = noSubscriptions
    },
    before: ({ node }, block) => {
      if (block !== 6) return
      let polls = 0
      node.intercept = (method, params, proceed) => {
        if (method === "eth_getBlockByNumber" && params[0] === "latest" && ++polls <= 2)
          throw new Refused(-32603, "internal error")
        return noSubscriptions(method, params, proceed)
      }
    },
    urls: "http://one",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unharmed, stoodStill: 4, connections: 0 },
  },
  {
    kind: "A9",
    name: "is polled over HTTP, and does not answer three polls in a row: it is begun anew",
    node: () => {},
    before: ({ node }, block) => {
      if (block !== 6) return
      let polls = 0
      node.intercept = (method, params, proceed) => {
        if (method === "eth_getBlockByNumber" && params[0] === "latest" && ++polls <= 3)
          throw new Refused(-32603, "internal error")
        return proceed()
      }
    },
    urls: "http://one",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unharmed, stoodStill: 8, connections: 0, blamed: 1 },
  },
  {
    kind: "A9",
    name: "goes away for a while, is polled over HTTP, and takes over again",
    node: () => {},
    before: ({ node }, block) => {
      if (block === 5) {
        node.up = false
        node.drop()
      }
      if (block === 10) node.up = true
    },
    rpc: "http://two",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unharmed, stoodStill: 8, connections: 2, blamed: 8 },
    atMost: true,
    also: ({ status }) => assert.strictEqual(status.endpoint, status.endpoints[0]),
  },
]

suite("a chain", rows)
