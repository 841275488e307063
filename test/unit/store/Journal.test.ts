import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Block } from "../../../src/Domain.ts"
import { afterPush, emptyHead } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import { sizeOf } from "../../../src/store/redis/MessagePack.ts"
import { block, blocks } from "../../support/blocks.ts"

const Small = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 8 }))
const Sizes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 30 }))).check(
  Schema.isMinLength(1),
  Schema.isMaxLength(12),
)

const bytesOf = ({ logs }: Pick<Block, "logs">) => logs.reduce((sum, log) => sum + sizeOf(log), 0)

describe("dividing blocks into calls", () => {
  it.prop(
    "sends every log once and in order, within any limits",
    {
      sizes: Sizes,
      logs: Small,
      most: Small,
      bytes: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4000 })),
    },
    ({ sizes, logs, most, bytes }) => {
      const run = blocks(100, "a", sizes)
      const calls = [...pushes(emptyHead(100), run, false, { logs, blocks: most, bytes })]
      assert.deepStrictEqual(
        calls.flatMap(({ blocks }) => blocks.flatMap((slice) => slice.logs)),
        run.flatMap((whole) => whole.logs),
      )
      let expected = emptyHead(100)
      for (const call of calls) {
        assert.deepStrictEqual(call.expected, expected)
        expected = afterPush(call)
        const count = call.blocks.reduce((sum, slice) => sum + slice.logs.length, 0)
        assert.isAtMost(count, logs)
        assert.isAtMost(call.blocks.length, most)
        if (count > 1)
          assert.isAtMost(
            call.blocks.reduce((sum, slice) => sum + bytesOf(slice), 0),
            bytes,
          )
      }
      assert.deepStrictEqual(expected, { number: run.at(-1)!.number, hash: run.at(-1)!.hash, part: 0 })
    },
  )

  it("sends at most 500 blocks and 1 MiB in one call", () => {
    const sparse = [
      ...pushes(
        emptyHead(1),
        blocks(
          1,
          "a",
          Array.from({ length: 1200 }, () => 0),
        ),
        true,
      ),
    ]
    assert.deepStrictEqual(
      sparse.map((call) => call.blocks.length),
      [500, 500, 200],
    )
    const large = block(1, "a", 5)
    const logs = large.logs.map((log) => ({ ...log, data: `0x${"ab".repeat(300_000)}` as const }))
    const parts = [...pushes(emptyHead(1), [{ ...large, logs }], false)]
    assert.deepStrictEqual(
      parts.map((call) => [call.blocks[0].logs.length, call.blocks[0].whole]),
      [
        [1, false],
        [1, false],
        [1, false],
        [1, false],
        [1, true],
      ],
    )
  })
})
