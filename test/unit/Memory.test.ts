import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { collectWhenQuiet, freeBuffer, freeItems, takeText } from "../../src/Memory.ts"

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

describe("collectWhenQuiet", () => {
  it.effect("collects once after the start, and once after each busy time", () =>
    Effect.gen(function* () {
      let share = 0.8
      let collected = 0
      const collect = Effect.sync(() => void collected++)
      yield* Effect.forkChild(collectWhenQuiet(() => share, collect))
      const after = Effect.fnUntraced(function* (next: number) {
        share = next
        yield* TestClock.adjust("15 seconds")
        return collected
      })
      assert.strictEqual(yield* after(0.8), 0)
      assert.strictEqual(yield* after(0.1), 0)
      assert.strictEqual(yield* after(0.01), 1)
      assert.strictEqual(yield* after(0.01), 1)
      assert.strictEqual(yield* after(0.2), 1)
      assert.strictEqual(yield* after(0.01), 1, "it was not busy since")
      assert.strictEqual(yield* after(0.3), 1)
      assert.strictEqual(yield* after(0.01), 2)
    }),
  )
})
