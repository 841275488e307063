/**
 * Blocks that need more than one call, written by two ingestors under a filter, while one node leaves a log out: the
 * parts of two different answers are never mixed, and the audit puts right what is left.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../src/Domain.ts"
import { hash } from "../support/blocks.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { eventually, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import type { Client } from "../support/ingestor.ts"
import { judge } from "../support/oracle.ts"

const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)

type Wire = { readonly blockNumber: string; readonly logIndex: string }

/** Leaves one log out of each large block, at a position that the seed decides. */
const leaveOut = (node: FakeNode, seed: number) => {
  node.intercept = (method, _params, proceed) => {
    const answer = proceed()
    if (method === "eth_getBlockReceipts") return []
    if (method !== "eth_getLogs") return answer
    return (answer as ReadonlyArray<Wire>).filter(
      ({ blockNumber, logIndex }) => Number(logIndex) !== (Number(blockNumber) * 131 + seed * 379) % 1400,
    )
  }
}

const scenario = Effect.fnUntraced(function* (seed: number) {
  const chain = new FakeChain({ finality: 4, blockTime: 12, contracts })
  const [right, wrong] = [new FakeNode(chain), new FakeNode(chain)]
  leaveOut(wrong, seed)
  const store = yield* memoryStore()
  const variables = (hosts: string) => ({
    ...variablesFor({ devnet: [chain, hosts] }),
    ADDRESSES: contracts.join(","),
  })
  const nodes = { right, wrong }
  /** Each push takes its time, so that those of two ingestors interleave. */
  const slow = (salt: number): Client => {
    let pushes = 0
    return {
      ...store,
      push: (id, filter, push) =>
        Effect.delay(store.push(id, filter, push), 1 + ((seed * 7 + ++pushes * 13 + salt * 5) % 17)),
    }
  }
  yield* startIngestor(slow(0), nodes, variables("right,wrong"))
  const { status } = yield* startIngestor(slow(1), nodes, variables("wrong,right"))
  for (let i = 0; i < 3; i++) {
    chain.extend(1500 + ((seed * 997 + i * 1409) % 2000))
    yield* TestClock.adjust("12 seconds")
  }
  for (let i = 0; i < 25; i++) {
    chain.extend(1)
    yield* TestClock.adjust("12 seconds")
  }
  yield* eventually("it is stored", () => status.stored === chain.head.number, 120)
  const { lost, doubled, replay } = yield* judge(store, chain, 0, false)
  assert.deepStrictEqual({ lost, doubled, faults: replay.faults }, { lost: 0, doubled: 0, faults: [] })
}, Effect.scoped)

describe("two ingestors, and blocks in parts", () => {
  for (const seed of [3, 4, 5, 7])
    it.effect(`lose and double nothing (${seed})`, () => scenario(seed), 30_000)
})
