/**
 * Blocks that need more than one push, written by two ingestors under a filter, while one node omits a log: parts of two
 * different responses are never mixed, and the audit corrects the rest.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import type { Duration } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../src/Domain.ts"
import { hash } from "../support/blocks.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { around } from "../support/faultyStore.ts"
import { accelerated } from "../support/acceleratedClock.ts"
import { memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import type { Client } from "../support/ingestor.ts"
import { judge } from "../support/oracle.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"

const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)

type Wire = { readonly blockNumber: string; readonly logIndex: string }

/** Omits one log of each large block, at an index that depends on the seed. */
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

/** The speed of the accelerated clock beside a real Redis. */
const speedup = 40

/**
 * @param store an empty store
 * @param pass advances the clock
 */
const scenario = Effect.fnUntraced(function* (
  seed: number,
  store: Client,
  pass: (duration: Duration.Input) => Effect.Effect<void>,
) {
  const chain = new FakeChain({ finality: 4, blockTime: 12, contracts })
  const [right, wrong] = [new FakeNode(chain), new FakeNode(chain)]
  leaveOut(wrong, seed)
  const variables = (hosts: string) => ({
    ...variablesFor({ devnet: [chain, hosts] }),
    ADDRESSES: contracts.join(","),
  })
  const nodes = { right, wrong }
  /** Delays each push, so that those of two ingestors interleave. */
  const slow = (salt: number): Client => {
    let pushes = 0
    return around(store, ({ operation }, act) =>
      operation === "push" ? Effect.delay(act, 1 + ((seed * 7 + ++pushes * 13 + salt * 5) % 17)) : act,
    )
  }
  yield* startIngestor(slow(0), nodes, variables("right,wrong"))
  const { status } = yield* startIngestor(slow(1), nodes, variables("wrong,right"))
  for (let i = 0; i < 3; i++) {
    chain.extend(1500 + ((seed * 997 + i * 1409) % 2000))
    yield* pass("12 seconds")
  }
  for (let i = 0; i < 14; i++) {
    chain.extend(1)
    yield* pass("12 seconds")
  }
  for (let i = 0; i < 120 && status.stored !== chain.head.number; i++) yield* pass("1 second")
  assert.strictEqual(status.stored, chain.head.number)
  const { lost, doubled, replay } = yield* judge(store, chain, 0, false)
  assert.deepStrictEqual({ lost, doubled, faults: replay.faults }, { lost: 0, doubled: 0, faults: [] })
}, Effect.scoped)

const seeds = Number(process.env["PARTS_SEEDS"] ?? 4)
const redisSeeds = Number(process.env["PARTS_REDIS_SEEDS"] ?? 1)
const first = 3

describe("two ingestors that write blocks in parts", () => {
  for (let seed = first; seed < first + seeds; seed++)
    it.effect(
      `lose and duplicate no log in SQLite (${seed}) [G-134]`,
      () =>
        Effect.gen(function* () {
          yield* scenario(seed, yield* memoryStore(), TestClock.adjust)
        }),
      30_000,
    )

  it.live(
    "lose and duplicate no log in Redis",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        for (let seed = first; seed < first + redisSeeds; seed++) {
          const store = yield* openRedis(standalone(server.port), `run-${seed}`, 0, `${5 * speedup} seconds`)
          yield* scenario(seed, store, Effect.sleep).pipe(accelerated(speedup))
        }
      }).pipe(Effect.provide(Layer.fresh(Logger.layer([])))),
    20_000 * redisSeeds,
  )
})
