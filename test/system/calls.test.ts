/**
 * The provider requests and subscription bytes per day that docs/SCALING.md states, measured on an in-memory chain with the
 * block time of the real one. `CALLS_FIGURES=1` prints the table.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { readFileSync } from "node:fs"
import { defaultPollInterval } from "../../src/config/Chains.ts"
import type { Hex } from "../../src/Domain.ts"
import { hash } from "../support/blocks.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import type { WireHeader } from "../support/FakeNode.ts"
import { memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"

const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)

/** One block in this many has a log that matches the filter. */
const matching = 20

const chains = [
  { name: "Ethereum", blockTime: 12, finality: 64 },
  { name: "Base, Optimism", blockTime: 2, finality: 400 },
  { name: "Arbitrum", blockTime: 0.25, finality: 600 },
] as const

const settings = [
  {
    name: "everything, one endpoint",
    filtered: false,
    hosts: "one",
    polled: false,
    before: [14_400, 50_300, 352_800],
  },
  {
    name: "everything, two endpoints",
    filtered: false,
    hosts: "one,two",
    polled: false,
    before: [23_000, 58_900, 361_400],
  },
  {
    name: "a filter, one endpoint",
    filtered: true,
    hosts: "one",
    polled: false,
    before: [7600, 9300, 24_500],
  },
  {
    name: "a filter, two endpoints",
    filtered: true,
    hosts: "one,two",
    polled: false,
    before: [16_200, 17_800, 33_100],
  },
  { name: "everything, one endpoint, heads polled", filtered: false, hosts: "one", polled: true, before: [] },
  { name: "a filter, one endpoint, heads polled", filtered: true, hosts: "one", polled: true, before: [] },
] as const

/** Blocks over which calls are counted. */
const counted = ({ blockTime }: (typeof chains)[number]) => Math.max(Math.round(600 / blockTime), 400)

/**
 * The allowed increase over the calls a day of version 0.1.0 (`before`): for one endpoint, a range and its last header
 * each minute; for two, which were compared before, the standby's header for each new final block.
 */
const mayBeAdded = (chain: (typeof chains)[number], { hosts }: (typeof settings)[number]): number => {
  const seconds = counted(chain) * chain.blockTime
  return ((hosts === "one" ? (2 * seconds) / 60 : seconds / 15) * 86_400) / seconds
}

/** A header as geth 1.16 announces it on Ethereum: the in-memory chain has only the fields that the service reads. */
const word = `0x${"5".repeat(64)}`
const announced = (header: WireHeader) => ({
  ...header,
  sha3Uncles: word,
  miner: `0x${"5".repeat(40)}`,
  stateRoot: word,
  transactionsRoot: word,
  receiptsRoot: word,
  difficulty: "0x0",
  gasLimit: "0x3938700",
  gasUsed: "0x1c9c380",
  extraData: `0x${"5".repeat(40)}`,
  mixHash: word,
  nonce: "0x0000000000000000",
  baseFeePerGas: "0x3b9aca00",
  withdrawalsRoot: word,
  blobGasUsed: "0xc0000",
  excessBlobGas: "0x0",
  parentBeaconBlockRoot: word,
  requestsHash: word,
})

/** Requests a day to all endpoints, subscription bytes a day, and `eth_getLogs` requests per block at the tip. */
const measure = Effect.fnUntraced(function* (
  of: (typeof chains)[number],
  { filtered, hosts, polled }: (typeof settings)[number],
) {
  const { blockTime, finality } = of
  const chain = new FakeChain({ finality, blockTime, contracts })
  const nodes = { one: new FakeNode(chain), two: new FakeNode(chain) }
  nodes.one.announced = nodes.two.announced = announced
  const store = yield* memoryStore()
  const { status } = yield* startIngestor(store, nodes, {
    ...variablesFor({ devnet: [chain, hosts] }),
    ...(filtered && { ADDRESSES: contracts[2]! }),
    // The default interval of chains with this block time.
    ...(polled && {
      HEADS: "poll",
      POLL_INTERVAL: `${defaultPollInterval(blockTime * 1000)}ms`,
    }),
  })
  const run = Effect.fnUntraced(function* (blocks: number) {
    for (let i = 0; i < blocks; i++) {
      // Only the third log of a block is emitted by the third contract.
      chain.extend(chain.head.number % matching === 0 ? 3 : 2)
      yield* TestClock.adjust(blockTime * 1000)
    }
  })
  const count = () =>
    [nodes.one, nodes.two].reduce(
      (sum, { requests }) => sum + [...requests.values()].reduce((a, b) => a + b, 0),
      0,
    )
  // Beyond the first audit, which costs more than the others.
  yield* run(finality + 40 + Math.ceil(90 / blockTime))
  const pushed = () => nodes.one.notified + nodes.two.notified
  const [all, tip, bytes] = [count(), nodes.one.timesAsked("eth_getLogs"), pushed()]
  const blocks = counted(of)
  yield* run(blocks)
  const perDay = (counted: number) => (counted * 86_400) / (blocks * blockTime)
  const measured = {
    all: perDay(count() - all),
    bytes: perDay(pushed() - bytes),
    perBlock: (nodes.one.timesAsked("eth_getLogs") - tip) / blocks,
  }
  // The next poll may be the one that finds the last block.
  yield* TestClock.adjust(2 * defaultPollInterval(blockTime * 1000))
  assert.strictEqual(status.stored, chain.head.number)
  return measured
})

const rounded = (calls: number) => Math.round(calls / 100) * 100

const formatted = (calls: number) => rounded(calls).toLocaleString("en").replaceAll(",", " ")

describe("calls per day", () => {
  it.effect(
    "equal those of docs/SCALING.md, and so do the subscription bytes",
    () =>
      Effect.gen(function* () {
        const page = readFileSync("docs/SCALING.md", "utf8")
        const rows: Array<string> = []
        const pushed = chains.map(() => new Set<string>())
        for (const setting of settings) {
          const cells: Array<string> = []
          for (const [i, chain] of chains.entries()) {
            const { all, bytes, perBlock } = yield* Effect.scoped(measure(chain, setting))
            cells.push(formatted(all))
            const before: number | undefined = setting.before[i]
            if (before !== undefined)
              assert.isAtMost(
                rounded(all),
                before + mayBeAdded(chain, setting) + 100,
                `${chain.name}, ${setting.name}`,
              )
            if (setting.polled) assert.strictEqual(bytes, 0)
            else pushed[i]!.add(`${Math.round(bytes / 1e6)} MB`)
            // At most one request for logs per block at the tip, and none if the bloom excludes a match; a single endpoint
            // gets one more for each finalization, which is a minute or a block.
            const audits = setting.hosts === "one" ? Math.min(chain.blockTime / 60, 1) : 0
            // A poll that finds several blocks requests them in one range, whatever their blooms contain.
            const ranges = setting.polled && chain.blockTime < 1 ? chain.blockTime : 0
            const expected = (setting.filtered ? 1 / matching : 1) + audits + ranges
            assert.isAtMost(perBlock, expected * 1.05, `${chain.name}, ${setting.name}`)
          }
          rows.push(`| ours: ${setting.name} | ${cells.join(" | ")} |`)
        }
        // The same with and without a filter, for one endpoint or two: only the endpoint in use has a subscription.
        rows.push(
          `| ours: bytes that the subscription to heads pushes | ${pushed.map((sizes) => [...sizes].join(", ")).join(" | ")} |`,
        )
        const perDay = (seconds: number) => 86_400 / seconds
        rows.push(
          `| one \`eth_getLogs\` a block, heads pushed | ${chains.map(({ blockTime }) => formatted(perDay(blockTime))).join(" | ")} |`,
        )
        rows.push(
          `| a poll of each of 10 events every 4 s | ${chains.map(() => formatted(10 * perDay(4))).join(" | ")} |`,
        )
        if (process.env["CALLS_FIGURES"] !== undefined) process.stdout.write(`${rows.join("\n")}\n`)
        for (const row of rows) assert.include(page, row)
      }),
    60_000,
  )
})
