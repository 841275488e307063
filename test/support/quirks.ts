/** The whole service on two faulty nodes, under the test clock. */
import { it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { FakeChain } from "./FakeChain.ts"
import { FakeNode } from "./FakeNode.ts"
import { memoryStore, startIngestor, variablesFor } from "./ingestor.ts"
import type { Client, Ingestor } from "./ingestor.ts"

export interface Scenario {
  readonly chain: FakeChain
  readonly one: FakeNode
  readonly two: FakeNode
  /** The node at each host. */
  readonly hosts: Record<string, FakeNode>
  readonly store: Client
  readonly start: (variables?: Record<string, string>) => Effect.Effect<Ingestor, unknown, Scope.Scope>
}

/** Seconds. */
export const blockTime = 4

/** Defines a test with a chain of a block every four seconds and its node; a second node can be configured. */
export const scenario = (
  title: string,
  body: (scenario: Scenario) => Effect.Effect<unknown, unknown, Scope.Scope>,
) =>
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

/** Extends the chain by this many steps, with a fork at every seventh; `before` runs before each with its number. */
export const steps = (chain: FakeChain, count: number, before: (step: number) => void = () => {}) =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) {
      before(i)
      if (i % 7 === 6) chain.fork(1 + (i % 3), 2, 5, 1, 3)
      else chain.extend([3, 0, 12, 1, 6][i % 5]!)
      yield* TestClock.adjust(`${blockTime} seconds`)
    }
  })

/** The fields of a log response that these tests use. */
export interface WireLog {
  readonly blockNumber: string
  readonly blockHash: string
}
