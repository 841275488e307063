/**
 * A dialect is a row: what a node does, and what must come out. The whole service runs on a scripted node, under virtual
 * time or, where the wire itself is at stake, as a process of its own over a real socket; the journal is compared with
 * the chain.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { Hex } from "../../src/Domain.ts"
import type { ChainStatus } from "../../src/observability/ChainStatus.ts"
import { answers } from "./answers.ts"
import { hash } from "./blocks.ts"
import { FakeChain } from "./FakeChain.ts"
import { FakeNode, Refused } from "./FakeNode.ts"
import type { Intercept } from "./FakeNode.ts"
import type { Client } from "./ingestor.ts"
import { judge } from "./oracle.ts"

/** What comes out of a run. */
export interface Outcome {
  /** Logs; what was only believed for a while does not count. */
  readonly lost: 0
  readonly doubled: 0
  readonly wrong: 0
  readonly extra: 0
  /** Seconds, at most, from the announcement of a live block until it was stored. */
  readonly stoodStill: number
  /** Connections to the first node. */
  readonly connections: number
  /** Errors that were counted, answers that were contradicted, and failures in a row at the end. */
  readonly blamed: number
}

/** Nothing but the dialect: no log amiss, no wait, no second connection, nobody blamed. */
export const unharmed: Outcome = {
  lost: 0,
  doubled: 0,
  wrong: 0,
  extra: 0,
  stoodStill: 1,
  connections: 1,
  blamed: 0,
}

/** What there is in a run. Nodes that no URL names are not asked. */
export interface Scene {
  readonly chain: FakeChain
  /** The first node. */
  readonly node: FakeNode
  readonly two: FakeNode
  readonly three: FakeNode
  /** Milliseconds since the last block. */
  readonly since: () => number
  /** Milliseconds. */
  readonly now: () => number
}

/** A run at its end. */
export interface End extends Scene {
  readonly store: Client
  readonly status: ChainStatus
  readonly reasons: ReadonlyArray<string>
  /** What was logged as a warning or worse. */
  readonly warnings: ReadonlyArray<string>
}

export interface Row {
  /** Of WORLD.md: A1 … A9. */
  readonly kind: string
  /** "a node that …" */
  readonly name: string
  /** What carries it: virtual time, unless the wire itself is at stake. */
  readonly over?: "a socket"
  /** Makes the node speak the dialect. */
  readonly node: (scene: Scene) => void
  /** Done before each live block, by its number from 0. */
  readonly before?: (scene: Scene, block: number) => void
  readonly out: Outcome
  /** Whether connections and blame are bounds too: waits before a connection are random. */
  readonly atMost?: true
  /** What must be noted of the first node in `/status`. */
  readonly notes?: RegExp
  /** Looked at in the end, under virtual time. */
  readonly also?: (end: End) => void | Effect.Effect<void, unknown>
  /** Settings, by the names without a chain. */
  readonly variables?: Readonly<Record<string, string>>
  /** `<NAME>_WS_URL` and `<NAME>_RPC_URL`; the hosts are `one`, `two` and `three`. */
  readonly urls?: string
  readonly rpc?: string
  /** Logs of each block, over and over (default: 3, 0, 2, 1). */
  readonly logs?: ReadonlyArray<number>
  /** Blocks before the service starts, and while it is live (defaults: 30 and 20). */
  readonly history?: number
  readonly live?: number
  readonly blockTime?: number
  readonly finality?: number
  /** What the chain's times are in. */
  readonly times?: "milliseconds"
  /** Whether every second log index is left out. */
  readonly holes?: true
  /** How many blocks the journal stays behind the head. */
  readonly behind?: number
  /** Whether a block is stored only once it is final. */
  readonly finalized?: boolean
  /** Whether the audit repairs what was believed for a while: the journal is right in the end. */
  readonly repaired?: boolean
  /** Where the chain must not go on: why it is not ready in the end, or what failed last. What is stored is compared by `also`. */
  readonly stops?: RegExp
}

/** Every log of a chain is by one of these, so that a filter with all of them lets every log pass. */
export const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)
export const filtered = { ADDRESSES: contracts.join(",") }

/** A recorded refusal, about this block. */
export const refusal = (of: string, block: { readonly hash: Hex; readonly number: number }): Refused => {
  const { error } = answers[of]!
  const message = error!.message.replace("%hash", block.hash).replace("%number", String(block.number))
  return new Refused(error!.code, message, error!.data)
}

type Wire = Record<string, unknown>
export type Wires = ReadonlyArray<Wire>

/** Changes the answers to one method. */
export const on =
  (method: string, change: (answer: unknown, params: ReadonlyArray<unknown>) => unknown): Intercept =>
  (called, params, proceed) =>
    called === method ? change(proceed(), params) : proceed()

/** One interception after the other. */
export const both =
  (first: Intercept, second: Intercept): Intercept =>
  (method, params, proceed) =>
    first(method, params, () => second(method, params, proceed))

/** When the chain begins under virtual time (unix seconds). */
export const epoch = 1_700_000_000

export const sceneOf = (row: Row, id: number, began = epoch) => {
  const { blockTime = 4, finality = 10, history = 30, logs = [3, 0, 2, 1] } = row
  const unit = row.times === "milliseconds" ? 1000 : 1
  const chain = new FakeChain({
    id,
    finality,
    blockTime: blockTime * unit,
    began: began * unit,
    stride: row.holes ? 2 : 1,
    contracts,
  })
  const extend = (i: number) => chain.extend(logs[i % logs.length]!)
  for (let i = 0; i < history; i++) extend(i)
  const [node, two, three] = [new FakeNode(chain), new FakeNode(chain), new FakeNode(chain)]
  return { chain, node, two, three, extend }
}

/** Counts, and the faults with which a run cannot pass. */
interface Measured {
  readonly outcome: Record<keyof Outcome, number>
  readonly faults: ReadonlyArray<string>
  /** The last failures, to be shown where the outcome is another one. */
  readonly failures: ReadonlyArray<{ readonly text: string }>
}

export const assertOutcome = ({ out, atMost: areBounds }: Row, { outcome, faults, failures }: Measured) => {
  const { stoodStill, ...counts } = outcome
  const { stoodStill: atMost, ...expected } = out
  if (areBounds)
    for (const key of ["connections", "blamed"] as const)
      if (counts[key] <= expected[key]) counts[key] = expected[key]
  const last = failures.slice(0, 3).map(({ text }) => text)
  assert.deepStrictEqual({ ...counts, faults }, { ...expected, faults: [] }, `last failures: ${last.join()}`)
  assert.isAtMost(stoodStill, atMost)
}

/** The chain up to a block. */
export const below = (chain: FakeChain, height: number): FakeChain =>
  ({
    id: chain.id,
    byHash: (hash: Hex) => chain.byHash(hash),
    blocks: (from?: number) => chain.blocks(from, height),
  }) as FakeChain

export const compare = (store: Client, chain: FakeChain, start: number, repaired = false) =>
  Effect.map(judge(store, chain, start, !repaired), ({ lost, doubled, extra, wrong, faults }) => ({
    counts: { lost, doubled: doubled - extra, wrong, extra },
    faults: faults.slice(0, 3),
  }))
