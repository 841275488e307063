/**
 * Reorgs that are followed at once, although earlier blocks become canonical again, or another ingestor wrote the retracted
 * blocks: none of them is a standoff between two nodes (sides.test.ts).
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../src/Domain.ts"
import { hash } from "../support/blocks.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { eventually, memoryStore, startIngestor, switching, variablesFor } from "../support/ingestor.ts"
import type { Client } from "../support/ingestor.ts"
import { Dice } from "../support/mutate.ts"
import { assertComplete } from "../support/oracle.ts"

const blockTime = 12

describe("follows without a standoff", () => {
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
      // Back and forth three times: retracted blocks become canonical again.
      for (let i = 1; i <= 6; i++) {
        const view = views[i % 2]!
        while (view.head.number < 4 + 2 * i) view.extend(3)
        for (const node of Object.values(nodes)) node.follow(view)
        const there = () => running.every(({ status }) => status.stored === view.head.number)
        yield* eventually("all are on the other fork", there, 5)
      }
      yield* assertComplete(store, views[0]!)
    }).pipe(Effect.scoped)

  it.effect("a reorg back to earlier blocks, by one ingestor", () => reorgs(["one"]))
  it.effect("a reorg back to earlier blocks, by two ingestors whose nodes agree", () =>
    reorgs(["one", "two"]),
  )

  it.effect("a reorg back to earlier blocks, whichever of two ingestors wrote each of them [G-137]", () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 400, blockTime })
      const nodes = { one: new FakeNode(chain), two: new FakeNode(chain) }
      chain.extend(2, 2, 2, 2)
      const inner = yield* memoryStore()
      let slow = 0
      const running = yield* Effect.forEach([0, 1], (i) => {
        const store: Client = {
          ...inner,
          push: (id, filter, push) => Effect.delay(inner.push(id, filter, push), slow === i ? 200 : 1),
        }
        return startIngestor(store, nodes, variablesFor({ devnet: [chain, i === 0 ? "one" : "two"] }))
      })
      const standAt = (view: FakeChain) => () =>
        running.every(({ status }) => status.stored === view.head.number)
      yield* eventually("both are at the head", standAt(chain))
      const views = [chain, chain.branch(2, 2, 2, 2)]
      for (let i = 1; i <= 6; i++) {
        const view = views[i % 2]!
        while (view.head.number < 4 + 4 * i) view.extend(3)
        for (const node of Object.values(nodes)) node.follow(view)
        yield* eventually("both are on the other fork", standAt(view), 5)
        for (let j = 0; j < 3; j++) {
          slow = 1 - slow
          view.extend(2)
          yield* eventually("both are at the head", standAt(view), 5)
        }
      }
      yield* assertComplete(inner, views[0]!)
    }),
  )

  for (const seed of [1, 2, 3, 4, 5, 6])
    it.effect(
      `random reorgs that the nodes of two or three ingestors make one after the other (${seed})`,
      () =>
        Effect.gen(function* () {
          const dice = new Dice(seed)
          const upTo = (most: number) => dice.roll(most + 1)
          const chain = new FakeChain({ finality: 60, blockTime })
          chain.extend(2, 2, 0, 2)
          const nodes: Record<string, FakeNode> = {}
          const inner = yield* memoryStore()
          const running = yield* Effect.forEach(["one", "two", "three"].slice(0, 2 + upTo(1)), (host) => {
            nodes[host] = new FakeNode(chain)
            const late = () => upTo(2) * upTo(80)
            const store: Client = {
              ...inner,
              push: (id, filter, push) => Effect.delay(inner.push(id, filter, push), late()),
              pop: (id, filter, pop) => Effect.delay(inner.pop(id, filter, pop), late()),
            }
            return startIngestor(store, nodes, variablesFor({ devnet: [chain, host] }))
          })
          let view = chain
          const atHead = () =>
            running.every(
              ({ status }) => status.stored === view.head.number && status.standoffUntil === undefined,
            )
          yield* eventually("all are at the head", atHead)
          const views = [chain]
          for (let i = 0; i < 12; i++) {
            const height = view.head.number
            if (upTo(2) === 0) {
              const depth = 1 + upTo(3)
              views.push(view.branch(depth, ...Array.from({ length: depth }, () => upTo(2))))
            }
            view = views.at(-1 - upTo(Math.min(views.length - 1, 2)))!
            while (view.head.number <= height) view.extend(upTo(2))
            for (const node of Object.values(nodes)) {
              node.follow(view)
              yield* TestClock.adjust(upTo(2) * upTo(2500))
              if (upTo(1) === 0) view.extend(upTo(2))
            }
            view.extend(1)
            yield* eventually("all are on the same fork", atHead, 3)
          }
          yield* assertComplete(inner, view)
        }),
    )

  it.effect("a reorg of another ingestor's block above shared blocks without logs", () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 400, blockTime })
      const nodes = { ours: new FakeNode(chain), theirs: new FakeNode(chain) }
      chain.extend(1, 1, 0, 0)
      const store = yield* memoryStore()
      const { status } = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "ours"] }))
      yield* eventually("it is stored", () => status.stored === chain.head.number)
      const fork = chain.branch(1, 0, 1)
      nodes.theirs.follow(fork)
      const other = yield* startIngestor(store, nodes, variablesFor({ devnet: [chain, "theirs"] }))
      yield* eventually("the other is on its fork", () => other.status.stored === fork.head.number)
      yield* other.stop
      chain.extend(1, 1)
      yield* eventually("it follows", () => status.stored === chain.head.number, 2)
      yield* assertComplete(store, chain)
    }),
  )

  it.effect("a store that was restored to before a reorg [G-142]", () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 400, blockTime })
      const node = new FakeNode(chain)
      chain.extend(2, 2, 2, 2)
      const [replica, master] = [yield* memoryStore(), yield* memoryStore()]
      const variables = variablesFor({ devnet: [chain, "node"] })
      const copy = yield* startIngestor(replica, { node }, variables)
      yield* eventually("the replica has it", () => copy.status.stored === chain.head.number)
      yield* copy.stop
      const { store, change } = switching(master, replica)
      const { status } = yield* startIngestor(store, { node }, variables)
      yield* eventually("it is stored", () => status.stored === chain.head.number)
      chain.fork(2, 2, 2, 2)
      yield* eventually("the reorg is stored", () => status.stored === chain.head.number)
      change()
      chain.extend(2)
      yield* eventually("it follows", () => status.stored === chain.head.number, 2)
      yield* assertComplete(replica, chain)
    }),
  )
})

describe("the depth of a reorg", () => {
  const contracts = [1, 2].map((i) => hash("contract", i).slice(0, 42) as Hex)

  for (const [title, addresses, every] of [
    ["without a filter", [], 1],
    ["under a filter with all contracts", contracts, 1],
    ["under a filter with logs every 25 blocks", contracts.slice(0, 1), 25],
    ["under a filter without a match", [`0x${"9".repeat(40)}`], 1],
  ] as const) {
    it.effect(
      `is the number of replaced blocks, ${title}, and takes at most three headers to find [G-138]`,
      () =>
        Effect.gen(function* () {
          const chain = new FakeChain({ finality: 200, contracts })
          const node = new FakeNode(chain)
          const store = yield* memoryStore()
          const grow = (blocks: number) => {
            for (let i = 0; i < blocks; i++) chain.extend(chain.head.number % every === 0 ? 2 : 0)
          }
          grow(90)
          const start = startIngestor(
            store,
            { one: node },
            {
              ...variablesFor({ devnet: [chain, "one"] }),
              ...(addresses.length > 0 && { ADDRESSES: addresses.join() }),
            },
          )
          let { status, stop } = yield* start
          const headersAsked = () => node.timesAsked("eth_getBlockByNumber")
          const atHead = () => status.stored === chain.head.number
          yield* eventually("it is at the head", atHead)
          for (let i = 0; i < 30; i++) {
            grow(1)
            yield* TestClock.adjust("12 seconds")
          }
          for (const depth of [1, 1, 7, 30]) {
            const before = headersAsked()
            const reorgs = status.reorgs
            const { window, start: begin } = (yield* store.load(chain.id))!
            const below = window.findLast(({ number }) => number <= chain.head.number - depth)
            const recorded = below?.number ?? begin.number
            chain.fork(depth, ...Array.from({ length: depth + 1 }, () => 0))
            yield* eventually("it is followed", atHead)
            grow(1)
            yield* eventually("it continues", atHead)
            assert.strictEqual(status.reorgs, reorgs + 1)
            assert.strictEqual(status.lastReorgs[0]!.depth, depth)
            // Headers above the highest record below the fork are fetched in any case.
            const fetched = chain.head.number - recorded
            if (depth === 1) assert.isAtMost(headersAsked() - before - fetched, 3)
            for (let i = 0; i < depth + 5; i++) {
              grow(1)
              yield* TestClock.adjust("12 seconds")
            }
          }
          // A new process knows only the recorded blocks.
          yield* stop
          ;({ status, stop } = yield* start)
          yield* eventually("it is at the head again", atHead)
          chain.fork(1, 0, 0)
          yield* eventually("it is followed", atHead)
          grow(1)
          yield* eventually("it continues", atHead)
          assert.strictEqual(status.lastReorgs[0]!.depth, 1)
        }),
    )
  }

  /** A chain and an ingestor whose filter matches logs in every 25th block. */
  const filtered = Effect.fnUntraced(function* (more: Record<string, string> = {}) {
    const chain = new FakeChain({ finality: 200, contracts })
    const node = new FakeNode(chain)
    const store = yield* memoryStore()
    const grow = (blocks: number) => {
      for (let i = 0; i < blocks; i++) chain.extend(chain.head.number % 25 === 0 ? 2 : 0)
    }
    grow(90)
    const start = startIngestor(
      store,
      { one: node },
      { ...variablesFor({ devnet: [chain, "one"] }), ADDRESSES: contracts[0]!, ...more },
    )
    return { chain, node, store, grow, start }
  })

  it.effect("counts replaced blocks that were announced and waited for confirmations [G-139]", () =>
    Effect.gen(function* () {
      const { chain, store, grow, start } = yield* filtered({ CONFIRMATIONS: "5" })
      const { status } = yield* start
      const there = () => status.stored === chain.head.number - 5
      yield* eventually("it is five blocks behind the head", there)
      for (let i = 0; i < 7; i++) {
        grow(1)
        yield* eventually("it follows", there)
      }
      chain.rollback(3)
      grow(4)
      yield* eventually("it follows what it has not stored", there)
      assert.strictEqual(status.reorgs, 0)
      chain.fork(8, 0, 0, 0, 0, 0, 0, 0, 0, 0)
      yield* eventually("it follows what replaces three stored blocks", there)
      grow(1)
      yield* eventually("it continues", there)
      assert.deepStrictEqual(
        status.lastReorgs.map(({ depth }) => depth),
        [8],
      )
      assert.strictEqual((yield* store.load(chain.id))!.head.hash, chain.at(status.stored!)!.header.hash)
    }),
  )

  it.effect("includes a block that was the head of the journal at startup", () =>
    Effect.gen(function* () {
      const { chain, grow, start } = yield* filtered()
      const before = yield* start
      yield* eventually("it is at the head", () => before.status.stored === chain.head.number)
      yield* before.stop
      const { status } = yield* start
      grow(1)
      yield* eventually("the next head is stored", () => status.stored === chain.head.number)
      chain.fork(2, 0, 0, 0)
      yield* eventually("it is followed", () => status.stored === chain.head.number)
      grow(1)
      yield* eventually("it continues", () => status.stored === chain.head.number)
      assert.deepStrictEqual(
        status.lastReorgs.map(({ depth }) => depth),
        [2],
      )
    }),
  )

  it.effect("is 1 if the head is replaced by a block above a height without a block", () =>
    Effect.gen(function* () {
      const { chain, grow, start } = yield* filtered()
      const { status } = yield* start
      yield* eventually("it is at the head", () => status.stored === chain.head.number)
      chain.rollback(1)
      chain.addNullHeights(1, 0)
      yield* eventually("it is followed", () => status.stored === chain.head.number)
      grow(1)
      yield* eventually("it continues", () => status.stored === chain.head.number)
      assert.deepStrictEqual(
        status.lastReorgs.map(({ depth }) => depth),
        [1],
      )
    }),
  )

  it.effect("is that of both reorgs if the chain reorganises again meanwhile [G-141]", () =>
    Effect.gen(function* () {
      const { chain, node, grow, start } = yield* filtered()
      const { status } = yield* start
      yield* eventually("it is at the head", () => status.stored === chain.head.number)
      // Block 76 is recorded: the first reorg keeps it, the second replaces it as well.
      let again = false
      node.intercept = (method, [number], proceed) => {
        if (!again && method === "eth_getBlockByNumber" && number === "0x4d") {
          again = true
          chain.fork(chain.head.number - 71, ...Array.from({ length: 30 }, () => 0))
        }
        return proceed()
      }
      const from = chain.head.number
      // One more block is announced before the second.
      chain.fork(1, 0, 0)
      yield* eventually("it is followed", () => again && status.stored === chain.head.number)
      grow(1)
      yield* eventually("it continues", () => status.stored === chain.head.number)
      assert.deepStrictEqual(
        status.lastReorgs.map(({ depth, from }) => [depth, from]),
        [[from + 1 - 71, from]],
      )
    }),
  )

  it.effect("counts replaced blocks without a matching log, and writes no entry for them [G-140]", () =>
    Effect.gen(function* () {
      const { chain, store, grow, start } = yield* filtered()
      const { status } = yield* start
      yield* eventually("it is at the head", () => status.stored === chain.head.number)
      const { entries, lastId } = yield* store.stats(chain.id)
      chain.fork(3, 0, 0, 0, 0)
      yield* eventually("it is followed", () => status.stored === chain.head.number)
      assert.strictEqual(chain.head.number, 91)
      grow(1)
      yield* eventually("it continues", () => status.stored === chain.head.number)
      assert.deepStrictEqual(
        status.lastReorgs.map(({ depth }) => depth),
        [3],
      )
      const after = yield* store.stats(chain.id)
      assert.deepStrictEqual([after.entries, after.lastId], [entries, lastId])
    }),
  )
})
