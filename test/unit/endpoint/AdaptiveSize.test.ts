import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { AdaptiveSize, halving, partsOf } from "../../../src/endpoint/AdaptiveSize.ts"
import { EndpointError, Oversized, Timeout, errorKind } from "../../../src/endpoint/EndpointError.ts"
import type { Reason } from "../../../src/endpoint/EndpointError.ts"

describe("an adaptive size", () => {
  it("shrinks to at least one, never grows by a refusal, and doubles up to its largest value", () => {
    const size = new AdaptiveSize(20)
    assert.isFalse(size.isReduced)
    size.shrink(30)
    assert.strictEqual(size.current, 20)
    size.shrink(6)
    size.shrink(8)
    assert.deepStrictEqual([size.current, size.isReduced], [6, true])
    size.relax()
    assert.strictEqual(size.current, 12)
    size.relax()
    assert.deepStrictEqual([size.current, size.isReduced], [20, false])
    size.shrink(0)
    assert.strictEqual(size.current, 1)
  })

  it("follows the ideal size of served requests, and grows only after requests of its own size", () => {
    const size = new AdaptiveSize(100, 10)
    size.adapt(10, 40, 15)
    assert.strictEqual(size.current, 15)
    size.adapt(10, 40, 23)
    assert.strictEqual(size.current, 15)
    size.adapt(1, 7, 23)
    assert.strictEqual(size.current, 7)
    size.adapt(7, 500, 300)
    assert.strictEqual(size.current, 100)
  })

  it("cuts items into parts of the size at that time", () => {
    const size = new AdaptiveSize(4)
    const parts = []
    for (const part of partsOf([1, 2, 3, 4, 5, 6, 7], size)) {
      parts.push(part)
      size.shrink(2)
    }
    assert.deepStrictEqual(parts, [[1, 2, 3, 4], [5, 6], [7]])
  })
})

describe("halving", () => {
  const failure = (reason: Reason) => new EndpointError({ endpoint: "fake", reason })
  const items = Array.from({ length: 10 }, (_, i) => i)
  const isTooLarge = (error: EndpointError) => errorKind(error) === "RangeTooLarge"

  /** An endpoint that serves at most `most` items per request. */
  const limitedTo = (most: number, reason: Reason) => {
    const sent: Array<number> = []
    const send = (part: ReadonlyArray<number>) =>
      Effect.suspend(() => {
        sent.push(part.length)
        return part.length > most ? Effect.fail(failure(reason)) : Effect.succeed(part)
      })
    return { sent, send }
  }
  const late = new Timeout({ method: "a batch", millis: 1 })

  it.effect(
    "sends the items of a request that is too large again in parts, in order, and remembers the size",
    () =>
      Effect.gen(function* () {
        const size = new AdaptiveSize(20)
        const { sent, send } = limitedTo(3, late)
        assert.deepStrictEqual(yield* halving(size, isTooLarge, send)(items), items)
        assert.deepStrictEqual(sent, [10, 5, 3, 2, 3, 2])
        assert.strictEqual(size.current, 3)
      }),
  )

  it.effect("does not halve the size again for items that were cut before", () =>
    Effect.gen(function* () {
      const size = new AdaptiveSize(100)
      const all = Array.from({ length: 25 }, (_, i) => i)
      const { sent, send } = limitedTo(10, late)
      assert.deepStrictEqual(yield* halving(size, isTooLarge, send)(all), all)
      assert.deepStrictEqual([sent, size.current], [[25, 13, 7, 6, 7, 5], 7])
    }),
  )

  it.effect("fails with the error of a single item, and with an error that is not about the size", () =>
    Effect.gen(function* () {
      const size = new AdaptiveSize(20)
      yield* Effect.flip(halving(size, isTooLarge, limitedTo(0, late).send)(items))
      assert.strictEqual(size.current, 1)
      const other = new AdaptiveSize(20)
      const { sent, send } = limitedTo(0, late)
      yield* Effect.flip(halving(other, () => false, send)(items))
      assert.deepStrictEqual([sent, other.current], [[10], 20])
    }),
  )

  it.effect("leaves the parts to the next connection if the request closed this one", () =>
    Effect.gen(function* () {
      const size = new AdaptiveSize(20)
      const { sent, send } = limitedTo(3, new Oversized({ limit: 1 }))
      yield* Effect.flip(halving(size, isTooLarge, send)(items))
      assert.deepStrictEqual([sent, size.current], [[10], 5])
    }),
  )
})
