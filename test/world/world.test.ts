/** Blooms, incomplete responses, fields without integrity checks, shapes of logs: a row each (`support/dialect.ts`). */
import { assert } from "@effect/vitest"
import { hex } from "../../src/endpoint/Decode.ts"
import { bloomOf } from "../../src/logs/Bloom.ts"
import { answers } from "../support/answers.ts"
import { both, filtered, on, unaffected } from "../support/dialect.ts"
import type { Row, Scene, Wires } from "../support/dialect.ts"
import { suite } from "../support/dialects.ts"
import { Refused } from "../support/FakeNode.ts"
import type { Intercept, WireHeader } from "../support/FakeNode.ts"

type Wire = Wires[number]

const zeros = `0x${"0".repeat(512)}`
const ones = `0x${"f".repeat(512)}`

/** Changes every header, announced or fetched. */
const headers = ({ node }: Scene, change: (header: Wire) => Wire) => {
  node.announced = change as (header: WireHeader) => unknown
  const fetched = (answer: unknown) => (answer === null ? null : change(answer as Wire))
  node.intercept = both(on("eth_getBlockByNumber", fetched), on("eth_getBlockByHash", fetched))
}

/** Changes the logs of `eth_getLogs`. */
const logs = (change: (logs: Wires) => unknown): Intercept => on("eth_getLogs", (all) => change(all as Wires))

const each = (change: (log: Wire, i: number) => Wire) => logs((all) => all.map(change))

/** Changes the logs of the latest block when requested by hash, for this many milliseconds after its announcement. */
const logsOfTip = ({ chain, since }: Scene, millis: number, change: (logs: Wires) => unknown): Intercept =>
  on("eth_getLogs", (all, [filter]) =>
    (filter as Wire)["blockHash"] === chain.head.hash && since() < millis ? change(all as Wires) : all,
  )

const noReceipts: Intercept = (method, _params, proceed) => {
  if (method === "eth_getBlockReceipts") throw new Refused(-32601, "the method does not exist")
  return proceed()
}

const number = (text: unknown) => Number(text as string)

const rows: ReadonlyArray<Row> = [
  // -- A1: blooms
  {
    kind: "A1",
    name: "announces zero blooms, returns correct ones (Cosmos EVM, Sei) and reconnects [G-011]",
    node: ({ node }) => {
      node.announced = (header) => ({ ...header, ...answers["cosmos bloom"]!.result })
    },
    before: ({ node }, block) => {
      if (block === 8) node.drop()
    },
    out: { ...unaffected, maxDelay: 3, connections: 2, errorCount: 1 },
  },
  {
    kind: "A1",
    name: "returns blooms of all ones (Filecoin) [G-012]",
    node: (scene) => headers(scene, (header) => ({ ...header, logsBloom: ones })),
    out: unaffected,
  },
  {
    kind: "A1",
    name: "returns no blooms",
    node: (scene) => headers(scene, (header) => ({ ...header, logsBloom: undefined })),
    out: unaffected,
  },
  {
    kind: "A1",
    name: "returns null blooms, with LOGS_BLOOM=ignore",
    node: (scene) => headers(scene, (header) => ({ ...header, logsBloom: null })),
    variables: { LOGS_BLOOM: "ignore" },
    out: unaffected,
  },
  {
    kind: "A1",
    name: "sets a bloom on empty blocks (ZKsync) [G-013]",
    node: (scene) => headers(scene, (header) => ({ ...header, logsBloom: `0x8${"0".repeat(510)}1` })),
    out: { ...unaffected, maxDelay: 2 },
    also: ({ status }) =>
      assert.match(status.endpoints[0]!.capabilities!.limits.join(), /set LOGS_BLOOM=ignore/),
  },
  {
    kind: "A1",
    name: "computes blooms only for every third block",
    node: (scene) =>
      headers(scene, (header) =>
        number(header["number"]) % 3 === 0 ? header : { ...header, logsBloom: zeros },
      ),
    out: unaffected,
  },
  // -- A2: incomplete responses
  {
    kind: "A2",
    name: "returns [] for 150 ms after it announced a block (op-geth, Erigon), under a filter [G-014]",
    node: (scene) => {
      scene.node.intercept = logsOfTip(scene, 150, () => [])
    },
    variables: filtered,
    out: unaffected,
  },
  {
    kind: "A2",
    name: "returns null for a block that it has just announced, under a filter",
    node: (scene) => {
      scene.node.intercept = logsOfTip(scene, 150, () => null)
    },
    variables: filtered,
    out: unaffected,
  },
  {
    kind: "A2",
    name: "returns [] for nearly a block time and serves no receipts: the audit corrects it [G-015]",
    node: (scene) => {
      scene.node.intercept = both(
        noReceipts,
        logsOfTip(scene, 3900, () => []),
      )
    },
    variables: filtered,
    repaired: true,
    // Each block that the audit finds is an error, and counted against the node.
    out: { ...unaffected, maxDelay: 2, errorCount: 16 },
  },
  {
    kind: "A2",
    name: "omits the last log of a block for a while: the audit corrects it [G-016]",
    node: (scene) => {
      scene.node.intercept = logsOfTip(scene, 3900, (all) => all.slice(0, -1))
    },
    variables: filtered,
    repaired: true,
    out: { ...unaffected, maxDelay: 2, errorCount: 10 },
  },
  {
    kind: "A2",
    name: "returns the first 300 logs of blocks with 400 [G-017]",
    node: ({ node }) => {
      node.intercept = logs((all) => (all.length === 400 ? all.slice(0, 300) : all))
    },
    logs: [400, 1],
    history: 6,
    live: 10,
    blockTime: 40,
    out: unaffected,
  },
  {
    kind: "A2",
    name: "returns [] for pruned receipts and refuses eth_getLogs without an address [G-018]",
    node: ({ node, chain }) => {
      node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs") throw new Refused(-32701, "please specify an address")
        if (method !== "eth_getBlockReceipts") return proceed()
        const block = chain.byHash(params[0] as never)!
        return block.header.number < 20 ? [] : proceed()
      }
    },
    out: unaffected,
  },
  {
    kind: "A2",
    name: "returns [] for pruned receipts, refuses eth_getLogs without an address and returns no blooms",
    node: (scene) => {
      const { chain, node } = scene
      headers(scene, (header) => ({ ...header, logsBloom: undefined }))
      const { intercept } = node
      node.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs") throw new Refused(-32701, "please specify an address")
        if (method !== "eth_getBlockReceipts") return intercept(method, params, proceed)
        return chain.byHash(params[0] as never)!.header.number < 20 ? [] : proceed()
      }
    },
    out: unaffected,
  },
  ...(["trust", "ignore"] as const).map((bloom): Row => ({
    kind: "A2",
    name: `returns logs without a receipt (bor's state sync), with LOGS_BLOOM=${bloom} [G-019]`,
    node: (scene) => {
      const { chain, node } = scene
      // The last log of a block with several is in no receipt, and not in the header's bloom either.
      const before = (block: unknown) => {
        const { logs } = chain.at(number(block))!
        return logs.length > 1 ? logs.slice(0, -1) : logs
      }
      headers(scene, (header) => ({ ...header, logsBloom: bloomOf(before(header["number"])) }))
      node.intercept = both(
        on("eth_getBlockReceipts", (all) =>
          (all as Wires).map((receipt) => {
            const [log, ...more] = receipt["logs"] as Wires
            const isWhole = log === undefined || before(log["blockNumber"]).length > more.length
            return isWhole ? receipt : { ...receipt, logs: [log, ...more.slice(0, -1)] }
          }),
        ),
        node.intercept,
      )
    },
    out: { ...unaffected, maxDelay: 2 },
  })),
  ...[filtered, undefined].map((variables): Row => ({
    kind: "A2",
    name: `is polled, and returns [] for a block that a replica does not serve yet${variables ? ", under a filter" : ""}`,
    node: (scene) => {
      scene.node.intercept = logsOfTip(scene, 1500, () => [])
    },
    urls: "http://one",
    variables: { ...variables, POLL_INTERVAL: "1s" },
    out: { ...unaffected, maxDelay: 4, connections: 0 },
  })),
  // -- A3: fields without integrity checks
  {
    kind: "A3",
    name: "sends logs with the timestamp 0 (Sonic) [G-020]",
    node: ({ node }) => {
      node.intercept = each((log) => ({ ...log, blockTimestamp: "0x0" }))
    },
    out: unaffected,
  },
  {
    kind: "A3",
    name: "sends logs with a timestamp in milliseconds",
    node: ({ node }) => {
      node.intercept = each((log) => ({ ...log, blockTimestamp: hex(number(log["blockTimestamp"]) * 1000) }))
    },
    out: unaffected,
  },
  {
    kind: "A3",
    name: "sends timestamps in milliseconds: warns once [G-021]",
    node: () => {},
    times: "milliseconds",
    before: ({ node }, block) => {
      if (block === 8) node.drop()
    },
    out: { ...unaffected, maxDelay: 3, connections: 2, errorCount: 1 },
    also: ({ warnings }) => {
      const skew = warnings.filter((text) => /times are stored as reported/.test(text))
      assert.lengthOf(skew, 1)
      assert.match(skew[0]!, /^one:80 reports time 1700000124000 for block 30, local time is 1700000124 /)
    },
  },
  {
    kind: "A3",
    name: "sends correct timestamps: warns of nothing",
    node: () => {},
    out: unaffected,
    also: ({ warnings }) => assert.deepStrictEqual(warnings, []),
  },
  // -- A6: shapes
  {
    kind: "A6",
    name: "sends logs in any order [G-026]",
    node: ({ node }) => {
      node.intercept = logs((all) => all.toReversed())
    },
    out: unaffected,
  },
  {
    kind: "A6",
    name: "sends every log twice",
    node: ({ node }) => {
      node.intercept = logs((all) => [...all, ...all])
    },
    out: unaffected,
  },
]

suite("loses no log and adds none with", rows)
