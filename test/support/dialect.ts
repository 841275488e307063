/**
 * A dialect is a row: the behaviour of a node, and the expected outcome. The whole service runs on a scripted node, under
 * virtual time, or as a separate process over a real socket if the row is about the wire format; the journal is compared
 * with the chain.
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

/** The outcome of a run. */
export interface Outcome {
  /** Numbers of logs; with `repaired`, only the final state counts. */
  readonly lost: 0
  readonly doubled: 0
  readonly wrong: 0
  readonly extra: 0
  /** Seconds, at most, from the announcement of a live block until it was stored. */
  readonly maxDelay: number
  /** Connections to the first node. */
  readonly connections: number
  /** Errors, audit mismatches, and consecutive failures at the end. */
  readonly errorCount: number
}

/** The dialect has no effect: no log amiss, no wait, no second connection, no error. */
export const unaffected: Outcome = {
  lost: 0,
  doubled: 0,
  wrong: 0,
  extra: 0,
  maxDelay: 1,
  connections: 1,
  errorCount: 0,
}

/** The chain and the nodes of a run. A node that no URL names receives no requests. */
export interface Scene {
  readonly chain: FakeChain
  /** The first node. */
  readonly node: FakeNode
  readonly two: FakeNode
  readonly three: FakeNode
  /** Milliseconds since the last block. */
  readonly since: () => number
  /** The time in milliseconds. */
  readonly now: () => number
}

/** The state at the end of a run. */
export interface End extends Scene {
  readonly store: Client
  readonly status: ChainStatus
  readonly reasons: ReadonlyArray<string>
  /** Messages that were logged as warnings or errors. */
  readonly warnings: ReadonlyArray<string>
}

export interface Row {
  /** Of WORLD.md: A1 … A9. */
  readonly kind: string
  /** "a node that …" */
  readonly name: string
  /** How it runs: under virtual time, unless the row is about the wire format. */
  readonly over?: "a socket"
  /** Scripts the node. */
  readonly node: (scene: Scene) => void
  /** Runs before each live block, with its number from 0. */
  readonly before?: (scene: Scene, block: number) => void
  readonly out: Outcome
  /** Whether `connections` and `errorCount` are upper bounds: the backoff is random. */
  readonly atMost?: true
  /** The expected `limits` of the first node in `/status`. */
  readonly notes?: RegExp
  /** Further checks at the end, under virtual time. */
  readonly also?: (end: End) => void | Effect.Effect<void, unknown>
  /** Settings, by their names without the chain's prefix. */
  readonly variables?: Readonly<Record<string, string>>
  /** `<NAME>_WS_URL` and `<NAME>_RPC_URL`; the hosts are `one`, `two` and `three`. */
  readonly urls?: string
  readonly rpc?: string
  /** Logs of each block, in a cycle (default: 3, 0, 2, 1). */
  readonly logs?: ReadonlyArray<number>
  /** Blocks before the service starts, and while it is live (defaults: 30 and 20). */
  readonly history?: number
  readonly live?: number
  readonly blockTime?: number
  readonly finality?: number
  /** The unit of the chain's timestamps (default: seconds). */
  readonly times?: "milliseconds"
  /** Whether every second log index is skipped. */
  readonly holes?: true
  /** How many blocks the journal stays behind the head. */
  readonly behind?: number
  /** Whether a block is stored only once it is final. */
  readonly finalized?: boolean
  /** Whether the audit corrects logs that were stored wrong at first: only the final journal is compared. */
  readonly repaired?: boolean
  /** For a chain that must stop: why it is not ready at the end, or the last failure. `also` compares what is stored. */
  readonly stops?: RegExp
}

/** Every log of a chain is emitted by one of these, so that a filter with all of them matches every log. */
export const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)
export const filtered = { ADDRESSES: contracts.join(",") }

/** A recorded error response, about this block. */
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

/** Combines two interceptions. */
export const both =
  (first: Intercept, second: Intercept): Intercept =>
  (method, params, proceed) =>
    first(method, params, () => second(method, params, proceed))

/** The time of the first block under virtual time (unix seconds). */
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

/** The measured outcome, and faults that fail the run in any case. */
interface Measured {
  readonly outcome: Record<keyof Outcome, number>
  readonly faults: ReadonlyArray<string>
  /** The last failures, for the message of a failed assertion. */
  readonly failures: ReadonlyArray<{ readonly text: string }>
}

export const assertOutcome = ({ out, atMost: areBounds }: Row, { outcome, faults, failures }: Measured) => {
  const { maxDelay, ...counts } = outcome
  const { maxDelay: atMost, ...expected } = out
  if (areBounds)
    for (const key of ["connections", "errorCount"] as const)
      if (counts[key] <= expected[key]) counts[key] = expected[key]
  const last = failures.slice(0, 3).map(({ text }) => text)
  assert.deepStrictEqual({ ...counts, faults }, { ...expected, faults: [] }, `last failures: ${last.join()}`)
  assert.isAtMost(maxDelay, atMost)
}

/** A view of the chain up to a height. */
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
