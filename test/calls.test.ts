/**
 * How often a provider is asked: what the README says of calls per day, measured on a chain in memory with the block time
 * of the real one. `CALLS_FIGURES=1` prints the table.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { readFileSync } from "node:fs"
import type { Hex } from "../src/Domain.ts"
import { hash } from "./support/blocks.ts"
import { FakeChain } from "./support/FakeChain.ts"
import { FakeNode } from "./support/FakeNode.ts"
import { memoryStore, startIngestor, variablesFor } from "./support/ingestor.ts"

const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)

/** One block in so many has logs of the contract that is filtered for. */
const matching = 20

const chains = [
  { name: "Ethereum", blockTime: 12, finality: 64 },
  { name: "Base, Optimism", blockTime: 2, finality: 400 },
  { name: "Arbitrum", blockTime: 0.25, finality: 600 },
] as const

const settings = [
  { name: "everything, one endpoint", filtered: false, hosts: "one" },
  { name: "everything, two endpoints", filtered: false, hosts: "one,two" },
  { name: "a filter, one endpoint", filtered: true, hosts: "one" },
  { name: "a filter, two endpoints", filtered: true, hosts: "one,two" },
] as const

/** Requests a day to all endpoints, and those for logs among them, at the tip. */
const measure = Effect.fnUntraced(function* (
  { blockTime, finality }: (typeof chains)[number],
  { filtered, hosts }: (typeof settings)[number],
) {
  const chain = new FakeChain({ finality, blockTime, contracts })
  const nodes = { one: new FakeNode(chain), two: new FakeNode(chain) }
  const store = yield* memoryStore()
  const { status } = yield* startIngestor(store, nodes, {
    ...variablesFor({ devnet: [chain, hosts] }),
    ...(filtered && { ADDRESSES: contracts[2]! }),
  })
  const run = Effect.fnUntraced(function* (blocks: number) {
    for (let i = 0; i < blocks; i++) {
      // Only where there are three logs is there one of the third contract.
      chain.extend(chain.head.number % matching === 0 ? 3 : 2)
      yield* TestClock.adjust(blockTime * 1000)
    }
  })
  const count = (method?: string) =>
    [nodes.one, nodes.two].reduce(
      (sum, { requests }) =>
        sum + (method ? (requests.get(method) ?? 0) : [...requests.values()].reduce((a, b) => a + b, 0)),
      0,
    )
  yield* run(finality + 40)
  const [all, logs, tip] = [count(), count("eth_getLogs"), nodes.one.requests.get("eth_getLogs") ?? 0]
  const blocks = Math.max(Math.round(600 / blockTime), 400)
  yield* run(blocks)
  assert.strictEqual(status.stored, chain.head.number)
  const perDay = (calls: number) => (calls * 86_400) / (blocks * blockTime)
  return {
    all: perDay(count() - all),
    logs: perDay(count("eth_getLogs") - logs),
    perBlock: ((nodes.one.requests.get("eth_getLogs") ?? 0) - tip) / blocks,
  }
})

const rounded = (calls: number) => Math.round(calls / 100) * 100

const told = (calls: number) => rounded(calls).toLocaleString("en").replaceAll(",", " ")

describe("calls per day", () => {
  it.effect(
    "are what the README says",
    () =>
      Effect.gen(function* () {
        const readme = readFileSync("README.md", "utf8")
        const rows: Array<string> = []
        for (const setting of settings) {
          const cells: Array<string> = []
          for (const chain of chains) {
            const { all, perBlock } = yield* Effect.scoped(measure(chain, setting))
            cells.push(told(all))
            // Never more than one request for logs per block at the tip, and none when the bloom says no; a single
            // endpoint is asked once more for each step of finality, which is a minute or a block.
            const audits = setting.hosts === "one" ? Math.min(chain.blockTime / 60, 1) : 0
            const expected = (setting.filtered ? 1 / matching : 1) + audits
            assert.isAtMost(perBlock, expected * 1.05, `${chain.name}, ${setting.name}`)
          }
          rows.push(`| ours: ${setting.name} | ${cells.join(" | ")} |`)
        }
        const perDay = (seconds: number) => 86_400 / seconds
        rows.push(
          `| one \`eth_getLogs\` a block, heads pushed | ${chains.map(({ blockTime }) => told(perDay(blockTime))).join(" | ")} |`,
        )
        rows.push(
          `| a poll of each of 10 events every 4 s | ${chains.map(() => told(10 * perDay(4))).join(" | ")} |`,
        )
        if (process.env["CALLS_FIGURES"] !== undefined) process.stdout.write(`${rows.join("\n")}\n`)
        for (const row of rows) assert.include(readme, row)
      }),
    60_000,
  )
})
