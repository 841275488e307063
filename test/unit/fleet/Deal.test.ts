import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { deal } from "../../../src/fleet/Deal.ts"

const Members = Schema.UniqueArray(Schema.String).check(Schema.isMinLength(1), Schema.isMaxLength(8))
const Shards = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 }))

const sizesOf = (dealt: ReadonlyArray<string>, members: ReadonlyArray<string>) =>
  members.map((member) => dealt.filter((one) => one === member).length)

const moved = (from: ReadonlyArray<string>, to: ReadonlyArray<string>, left: string) =>
  from.filter((member, i) => member !== left && member !== to[i]).length

describe("the deal of a fleet", () => {
  it.prop(
    "gives each shard to one member, and no member two more than another, in whichever order they are given",
    [Members, Shards],
    ([members, shards]) => {
      const dealt = deal(members, shards)
      const sizes = sizesOf(dealt, members)
      assert.lengthOf(dealt, shards)
      assert.strictEqual(
        sizes.reduce((sum, size) => sum + size, 0),
        shards,
      )
      assert.isAtMost(Math.max(...sizes) - Math.min(...sizes), 1)
      assert.deepStrictEqual(deal(members.toReversed(), shards), dealt)
    },
  )

  it("moves less than a tenth of the shards of the others when a member leaves, or comes back", () => {
    const members = Array.from({ length: 10 }, (_, i) => `replica-${i}`)
    const before = deal(members, 500)
    const moves = members.map((left) =>
      moved(
        before,
        deal(
          members.filter((member) => member !== left),
          500,
        ),
        left,
      ),
    )
    assert.isBelow(Math.max(...moves), 45)
  })
})
