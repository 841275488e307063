/**
 * What a store must hold, told by the journal itself and by the node, and by none of the code that is under test.
 *
 * Reading from the beginning: no identity is added twice without a removal between, a removal undoes the top of the
 * stack exactly and in reverse order, blocks and logs rise. What is left is, log by log, what the node has.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { compare, replay } from "../../src/commands/comparison.ts"
import type { Connection } from "../../src/endpoint/Endpoint.ts"
import { digest } from "../../src/store/Replay.ts"
import type { Replay } from "../../src/store/Replay.ts"
import type { FakeChain } from "./FakeChain.ts"
import type { Client } from "./ingestor.ts"

export const replayOf = (store: Client, chain: number): Effect.Effect<Replay, unknown> => replay(store, chain)

/** How far a journal is from what it should be: nothing lost, nothing doubled. */
export interface Verdict {
  readonly lost: number
  readonly doubled: number
  readonly faults: ReadonlyArray<string>
  readonly replay: Replay
}

/** Compares a journal with a chain in memory, from `start` on. */
export const judge = Effect.fnUntraced(function* (store: Client, chain: FakeChain, start = 0) {
  const replay = yield* replayOf(store, chain.id)
  const expected = chain.blocks(start).flatMap(({ number, hash, timestamp, logs }) =>
    logs.map((log) => ({
      id: `${number}/${hash}:${log.index}`,
      digest: digest({
        block_number: String(number),
        tx_hash: log.txHash,
        contract: log.contract,
        topics: JSON.stringify(log.topics),
        data: log.data,
        tx_index: String(log.txIndex),
      }),
      rest: `${timestamp} `,
    })),
  )
  const found = replay.blocks.flatMap(({ number, hash, logs }) =>
    logs.map(({ index, digest, rest }) => ({ id: `${number}/${hash}:${index}`, digest, rest })),
  )
  const ids = (logs: ReadonlyArray<{ readonly id: string }>) => new Set(logs.map(({ id }) => id))
  const [have, want] = [ids(found), ids(expected)]
  const faults = [...replay.faults]
  if (faults.length === 0 && JSON.stringify(found) !== JSON.stringify(expected)) {
    const first = expected.findIndex((log, i) => JSON.stringify(log) !== JSON.stringify(found[i]))
    faults.push(`expected ${JSON.stringify(expected[first])}, found ${JSON.stringify(found[first])}`)
  }
  return {
    lost: [...want].filter((id) => !have.has(id)).length,
    doubled: found.length - have.size + [...have].filter((id) => !want.has(id)).length,
    faults,
    replay,
  } satisfies Verdict as Verdict
})

/** The journal has no fault, and what it replays to is the chain in memory. */
export const assertComplete = Effect.fnUntraced(function* (store: Client, chain: FakeChain, start = 0) {
  const { lost, doubled, faults, replay } = yield* judge(store, chain, start)
  assert.deepStrictEqual({ lost, doubled, faults }, { lost: 0, doubled: 0, faults: [] })
  return replay
})

/** The same against a real node. */
export const judgeByNode = Effect.fnUntraced(function* (
  store: Client,
  chain: number,
  node: Pick<Connection, "name" | "request">,
  to: number,
) {
  const replay = yield* replayOf(store, chain)
  const found = yield* compare(replay, node, { id: chain, filter: { addresses: [], topics: [] } }, 0, to)
  return {
    logs: found.logs,
    verdict: {
      lost: found.missing.length,
      doubled: found.extra.length,
      faults: [...replay.faults, ...found.different.map((id) => `${id} has other contents`)],
      replay,
    } satisfies Verdict as Verdict,
  }
})
