/** The oracle of the chaos tests detects faults, both in remaining and in retracted entries. */
import { assert, describe, it } from "@effect/vitest"
import type { Entry } from "../../src/Domain.ts"
import { FakeChain } from "../support/FakeChain.ts"
import type { FakeBlock } from "../support/FakeChain.ts"
import { faultsOf } from "../support/oracle.ts"

/** The correct entries of some logs of a block. */
const entries = (
  block: FakeBlock,
  removed = false,
  from = 0,
  to = block.logs.length,
): ReadonlyArray<Entry> => {
  const all = block.logs.slice(from, to).map((log): Entry => ({
    chain_id: "31337",
    block_number: String(block.header.number),
    block_hash: block.header.hash,
    tx_hash: log.txHash,
    log_index: String(log.index),
    contract: log.contract,
    topics: JSON.stringify(log.topics),
    data: log.data,
    timestamp: String(block.header.timestamp),
    tx_index: String(log.txIndex),
    removed: String(removed),
  }))
  return removed ? all.toReversed() : all
}

/** Blocks 1 … 4 with 2, 0, 3 and 2 500 logs, of which the last two were replaced by blocks of 1 and 2. */
const forked = () => {
  const chain = new FakeChain()
  chain.extend(2, 0, 3, 2500)
  const [, one, , three, four] = Array.from({ length: 5 }, (_, i) => chain.at(i)!)
  chain.fork(2, 1, 2)
  return { chain, one: one!, three: three!, four: four!, other: chain.at(3)!, last: chain.at(4)! }
}

const faultsIn = (chain: FakeChain, ...journal: ReadonlyArray<ReadonlyArray<Entry>>) =>
  faultsOf(
    chain,
    journal.flat().map((entry, i) => ({ id: String(i), entry })),
  ).map((fault) => fault.replace(/0x[0-9a-f]{64}/, "…"))

describe("the oracle", () => {
  it("accepts a reorg, complete or in the middle of a large block", () => {
    const { chain, four, last, one, other, three } = forked()
    for (const written of [0, 1000, 2000, 2500]) {
      const journal = [
        entries(one),
        entries(three),
        entries(four, false, 0, written),
        entries(four, true, 0, written),
        entries(three, true),
        entries(other),
        entries(last),
      ]
      assert.deepStrictEqual(faultsIn(chain, ...journal), [])
    }
    assert.deepStrictEqual(faultsIn(chain, entries(one), entries(three), entries(four, false, 0, 2000)), [])
  })

  it("detects a wrong entry even if it was retracted", () => {
    const { chain, one, other, three } = forked()
    for (const change of [{ data: "0x99" }, { timestamp: "1" }, { topics: "[]" }, { log_index: "9" }]) {
      const wrong = (all: ReadonlyArray<Entry>) =>
        all.map((entry) => (entry.log_index === "1" ? { ...entry, ...change } : entry))
      const faults = faultsIn(
        chain,
        entries(one),
        wrong(entries(three)),
        wrong(entries(three, true)),
        entries(other),
      )
      const index = "log_index" in change ? 9 : 1
      assert.deepStrictEqual(faults, [
        `3: the entry of 31337:…:${index} differs from the chain`,
        `6: the removal of 31337:…:${index} differs from the chain`,
      ])
    }
  })

  it("detects a block that is retracted, extended or abandoned before it is complete", () => {
    const { chain, four, last, one, other, three } = forked()
    assert.deepStrictEqual(
      faultsIn(chain, entries(one), entries(three, false, 0, 2), entries(three, true, 0, 2), entries(other)),
      ["4: the removal of 31337:…:1 retracts a block that has 2 of 3 logs"],
    )
    assert.deepStrictEqual(
      faultsIn(
        chain,
        entries(one),
        entries(three),
        entries(four, false, 0, 999),
        entries(four, true, 0, 999),
      ),
      ["1004: the removal of 31337:…:998 retracts a block that has 999 of 2500 logs"],
    )
    assert.deepStrictEqual(faultsIn(chain, entries(one, false, 0, 1), entries(other)), [
      "1: the entry of 31337:…:0 comes while block 1 has 1 of 2 logs",
    ])
    assert.deepStrictEqual(
      faultsIn(
        chain,
        entries(one),
        entries(three),
        entries(four),
        entries(four, true, 1000),
        entries(four, false, 1000),
      ),
      Array.from(
        { length: 1500 },
        (_, i) => `${4005 + i}: the entry of 31337:…:${1000 + i} is added to a block that is being retracted`,
      ),
    )
    assert.deepStrictEqual(faultsIn(chain, entries(one), entries(other), entries(last, false, 0, 1)), [
      "at the end block 4 has 1 of 2 logs",
    ])
  })

  it("detects blocks that are skipped, of another fork, or unknown", () => {
    const { chain, four, last, one, other, three } = forked()
    assert.deepStrictEqual(faultsIn(chain, entries(other)), [
      "0: the entry of 31337:…:0 comes before the logs of block 1",
    ])
    assert.deepStrictEqual(
      faultsIn(chain, entries(one), entries(last), entries(last, true), entries(other)),
      ["2: the entry of 31337:…:0 comes before the logs of block 3"],
    )
    assert.deepStrictEqual(faultsIn(chain, entries(one), entries(three), entries(last)), [
      "5: the entry of 31337:…:0 is not on top of block 3",
    ])
    assert.deepStrictEqual(faultsIn(chain, entries(one), entries(four, true, 0, 1)), [
      "2: the removal of 31337:…:0 is not of the top block",
    ])
    const [nowhere] = entries(one)
    assert.deepStrictEqual(faultsIn(chain, [{ ...nowhere!, block_hash: `0x${"9".repeat(64)}` }]), [
      "0: the entry of 31337:…:0 is of a block that never existed",
    ])
  })

  it("expects nothing below the start block", () => {
    const { chain, last, other } = forked()
    const journal = [...entries(other), ...entries(last)].map((entry, i) => ({ id: String(i), entry }))
    assert.deepStrictEqual(faultsOf(chain, journal, 3), [])
    assert.strictEqual(faultsOf(chain, journal, 1).length, 1)
  })
})
