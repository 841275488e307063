/**
 * Two ingestors of one chain whose nodes are on different forks: each shows a longer chain than the store has, in turn.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { eventually, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import { assertComplete } from "../support/oracle.ts"
import { unready } from "../../src/web/Readiness.ts"

const blockTime = 12
const logsPerBlock = 10

interface Split {
  /** Seconds. */
  readonly lasts: number
  /** How many blocks differ when it begins. */
  readonly depth: number
  /** Seconds that the other side's blocks come later. */
  readonly behind: number
  /** Whose side the chain takes in the end. */
  readonly wins: "first" | "second"
}

/** Plays a split, and answers how many entries were written for each log of the chain, and how long it took to be whole. */
const play = Effect.fnUntraced(function* ({ lasts, depth, behind, wins }: Split) {
  const chain = new FakeChain({ finality: 400, blockTime })
  const nodes = { first: new FakeNode(chain), second: new FakeNode(chain) }
  chain.extend(...Array.from({ length: 8 }, () => logsPerBlock))
  const store = yield* memoryStore()
  const { status } = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "first"] }))
  const other = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "second"] }))
  yield* eventually("both stand at the head", () =>
    [status, other.status].every(({ stored }) => stored === chain.head.number),
  )
  const fork = chain.branch(depth, ...Array.from({ length: depth }, () => logsPerBlock))
  const leaves = wins === "first" ? "second" : "first"
  nodes[leaves].follow(fork)
  for (let i = 0; i < lasts / blockTime; i++) {
    chain.extend(logsPerBlock)
    yield* TestClock.adjust(`${behind} seconds`)
    fork.extend(logsPerBlock)
    yield* TestClock.adjust(`${blockTime - behind} seconds`)
  }
  nodes[leaves].follow(chain)
  chain.extend(logsPerBlock)
  let waited = 0
  while ((yield* store.load(chain.id))?.head.hash !== chain.head.hash && waited < 3600) {
    yield* TestClock.adjust("5 seconds")
    waited += 5
    if (waited % blockTime < 5) chain.extend(logsPerBlock)
  }
  yield* assertComplete(store, chain)
  const entries = yield* store.read(chain.id, undefined, 1_000_000)
  return { entries: entries.length / (chain.head.number * logsPerBlock), waited }
}, Effect.scoped)

describe("a split between two nodes, each with an ingestor", () => {
  for (const [lasts, depth, behind, most] of [
    [130, 1, 0.3, 3],
    [130, 3, 5, 3],
    [130, 6, 11, 3],
    // Each further change of side comes later: the number of entries does not grow with the square of the length.
    [900, 2, 5, 5],
  ] as const)
    for (const wins of ["first", "second"] as const)
      it.effect(
        `writes at most ${most} entries a log (${lasts} s, ${depth} deep, ${behind} s apart, the ${wins} is right)`,
        () =>
          Effect.gen(function* () {
            const { entries, waited } = yield* play({ lasts, depth, behind, wins })
            assert.isAtMost(entries, most)
            assert.isAtMost(waited, 20, "seconds until the journal is the chain, after the split")
          }),
      )

  it.effect("says so while it waits, and ends once the other ingestor is gone and the wait is over", () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 400, blockTime })
      const nodes = { right: new FakeNode(chain), wrong: new FakeNode(chain) }
      chain.extend(1, 1, 1)
      const store = yield* memoryStore()
      const { status } = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "right"] }))
      yield* eventually("it is stored", () => status.stored === chain.head.number)
      const fork = chain.branch(1, 1, 1)
      nodes.wrong.follow(fork)
      const other = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "wrong"] }))
      yield* eventually("the other is on its fork", () => other.status.stored === fork.head.number)
      yield* other.stop
      chain.extend(1, 1)
      yield* eventually("it waits", () => status.standoffUntil !== undefined)
      const [reason] = unready(status, status.standoffUntil! - 90_000)
      assert.match(reason!, /another ingestor's node is on another fork: its blocks stay for 90 s more/)
      yield* eventually("it goes on", () => status.stored === chain.head.number, 160)
      assert.isUndefined(status.standoffUntil)
      yield* assertComplete(store, chain)
    }),
  )
})

describe("what is no change of side is followed at once", () => {
  const reorgs = (hosts: ReadonlyArray<"one" | "two">) =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 400, blockTime })
      const nodes = { one: new FakeNode(chain), two: new FakeNode(chain) }
      chain.extend(2, 2, 2, 2)
      const store = yield* memoryStore()
      const running = yield* Effect.forEach(hosts, (host) =>
        startIngestor(store, nodes, variablesFor({ devnet: [chain, host] })),
      )
      const isAtHead = () => running.every(({ status }) => status.stored === chain.head.number)
      yield* eventually("all are at the head", isAtHead)
      const views = [chain, chain.branch(2, 2, 2, 2)]
      // There and back again, three times: what was undone comes back.
      for (let i = 1; i <= 6; i++) {
        const view = views[i % 2]!
        while (view.head.number < 4 + 2 * i) view.extend(3)
        for (const node of Object.values(nodes)) node.follow(view)
        const there = () => running.every(({ status }) => status.stored === view.head.number)
        yield* eventually("all are on the other fork", there, 5)
      }
      yield* assertComplete(store, views[0]!)
    }).pipe(Effect.scoped)

  it.effect("a reorg to blocks that were there before, by one ingestor", () => reorgs(["one"]))
  it.effect("the same by two ingestors whose nodes agree", () => reorgs(["one", "two"]))
})
