/** The whole service on two nodes that may do wrong, under the test clock. */
import { it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "./FakeChain.ts"
import { FakeNode } from "./FakeNode.ts"
import { memoryStore, startIngestor, variablesFor } from "./ingestor.ts"
import type { Client, Ingestor } from "./ingestor.ts"

export interface World {
  readonly chain: FakeChain
  readonly one: FakeNode
  readonly two: FakeNode
  /** Who answers at which host. */
  readonly hosts: Record<string, FakeNode>
  readonly store: Client
  readonly start: (variables?: Record<string, string>) => Effect.Effect<Ingestor, unknown, Scope.Scope>
}

/** Seconds. */
export const blockTime = 4

/** A chain with a block every four seconds and a node of it; a second one where it is configured. */
export const world = (title: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 16, blockTime })
      const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
      const hosts: Record<string, FakeNode> = { one, two }
      const store = yield* memoryStore()
      const start = (variables = {}) =>
        startIngestor(store, hosts, { ...variablesFor({ devnet: [chain, "one"] }), ...variables })
      yield* body({ chain, one, two, hosts, store, start })
    }),
  )

export const withBoth = { DEVNET_WS_URL: "ws://one,ws://two" }

/** The chain goes on for this many steps, with a fork at every seventh; `before` is told the number of each step. */
export const steps = (chain: FakeChain, count: number, before: (step: number) => void = () => {}) =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) {
      before(i)
      if (i % 7 === 6) chain.fork(1 + (i % 3), 2, 5, 1, 3)
      else chain.extend([3, 0, 12, 1, 6][i % 5]!)
      yield* TestClock.adjust(`${blockTime} seconds`)
    }
  })

/** Requests of a method so far. */
export const asked = (node: FakeNode, method: string) => node.requests.get(method) ?? 0

/** A log as it is answered. */
export interface WireLog {
  readonly blockNumber: string
  readonly blockHash: string
}
