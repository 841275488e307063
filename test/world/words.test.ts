/** The error messages of many nodes for a block they do not serve yet, and for too many requests: a row each. */
import { assert } from "@effect/vitest"
import type { Hex } from "../../src/Domain.ts"
import { hex, quantity } from "../../src/endpoint/Decode.ts"
import { answers } from "../support/answers.ts"
import { filtered, refusal, unaffected } from "../support/dialect.ts"
import type { Row, Scene } from "../support/dialect.ts"
import { suite } from "../support/dialects.ts"
import { Raw, Refused } from "../support/FakeNode.ts"
import type { Intercept, WireHeader } from "../support/FakeNode.ts"

type Filter = { readonly blockHash?: Hex; readonly toBlock?: string }

/** The block height of a request. */
const heightOf = (
  { chain }: Scene,
  method: string,
  [wording]: ReadonlyArray<unknown>,
): number | undefined => {
  const byHash = (hash: unknown) => chain.byHash(hash as Hex)?.header.number
  switch (method) {
    case "eth_getLogs": {
      const { blockHash, toBlock } = wording as Filter
      return blockHash === undefined ? quantity(toBlock) : byHash(blockHash)
    }
    case "eth_getBlockByNumber":
      return quantity(wording)
    case "eth_getBlockByHash":
    case "eth_getBlockReceipts":
      return byHash(wording)
    default:
      return undefined
  }
}

/** Answers requests for the latest block differently for this many milliseconds after its announcement. */
const duringDelay =
  (scene: Scene, millis: number, answer: (method: string) => unknown): Intercept =>
  (method, params, proceed) => {
    const isEarly = heightOf(scene, method, params) === scene.chain.head.number && scene.since() < millis
    return isEarly ? answer(method) : proceed()
  }

const refused = (of: string) => (scene: Scene) => {
  scene.node.intercept = duringDelay(scene, 1500, () => {
    throw refusal(of, scene.chain.head)
  })
}

/**
 * A node behind a load balancer: heads come from one replica; each request goes to one that serves a block only this many
 * milliseconds after its announcement.
 */
const replicas = ({ node, chain, now }: Scene, behind: (request: number) => number) => {
  const announced: Array<number> = []
  chain.listen(() => announced.push(now()))
  let requests = 0
  node.intercept = (method, _params, proceed) => {
    if (method === "eth_subscribe") return proceed()
    const since = now() - behind(requests++)
    node.lag = announced.length - announced.findLastIndex((at) => at <= since) - 1
    try {
      return proceed()
    } finally {
      node.lag = 0
    }
  }
}

/** Every seventh height has no block: the parent of the block above is the block below. */
const isNull = (height: number) => height % 7 === 3

const below = (height: number): number => (isNull(height) ? height - 1 : height)

const nullRounds = ({ node, chain }: Scene) => {
  const onTop = (header: WireHeader): WireHeader => {
    const height = quantity(header.number)!
    return isNull(height - 1) ? { ...header, parentHash: chain.at(height - 2)!.header.hash } : header
  }
  let last: WireHeader | undefined
  node.announced = (header) => {
    if (!isNull(quantity(header.number)!)) last = onTop(header)
    return last ?? header
  }
  node.intercept = (method, params, proceed) => {
    if (method === "eth_blockNumber") return hex(below(chain.head.number))
    if (method !== "eth_getBlockByNumber") return proceed()
    const height = quantity(params[0])
    if (height !== undefined) return isNull(height) ? null : withParent(proceed())
    const seen = proceed() as WireHeader
    if (!isNull(quantity(seen.number)!)) return onTop(seen)
    const { header } = chain.at(quantity(seen.number)! - 1)!
    return {
      ...onTop({ ...seen, number: hex(header.number) }),
      ...header,
      number: hex(header.number),
      timestamp: hex(header.timestamp),
    }
  }
  const withParent = (answer: unknown) => (answer === null ? null : onTop(answer as WireHeader))
}

/** No logs at the heights without a block. */
const withNullRounds = { logs: [3, 1, 0, 2, 0, 1, 2], history: 28, live: 21 }

const rows: ReadonlyArray<Row> = [
  // -- A4: not yet
  ...["kaia", "avalanche", "sei", "erigon", "geth", "unknown client"].flatMap((of): ReadonlyArray<Row> => {
    const wording = of === "unknown client" ? "with an unknown message" : `like ${of}`
    return [
      {
        kind: "A4",
        name: `reports a missing block ${wording} [G-022]`,
        node: refused(of),
        out: { ...unaffected, maxDelay: 3 },
      },
      {
        kind: "A4",
        name: `reports a missing block ${wording}, under a filter`,
        node: refused(of),
        variables: filtered,
        out: { ...unaffected, maxDelay: 3 },
      },
    ]
  }),
  ...["erigon", "unknown client"].map((of): Row => ({
    kind: "A4",
    name: `reports a missing block like ${of}, with CONFIRMATIONS`,
    node: (scene) => {
      scene.node.intercept = (method, params, proceed) => {
        const height = heightOf(scene, method, params)
        const isEarly = height !== undefined && height > scene.chain.head.number - 3 && scene.since() < 1500
        if (isEarly) throw refusal(of, scene.chain.at(height)!.header)
        return proceed()
      }
    },
    variables: { CONFIRMATIONS: "2" },
    behind: 2,
    out: { ...unaffected, maxDelay: 5 },
  })),
  {
    kind: "A4",
    name: "reports a missing block with an unknown message, and is polled",
    node: refused("unknown client"),
    urls: "http://one",
    variables: { POLL_INTERVAL: "1s" },
    out: { ...unaffected, maxDelay: 5, connections: 0 },
  },
  // -- A4: too many
  ...["infura rate", "eip-1474"].map((of): Row => ({
    kind: "A4",
    name: `throttles like ${of} [G-023]`,
    node: ({ node, chain }) => {
      let requests = 0
      node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs" && ++requests % 4 === 0) throw refusal(of, chain.head)
        return proceed()
      }
    },
    out: { ...unaffected, maxDelay: 8 },
    also: ({ status }) => assert.isBelow(status.endpoints[0]!.rateLimiter!.rate(), Infinity),
  })),
  {
    kind: "A4",
    name: "throttles with an error without an id",
    node: ({ node }) => {
      let requests = 0
      node.intercept = (method, _params, proceed) => {
        if (method !== "eth_getLogs" || ++requests % 4 !== 0) return proceed()
        return new Raw(answers["id null"]!.frame!)
      }
    },
    out: { ...unaffected, maxDelay: 8 },
    also: ({ status }) => assert.isBelow(status.endpoints[0]!.rateLimiter!.rate(), Infinity),
  },
  // -- A5: null below an announced head
  {
    kind: "A5",
    name: "balances between replicas 1.5 s apart, with a block every 250 ms [G-024]",
    node: (scene) => replicas(scene, (request) => (request % 2) * 1500),
    blockTime: 0.25,
    live: 160,
    finality: 40,
    out: { ...unaffected, maxDelay: 4 },
  },
  {
    kind: "A5",
    name: "announces heads that every replica serves 1.5 s later",
    node: (scene) => replicas(scene, () => 1500),
    blockTime: 0.25,
    live: 160,
    finality: 40,
    out: { ...unaffected, maxDelay: 4 },
  },
  {
    kind: "A5",
    name: "balances between replicas 1.5 s apart that return [] for missing blocks, under a filter",
    node: (scene) => {
      replicas(scene, (request) => (request % 2) * 1500)
      const { intercept } = scene.node
      scene.node.intercept = (method, params, proceed) => {
        try {
          return intercept(method, params, proceed)
        } catch (error) {
          if (method === "eth_getLogs") return []
          throw error
        }
      }
    },
    variables: filtered,
    live: 40,
    out: { ...unaffected, maxDelay: 4 },
  },
  {
    kind: "A5",
    name: "has heights without a block (Filecoin) [G-025]",
    node: nullRounds,
    ...withNullRounds,
    // A height without a block is stored with the next block.
    out: { ...unaffected, maxDelay: 5 },
  },
  {
    kind: "A5",
    name: "has heights without a block, also at the ends of backfilled ranges",
    node: (scene) => {
      nullRounds(scene)
      const { intercept } = scene.node
      scene.node.intercept = (method, params, proceed) => {
        const { fromBlock, toBlock } = (params[0] ?? {}) as { fromBlock?: string; toBlock?: string }
        if (method === "eth_getLogs" && quantity(toBlock)! - quantity(fromBlock)! > 2)
          throw new Refused(-32602, "query exceeds max block range 3")
        return intercept(method, params, proceed)
      }
    },
    ...withNullRounds,
    history: 70,
    out: { ...unaffected, maxDelay: 5 },
  },
  {
    kind: "A5",
    name: "has heights without a block, and serves logs only by blockHash",
    node: (scene) => {
      nullRounds(scene)
      const { intercept } = scene.node
      scene.node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs" && (params[0] as Filter).blockHash === undefined)
          throw new Refused(-32601, "eth_getLogs takes a blockHash: method not supported")
        return intercept(method, params, proceed)
      }
    },
    before: ({ node }, block) => {
      if (block === 7) node.drop()
    },
    ...withNullRounds,
    out: { ...unaffected, maxDelay: 5, connections: 2, errorCount: 1 },
  },
  ...[3, 10, 31].map((start): Row => ({
    kind: "A5",
    name: `has no block at the start block ${start}`,
    node: nullRounds,
    ...withNullRounds,
    variables: { START_BLOCK: String(start) },
    // A start block above the head counts the wait for it.
    out: { ...unaffected, maxDelay: start === 31 ? 13 : 5 },
  })),
]

suite("loses no log and adds none with", rows)
