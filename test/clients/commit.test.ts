/** What a commit of `changes` stores, and what it refuses. */
import { afterEach, assert, beforeEach, describe, vi } from "@effect/vitest"
import type { DatabaseSync } from "node:sqlite"
import { atLeastOnce, memory, redis } from "../../clients/typescript/src/index.ts"
import type { Checkpoint } from "../../clients/typescript/src/index.ts"
import { again, begin, codeOf, foreign, hurry, lossy, nameOf, own, table, test } from "./iteration.ts"

beforeEach(hurry)
afterEach(() => void vi.restoreAllMocks())

describe("a commit of changes", () => {
  test("does not store a position beyond a change whose transaction was rolled back", async (stream) => {
    await stream.push(["1a", "2a", "3a", "4a"].map(own))
    const { checkpoint, write, rows, rolledBack } = table()
    const { next, close } = begin(stream.url, checkpoint)
    const first = await next()
    await checkpoint.transaction(async (tx) => {
      write(first)
      await first.commit(tx)
    })
    const second = await next()
    await rolledBack(async (tx) => {
      write(second)
      await second.commit(tx)
    })
    const third = await next()
    assert.strictEqual(await codeOf(checkpoint.transaction((tx) => third.commit(tx))), "ROLLED_BACK")
    assert.strictEqual(await codeOf(third.commit()), "ROLLED_BACK")
    await close()
    assert.deepStrictEqual(rows(), ["+1a"])
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["+2a", "+3a", "+4a"])
  })

  test("is refused with ROLLED_BACK after several changes were rolled back in one transaction", async (stream) => {
    await stream.push(["1a", "2a", "3a"].map(own))
    const { checkpoint, rolledBack } = table()
    const { next, close } = begin(stream.url, checkpoint)
    const [first, second] = [await next(), await next()]
    await rolledBack(async (tx) => {
      await first.commit(tx)
      await second.commit(tx)
    })
    assert.strictEqual(await codeOf((await next()).commit()), "ROLLED_BACK")
    // Both are repeated, and the later ones may be committed.
    await first.commit()
    await second.commit()
    await close()
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["+3a"])
  })

  test("stores a change whose transaction is repeated", async (stream) => {
    await stream.push(["1a", "2a", "3a"].map(own))
    const { checkpoint, write, rows, rolledBack } = table()
    for await (const change of begin(stream.url, checkpoint).rest) {
      const run = async (tx: DatabaseSync) => {
        write(change)
        await change.commit(tx)
      }
      // More often than states are remembered.
      for (let i = 0; i < 150; i++) await rolledBack(run)
      await checkpoint.transaction(run)
    }
    assert.deepStrictEqual(rows(), ["+1a", "+2a", "+3a"])
    assert.deepStrictEqual(await again(stream.url, checkpoint), [])
  })

  test("stores several changes in one transaction of the caller, which takes them while it is open", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    // The position is saved at rest when a block without logs that match was read.
    await stream.push([foreign("3a")])
    const { checkpoint, write, rows, rolledBack } = table()
    for (const isRolledBack of [true, false]) {
      const { next, rest } = begin(stream.url, checkpoint)
      const first = await next()
      const run = async (tx: DatabaseSync) => {
        write(first)
        await first.commit(tx)
        for await (const change of rest) {
          write(change)
          await change.commit(tx)
        }
      }
      if (isRolledBack) await rolledBack(run)
      else await checkpoint.transaction(run)
      assert.deepStrictEqual(rows(), isRolledBack ? [] : ["+1a", "+2a"])
    }
    assert.deepStrictEqual(await again(stream.url, checkpoint), [])
  })

  test("waits for no transaction of the caller that is open when the position is saved at rest", async (stream) => {
    await stream.push(["1a"].map(own))
    const { checkpoint, write, rows } = table()
    const { next, close } = begin(stream.url, checkpoint, {}, async () => {
      await stream.push([own("3a")])
    })
    await (await next()).commit()
    await stream.push([foreign("2a")])
    await checkpoint.transaction(async (tx) => {
      const change = await next()
      write(change)
      await change.commit(tx)
    })
    await close()
    assert.deepStrictEqual(rows(), ["+3a"])
    assert.deepStrictEqual(await again(stream.url, checkpoint), [])
  })

  test("is refused when more changes were rolled back than are remembered", async (stream) => {
    await stream.push(Array.from({ length: 150 }, (_, i) => own(`${i + 1}a`)))
    const { checkpoint, rolledBack } = table()
    const { next, close } = begin(stream.url, checkpoint)
    let change = await next()
    await rolledBack(async (tx) => {
      for (let i = 0; i < 148; i++) {
        await change.commit(tx)
        change = await next()
      }
    })
    assert.strictEqual(await codeOf((await next()).commit()), "ROLLED_BACK")
    await close()
    assert.strictEqual((await again(stream.url, checkpoint)).length, 150)
  })

  test("keeps the later position when an earlier change is committed after it", async (stream) => {
    await stream.push(["1a", "2a", "3a"].map(own))
    const { checkpoint } = table()
    const { next, close } = begin(stream.url, checkpoint)
    const [first, second] = [await next(), await next()]
    await second.commit()
    await first.commit()
    await close()
    assert.strictEqual(await codeOf(first.commit()), "CLOSED")
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["+3a"])
  })

  for (const kind of ["sqlite", "memory", "redis"] as const)
    test(`succeeds when it is repeated after a lost reply, in ${kind}`, async (stream) => {
      await stream.push(["1a", "2a", "3a"].map(own))
      const checkpoints = { sqlite: () => table().checkpoint, memory, redis: () => redis(stream.client) }
      const { lost, checkpoint } = lossy(checkpoints[kind]() as Checkpoint<unknown>)
      // No heartbeat loses its reply in place of the commit.
      const { next, close } = begin(stream.url, checkpoint, { lease: 3_600_000 })
      await (await next()).commit()
      const second = await next()
      lost.next = true
      assert.strictEqual(await codeOf(second.commit()), "Error: reply lost")
      await second.commit()
      const third = await next()
      lost.next = true
      assert.strictEqual(await codeOf(third.commit()), "Error: reply lost")
      await close()
      assert.deepStrictEqual(await again(stream.url, checkpoint), [])
    })

  test("in a transaction whose COMMIT lost its reply is refused with COMMITTED when that is repeated", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    const { checkpoint: durable, write, rows } = table()
    const { lost, checkpoint } = lossy(durable)
    const { next, close } = begin(stream.url, checkpoint, { lease: 3_600_000 })
    const first = await next()
    const run = () =>
      checkpoint.transaction(async (tx) => {
        if (!rows().includes(nameOf(first))) write(first)
        await first.commit(tx)
      })
    lost.next = true
    assert.strictEqual(await codeOf(run()), "Error: reply lost")
    assert.strictEqual(await codeOf(run()), "COMMITTED")
    await (await next()).commit()
    await close()
    assert.deepStrictEqual(await again(stream.url, checkpoint), [])
  })

  test("is not passed over when it failed", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    const { checkpoint } = table()
    let isFailing = false
    const failing: typeof checkpoint = {
      ...checkpoint,
      save: async (tx, reader, save) => {
        if (isFailing) throw new Error("the disk")
        await checkpoint.save(tx, reader, save)
      },
    }
    const { next, close } = begin(stream.url, failing, { lease: 3_600_000 })
    const first = await next()
    isFailing = true
    assert.strictEqual(await codeOf(first.commit()), "Error: the disk")
    isFailing = false
    const second = await next()
    assert.strictEqual(await codeOf(second.commit()), "ROLLED_BACK")
    await first.commit()
    await second.commit()
    await close()
    assert.deepStrictEqual(await again(stream.url, checkpoint), [])
  })

  test("does not save at rest what was rolled back", async (stream) => {
    await stream.push([own("1a")])
    const { checkpoint, rolledBack } = table()
    const { next, rest } = begin(stream.url, checkpoint)
    const first = await next()
    await rolledBack((tx) => first.commit(tx))
    await stream.push([foreign("2a")])
    for await (const change of rest) assert.fail(nameOf(change))
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["+1a"])
  })

  test("is followed by a save at rest, which is repeated when it fails", async (stream) => {
    await stream.push([own("1a")])
    const { checkpoint } = table()
    const warnings: Array<string> = []
    let failures = 0
    const failing: typeof checkpoint = {
      ...checkpoint,
      save: async (tx, reader, save) => {
        await checkpoint.save(tx, reader, save)
        if (save.position.block === 2 && ++failures === 1) throw new Error("the disk")
      },
    }
    // No heartbeat saves meanwhile.
    const { next, rest } = begin(stream.url, failing, {
      lease: 3_600_000,
      onWarning: ({ message }) => void warnings.push(message),
    })
    await (await next()).commit()
    await stream.push([foreign("2a")])
    for await (const change of rest) assert.fail(nameOf(change))
    const position = await checkpoint.transaction((tx) => checkpoint.load(tx, { name: "reader", chain: 1 }))
    assert.strictEqual(position!.block, 2)
    assert.deepStrictEqual(warnings, ["the disk"])
  })
})

describe("an at-least-once commit of changes", () => {
  for (const kind of ["memory", "sqlite"] as const)
    test(`keeps the marks of later changes, so that they are retracted if they have gone, in ${kind}`, async (stream) => {
      await stream.push(["1a", "2a"].map(own))
      const checkpoint = kind === "memory" ? memory() : atLeastOnce(table().checkpoint)
      const { next, close } = begin(stream.url, checkpoint)
      const [first] = [await next(), await next()]
      // Not the second one, which was delivered before.
      await first.commit()
      await close()
      await stream.popTo(1)
      await stream.push([own("2b")])
      assert.deepStrictEqual(await again(stream.url, checkpoint), ["-2a", "+2b"])
    })

  test("must come before another block of the same number is delivered", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    const checkpoint = atLeastOnce(table().checkpoint)
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["+1a", "+2a"])
    await stream.popTo(1)
    await stream.push(["2b", "3b"].map(own))
    const { next } = begin(stream.url, checkpoint)
    assert.strictEqual(nameOf(await next()), "-2a")
    // Of 2a and 2b, it could mark one only.
    assert.strictEqual(await codeOf(next()), "UNCOMMITTED")
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["-2a", "+2b", "+3b"])
  })

  test("of an earlier change marks a later block once that was replaced, and is canonical again", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    const checkpoint = memory()
    const { next, close } = begin(stream.url, checkpoint)
    const [first] = [await next(), await next()]
    await stream.popTo(1)
    assert.strictEqual(nameOf(await next()), "-2a")
    await stream.push(["2a", "3a"].map(own))
    assert.strictEqual(nameOf(await next()), "+2a")
    await first.commit()
    await close()
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["-2a", "+2a", "+3a"])
  })

  test("that was rolled back is not passed over, and may be repeated", async (stream) => {
    await stream.push(["1a", "2a"].map(own))
    const { checkpoint: transactional, rolledBack } = table()
    const checkpoint = atLeastOnce(transactional)
    for (const isRepeated of [false, true]) {
      const { next, close } = begin(stream.url, checkpoint)
      const first = await next()
      await rolledBack((tx) => first.commit(tx as never))
      if (isRepeated) {
        await transactional.transaction((tx) => first.commit(tx as never))
        assert.strictEqual(nameOf(await next()), "+2a")
      } else assert.strictEqual(await codeOf(next()), "ROLLED_BACK")
      await close()
    }
    assert.deepStrictEqual(await again(stream.url, checkpoint), ["+2a"])
  })
})
