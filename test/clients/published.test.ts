/** Which position `changes` publishes: the ingestor trims what is below. */
import { afterEach, assert, beforeEach, describe, vi } from "@effect/vitest"
import { again, begin, copy, hurry, idsOf, nameOf, own, table, test } from "./iteration.ts"

beforeEach(hurry)
afterEach(() => void vi.restoreAllMocks())

describe("the position that changes publishes", () => {
  test("is the one that is stored", async (stream) => {
    await stream.push(["1a", "2a", "3a"].map(own))
    const { next, rest, published } = begin(stream.url, table().checkpoint)
    await (await next()).commit()
    // Delivered, and not committed.
    const seen: Array<string> = []
    for await (const change of rest) seen.push(nameOf(change))
    assert.deepStrictEqual(seen, ["+2a", "+3a"])
    assert.deepStrictEqual([...new Set(published)], ["0-0", (await idsOf(stream)).get("1a")])
  })

  test("includes a commit in a transaction of the caller when that has ended", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    const { checkpoint, rolledBack } = table()
    const one = begin(stream.url, checkpoint)
    const first = await one.next()
    await rolledBack(async (tx) => {
      await first.commit(tx)
      for await (const change of one.rest) await change.commit(tx)
    })
    await one.close()
    assert.deepStrictEqual([...new Set(one.published)], ["0-0"])
    const two = begin(stream.url, checkpoint)
    const committed = await two.next()
    await checkpoint.transaction((tx) => committed.commit(tx))
    await two.close()
    assert.strictEqual(two.published.at(-1), (await idsOf(stream)).get("1a"))
  })

  test("is the lower one after a set-back until the retractions are committed", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    await stream.finalize("1a")
    const restore = await copy(stream)
    const { checkpoint } = table()
    await stream.push(["3a", "4a"].map(own))
    assert.strictEqual((await again(stream.url, checkpoint)).length, 4)
    const lower = (await idsOf(stream)).get("2a")!
    await restore()
    await stream.push(["3b", "4b"].map(own))
    const all = ["-4a", "-3a", "+3b", "+4b"]
    for (const [commits, left] of [
      [0, all],
      [1, all],
      [0, all.slice(1)],
    ] as const) {
      const { rest, published } = begin(stream.url, checkpoint)
      const seen: Array<string> = []
      for await (const change of rest) {
        seen.push(nameOf(change))
        if (seen.length <= commits) await change.commit()
      }
      assert.deepStrictEqual(seen, left)
      assert.deepStrictEqual([...new Set(published)], [lower])
    }
    const { rest, published } = begin(stream.url, checkpoint)
    for await (const change of rest) await change.commit()
    assert.strictEqual(published.at(-1), (await idsOf(stream)).get("4b"))
  })

  test("is the lower one after a set-back also when a commit of before it ends then", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    await stream.finalize("1a")
    const restore = await copy(stream)
    await stream.push(["3a", "4a"].map(own))
    const lower = (await idsOf(stream)).get("2a")!
    const { checkpoint } = table()
    const { next, close, published } = begin(stream.url, checkpoint)
    for (let i = 0; i < 3; i++) await (await next()).commit()
    const fourth = await next()
    await restore()
    await stream.push([own("3b")])
    assert.strictEqual(nameOf(await next()), "-4a")
    await checkpoint.transaction((tx) => fourth.commit(tx))
    await close()
    assert.strictEqual(published.at(-1), lower)
  })
})
