/** Signs of life, ways that are refused, heads that are polled, connections that come and go: a row each. */
import { assert } from "@effect/vitest"
import type { Hex } from "../../src/Domain.ts"
import { refusal, unharmed } from "../support/dialect.ts"
import type { Row, Scene } from "../support/dialect.ts"
import { suite } from "../support/dialects.ts"
import { Refused } from "../support/FakeNode.ts"
import type { Intercept } from "../support/FakeNode.ts"

const asked = ({ node }: Pick<Scene, "node">, method: string) => node.requests.get(method) ?? 0

const noSubscriptions: Intercept = (method, _params, proceed) => {
  if (method === "eth_subscribe") throw refusal("geth subscribe", { hash: "0x" as Hex, number: 0 })
  return proceed()
}

const rows: ReadonlyArray<Row> = [
  // -- A9: one sign of life
  {
    kind: "A9",
    name: "never answers a ping [G-037]",
    node: ({ node }) => {
      node.pongs = false
    },
    out: unharmed,
  },
  {
    kind: "A9",
    name: "announces 1 200 heads one by one [G-038]",
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
    name: "refuses eth_subscribe: heads are polled [G-039]",
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
    name: "goes away for a while, is polled over HTTP, and takes over again [G-040]",
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
