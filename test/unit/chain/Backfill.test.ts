/** How far history is read ahead of the store. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Backfill from "../../../src/chain/Backfill.ts"
import type { BackfillOptions } from "../../../src/chain/Backfill.ts"
import { PendingJournal } from "../../../src/chain/PendingJournal.ts"
import { RecentHeaders } from "../../../src/chain/RecentHeaders.ts"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import type { LogSource } from "../../../src/logs/LogSource.ts"
import { callLimits, emptyJournal } from "../../../src/store/Journal.ts"
import { FakeChain } from "../../support/FakeChain.ts"

/** A backfill of 100 final blocks in ranges of five blocks, each of which is served after a second. */
const backfill = (emit: BackfillOptions["emit"]) => {
  const chain = new FakeChain({ finality: 0 })
  for (let i = 0; i < 100; i++) chain.extend(1)
  const requested: Array<readonly [number, number]> = []
  const unused = () => Effect.die("is not used")
  const logs: LogSource = {
    block: unused,
    unfinalizedRange: unused,
    finalizedRange: (from, to) => {
      requested.push([from, to])
      return Effect.delay(
        Effect.sync(() => chain.blocks(from, to)),
        "1 second",
      )
    },
    width: () => 5,
    servedBy: () => "node",
  }
  const run = Backfill.make({
    logs,
    capabilities: new Capabilities(),
    pending: new PendingJournal(emptyJournal(0, "none"), { push: () => callLimits, pop: 1000 }, () => {}),
    recentHeaders: new RecentHeaders(),
    crossCheck: undefined as unknown as BackfillOptions["crossCheck"],
    finality: { block: () => chain.head, takeMismatch: () => undefined, finalize: unused },
    storedUpTo: unused,
    isCanonicalHere: unused,
    emit,
  })
  return { requested, run: run(chain.head, { header: chain.head } as Parameters<typeof run>[1]) }
}

describe("a backfill", () => {
  it.effect("requests one range at a time until it knows how many logs a block has", () =>
    Effect.gen(function* () {
      const { requested, run } = backfill(() => Effect.void)
      yield* Effect.forkChild(run)
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(requested, [[0, 0]])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(requested, [
        [0, 0],
        [1, 5],
      ])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(requested.length, 2 + 4)
    }),
  )

  it.effect("reads four ranges ahead while a range is stored, and no more", () =>
    Effect.gen(function* () {
      let stored = 0
      const { requested, run } = backfill(() =>
        Effect.suspend(() => (++stored <= 2 ? Effect.void : Effect.never)),
      )
      yield* Effect.forkChild(run)
      yield* TestClock.adjust("1 minute")
      const ahead = requested.length - stored
      assert.isAtLeast(ahead, 4)
      assert.isAtMost(ahead, 5)
    }),
  )
})
