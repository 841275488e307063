/** Liveness, refused methods, polled heads, reconnects and failover: a row each. */
import { assert } from "@effect/vitest"
import type { Hex } from "../../src/Domain.ts"
import { refusal, unaffected } from "../support/dialect.ts"
import type { Row } from "../support/dialect.ts"
import { suite } from "../support/dialects.ts"
import { Refused } from "../support/FakeNode.ts"
import type { Intercept } from "../support/FakeNode.ts"

const noSubscriptions: Intercept = (method, _params, proceed) => {
  if (method === "eth_subscribe") throw refusal("geth subscribe", { hash: "0x" as Hex, number: 0 })
  return proceed()
}

const rows: ReadonlyArray<Row> = [
  // -- A9: liveness
  {
    kind: "A9",
    name: "never answers a ping [G-037]",
    node: ({ node }) => {
      node.pongs = false
    },
    out: unaffected,
  },
  {
    kind: "A9",
    name: "announces 1 200 heads one by one [G-038]",
    node: () => {},
    before: ({ chain }, block) => {
      if (block === 5) chain.extend(...Array.from({ length: 1200 }, (_, i) => i % 2))
    },
    out: { ...unaffected, maxDelay: 5 },
  },
  {
    kind: "A9",
    name: "refuses blockHash in eth_getLogs: remembers the refusal",
    node: ({ node }) => {
      node.intercept = (method, params, proceed) => {
        if (method !== "eth_getLogs" || !("blockHash" in (params[0] as object))) return proceed()
        node.requests.set("by hash", { node }.node.timesAsked("by hash") + 1)
        throw refusal("no hash", { hash: "0x", number: 0 })
      }
    },
    out: unaffected,
    also: (end) => assert.isAtMost(end.node.timesAsked("by hash"), 4),
    notes: /refuses eth_getLogs by blockHash/,
  },
  {
    kind: "A9",
    name: "refuses eth_subscribe: polls heads [G-039]",
    node: ({ node }) => {
      node.intercept = noSubscriptions
    },
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unaffected, maxDelay: 2 },
    notes: /heads are polled/,
    also: (end) => assert.strictEqual(end.node.timesAsked("eth_subscribe"), 1),
  },
  {
    kind: "A9",
    name: "serves HTTP, while the preferred WebSocket endpoint is down",
    node: ({ node }) => {
      node.up = false
    },
    urls: "ws://one,http://two",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unaffected, maxDelay: 2, connections: 0, errorCount: 20 },
    atMost: true,
  },
  {
    kind: "A9",
    name: "is a WebSocket standby, after the preferred HTTP endpoint disappears",
    node: () => {},
    before: ({ two }, block) => {
      if (block === 6) two.up = false
    },
    urls: "http://two,ws://one",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unaffected, maxDelay: 8, errorCount: 20 },
    atMost: true,
    also: ({ status }) => assert.strictEqual(status.endpoint, status.endpoints[1]),
  },
  {
    kind: "A9",
    name: "is polled over HTTP and fails two consecutive polls",
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
    out: { ...unaffected, maxDelay: 4, connections: 0 },
  },
  {
    kind: "A9",
    name: "is polled over HTTP and fails three consecutive polls: reconnects",
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
    out: { ...unaffected, maxDelay: 8, connections: 0, errorCount: 1 },
  },
  {
    kind: "A9",
    name: "disappears for a while: fails over to HTTP polling and back [G-040]",
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
    out: { ...unaffected, maxDelay: 8, connections: 2, errorCount: 8 },
    atMost: true,
    also: ({ status }) => assert.strictEqual(status.endpoint, status.endpoints[0]),
  },
]

suite("follows the chain without losing a log with", rows)
