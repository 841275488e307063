/**
 * Two ingestors of one chain whose nodes are on different forks: each node in turn serves a longer chain than the stored
 * one.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { eventually, memoryStore, startIngestor, switching, variablesFor } from "../support/ingestor.ts"
import type { Client } from "../support/ingestor.ts"
import { assertComplete } from "../support/oracle.ts"
import { unready } from "../../src/observability/Readiness.ts"

const blockTime = 12
const logsPerBlock = 10

interface Split {
  /** How long the split lasts (seconds). */
  readonly lasts: number
  /** How many blocks differ at the beginning. */
  readonly depth: number
  /** The delay of the other side's blocks (seconds). */
  readonly behind: number
  /** Which side becomes canonical in the end. */
  readonly wins: "first" | "second"
}

/**
 * Runs a split, and returns how many entries were written per log of the chain, how long the journal took to equal the
 * chain afterwards, and when the journal changed sides (seconds from the beginning of the split).
 */
const runSplit = Effect.fnUntraced(function* ({ lasts, depth, behind, wins }: Split) {
  const chain = new FakeChain({ finality: 400, blockTime })
  const nodes = { first: new FakeNode(chain), second: new FakeNode(chain) }
  chain.extend(...Array.from({ length: 8 }, () => logsPerBlock))
  const store = yield* memoryStore()
  const { status } = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "first"] }))
  const other = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "second"] }))
  yield* eventually("both are at the head", () =>
    [status, other.status].every(({ stored }) => stored === chain.head.number),
  )
  const fork = chain.branch(depth, ...Array.from({ length: depth }, () => logsPerBlock))
  const leaves = wins === "first" ? "second" : "first"
  nodes[leaves].follow(fork)
  const changes: Array<number> = []
  let isOnFork = false
  const recordSide = Effect.fnUntraced(function* (second: number) {
    const head = (yield* store.load(chain.id))!.head
    const is = head.number > fork.head.number - depth && fork.at(head.number)?.header.hash === head.hash
    if (is !== isOnFork) changes.push(second)
    isOnFork = is
  })
  for (let second = 0; second < lasts; second += blockTime) {
    chain.extend(logsPerBlock)
    yield* TestClock.adjust(`${behind} seconds`)
    yield* recordSide(second)
    fork.extend(logsPerBlock)
    yield* TestClock.adjust(`${blockTime - behind} seconds`)
    yield* recordSide(second)
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
  const entries = yield* Stream.runCollect(store.after(chain.id))
  return { entries: entries.length / (chain.head.number * logsPerBlock), waited, changes }
}, Effect.scoped)

describe("a standoff between two ingestors on different forks", () => {
  for (const [lasts, depth, behind, most, times] of [
    [130, 1, 0.3, 3, 1],
    [130, 3, 5, 3, 1],
    [130, 2, 8, 3, 1],
    // A fork of equal height replaces the other only after 3 s, so the sides never change.
    [130, 6, 11, 3, 0],
    // Each further change of side comes later: the number of entries does not grow quadratically with the length.
    [900, 2, 5, 5, 4],
    [3600, 4, 7, 10, 9],
  ] as const)
    for (const wins of ["first", "second"] as const)
      it.effect(
        `writes at most ${most} entries a log (${lasts} s, ${depth} deep, ${behind} s apart, the ${wins} is canonical) [G-135]`,
        () =>
          Effect.gen(function* () {
            const { entries, waited, changes } = yield* runSplit({ lasts, depth, behind, wins })
            assert.isAtMost(entries, most)
            assert.isAtMost(waited, 20, "seconds until the journal is the chain, after the split")
            // Neither side is excluded permanently, and neither changes back sooner than the time before.
            assert.lengthOf(changes, times)
            const waits = changes.slice(1).map((at, i) => at - changes[i]!)
            for (const [i, wait] of waits.entries())
              assert.isAtLeast(wait, Math.min(150 * 2 ** Math.floor(i / 2), 600) - blockTime)
          }),
      )

  it.effect("is reported, and ends after the wait if the other ingestor has stopped", () =>
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
      yield* eventually("it continues", () => status.stored === chain.head.number, 160)
      assert.isUndefined(status.standoffUntil)
      yield* assertComplete(store, chain)
    }),
  )

  /** An ingestor in a standoff: another one has written its fork. */
  const standoffIn = Effect.fnUntraced(function* (store: Client) {
    const chain = new FakeChain({ finality: 400, blockTime })
    const nodes = { ours: new FakeNode(chain), theirs: new FakeNode(chain) }
    chain.extend(1, 1, 1)
    const { status } = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "ours"] }))
    yield* eventually("it is stored", () => status.stored === chain.head.number)
    const fork = chain.branch(1, 1, 1)
    nodes.theirs.follow(fork)
    const other = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "theirs"] }))
    yield* eventually("the other is on its fork", () => other.status.stored === fork.head.number)
    chain.extend(1, 1)
    yield* eventually("it waits", () => status.standoffUntil !== undefined)
    return { chain, fork, nodes, store, status, other }
  })
  const standoff = Effect.flatMap(memoryStore(), standoffIn)

  for (const [which, logs] of [
    ["is the stored one", []],
    ["extends it", [1]],
    ["is further above", [1, 1]],
  ] as const)
    it.effect(
      `ends with the first head after the node switches to the stored fork (the head ${which}) [G-136]`,
      () =>
        Effect.gen(function* () {
          const { chain, fork, nodes, store, status, other } = yield* standoff
          yield* other.stop
          fork.extend(...logs)
          nodes.ours.follow(fork)
          yield* eventually("it continues", () => status.standoffUntil === undefined, 2)
          assert.strictEqual(status.stored, fork.head.number)
          yield* assertComplete(store, fork)
          // The standoff is forgotten: switching back is an ordinary reorg.
          chain.extend(1, 1, 1, 1)
          nodes.ours.follow(chain)
          yield* eventually("it is back at once", () => status.stored === chain.head.number, 2)
          yield* assertComplete(store, chain)
        }),
    )

  for (const isFinal of [false, true])
    it.effect(
      `ends with the first head after the other ingestor has written our fork again${isFinal ? " and finalized it" : ""}`,
      () =>
        Effect.gen(function* () {
          const { chain, nodes, store, status, other } = yield* standoff
          nodes.ours.announces = false
          nodes.theirs.follow(chain)
          chain.extend(1, 1)
          yield* eventually("the other writes it", () => other.status.stored === chain.head.number, 5)
          if (isFinal) {
            chain.finality = 0
            yield* eventually("it is final", () => other.status.final === chain.head.number, 20)
          }
          yield* other.stop
          assert.isDefined(status.standoffUntil)
          nodes.ours.announces = true
          chain.extend(1)
          yield* eventually("it follows", () => status.stored === chain.head.number, 2)
          assert.isUndefined(status.standoffUntil)
          yield* assertComplete(store, chain)
        }),
    )

  it.effect("ends with the first head after the store was emptied", () =>
    Effect.gen(function* () {
      const stores = [yield* memoryStore(), yield* memoryStore()] as const
      const which = switching(...stores)
      const { chain, status, other } = yield* standoffIn(which.store)
      yield* other.stop
      which.change()
      chain.extend(1)
      yield* eventually("it is filled again", () => status.stored === chain.head.number, 2)
      assert.isUndefined(status.standoffUntil)
      yield* assertComplete(stores[1], chain)
    }),
  )

  it.effect("costs one header request per head, however deep the fork", () =>
    Effect.gen(function* () {
      const { chain, fork, nodes } = yield* standoff
      const asked = new Map<string, number>()
      nodes.ours.intercept = (method, _params, proceed) => {
        asked.set(method, (asked.get(method) ?? 0) + 1)
        return proceed()
      }
      const heads = 100
      for (let i = 0; i < heads; i++) {
        chain.extend(1)
        fork.extend(1)
        yield* TestClock.adjust("1 second")
      }
      assert.isUndefined(asked.get("eth_getLogs"))
      // And the final block, every 15 s.
      assert.isAtMost(asked.get("eth_getBlockByNumber")!, heads * 1.2)
    }),
  )
})
