import { assert, describe, it } from "@effect/vitest"
import { freeBuffer, freeItems, takeText } from "../../src/Memory.ts"

const million = 1024 * 1024

describe("takeText", () => {
  it("reads short, long and non-ASCII text", () => {
    const long = "0123456789abcdef".repeat(million / 8)
    for (const text of ["", "a", long, `${long}ü`]) assert.strictEqual(takeText(Buffer.from(text)), text)
  })

  it("frees bytes that are alone in their memory", () => {
    const bytes = Buffer.from("x".repeat(million))
    takeText(bytes)
    assert.strictEqual(bytes.length, 0)
  })

  it("keeps bytes that share their memory", () => {
    const bytes = Buffer.from("x".repeat(million))
    const part = bytes.subarray(0, 100)
    assert.strictEqual(takeText(part).length, 100)
    assert.strictEqual(bytes.length, million)
  })
})

describe("freeBuffer", () => {
  it("frees the memory, also behind a part of it", () => {
    const bytes = Buffer.allocUnsafeSlow(1000)
    freeBuffer(bytes.subarray(0, 10))
    assert.strictEqual(bytes.length, 0)
    freeBuffer(bytes)
  })
})

describe("freeItems", () => {
  it("empties the array", () => {
    const items = [1, 2]
    freeItems(items)
    assert.deepStrictEqual(items, [])
  })
})
