/** Tables for terminals. */
import { assert, describe, it } from "@effect/vitest"
import { table } from "../../../src/cli/Table.ts"

const columns = [{ title: "chain" }, { title: "head", isNumber: true }, { title: "endpoint" }]
const rows = [
  ["base", "12345678", "publicnode.com"],
  ["arbitrum", "9", "drpc.org"],
]

describe("a table", () => {
  it("has columns as wide as their cells, numbers to the right", () => {
    assert.deepStrictEqual(table(columns, rows), [
      "chain         head  endpoint",
      "base      12345678  publicnode.com",
      "arbitrum         9  drpc.org",
    ])
  })

  it("never exceeds a width: text is cut, numbers and what is behind are left out", () => {
    assert.deepStrictEqual(table(columns, rows, 30), [
      "chain         head  endpoint",
      "base      12345678  publicnod…",
      "arbitrum         9  drpc.org",
    ])
    assert.strictEqual(table(columns, rows, 27)[1], "base      12345678")
    assert.strictEqual(table(columns, rows, 17)[1], "base")
    assert.strictEqual(table(columns, rows, 8)[2], "arbitrum")
    for (let width = 8; width < 40; width++)
      for (const line of table(columns, rows, width)) assert.isAtMost(line.length, width)
  })
})
