import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { isBeyondReorgs, replay } from "../../../src/cli/comparison.ts"
import type { Block } from "../../../src/Domain.ts"
import { emptyHead } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import { blocks } from "../../support/blocks.ts"
import { memoryStore } from "../../support/ingestor.ts"
import type { Client } from "../../support/ingestor.ts"

const push = Effect.fnUntraced(function* (store: Client, blocks: ReadonlyArray<Block>) {
  const { head } = (yield* store.load(1)) ?? { head: emptyHead(0) }
  for (const move of pushes(head, blocks, false)) yield* store.push(1, "none", move)
})

describe("replay up to a block", () => {
  it.effect("ends where no reorg can retract the block, not at the first entry above it", () =>
    Effect.gen(function* () {
      const store = yield* memoryStore()
      const ours = blocks(0, "a", Array(20).fill(300))
      yield* push(store, ours)
      // The deepest reorg reaches below the last block to replay.
      for (let i = 0; i < 4; i++) {
        const { head } = (yield* store.load(1))!
        yield* store.pop(1, "none", { _tag: "Pop", expected: head })
      }
      yield* push(store, blocks(16, "b", Array(40).fill(300), ours[15]!.hash))

      let entries = 0
      const counting: Pick<Client, "after"> = {
        after: (...args) => Stream.tap(store.after(...args), () => Effect.sync(() => entries++)),
      }
      const upTo = (to: number) =>
        Effect.map(
          replay(counting, 1, { isEnough: (replay) => isBeyondReorgs(replay, to, 5) }),
          ({ blocks }) => blocks.filter(({ number }) => number <= to).map(({ hash }) => hash),
        )
      const whole = (yield* replay(store, 1)).blocks.map(({ hash }) => hash)

      assert.deepStrictEqual(yield* upTo(17), whole.slice(0, 18))
      // Blocks 0 … 19, the retraction of four of them, 16 … 22, and the rest of a page.
      assert.isAtMost(entries, (20 + 4 + 7) * 300 + 1000)
      entries = 0
      assert.deepStrictEqual(yield* upTo(54), whole.slice(0, 55))
      assert.strictEqual(entries, (20 + 4 + 40) * 300)
    }),
  )
})
