/** What a commit of `changes` stores, what it refuses, and which position is published. */
import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"
import type { Abi } from "abitype"
import { Effect } from "effect"
import { DatabaseSync } from "node:sqlite"
import { changesFrom } from "../../clients/typescript/src/Changes.ts"
import { openSource } from "../../clients/typescript/src/Consumer.ts"
import type { OpenSource } from "../../clients/typescript/src/Consumer.ts"
import { ConsumerError, atLeastOnce, memory, redis, sqlite } from "../../clients/typescript/src/index.ts"
import type { Change, ChangesOptions, Checkpoint } from "../../clients/typescript/src/index.ts"
import * as StreamWriter from "./StreamWriter.ts"
import { named } from "./StreamWriter.ts"

const wanted = `0x${"ab".repeat(20)}` as const

/** A block that these readers ask for, and one that they do not. */
const own = (name: string) => {
  const block = named(name)
  return { ...block, logs: block.logs.map((log) => ({ ...log, contract: wanted })) }
}
const foreign = (name: string) => named(name)

const names = new Map<string, string>(
  Array.from({ length: 200 }, (_, i) => [`${i}a`, `${i}b`])
    .flat()
    .map((name) => [named(name).hash, name]),
)

const nameOf = ({ type, block }: Pick<Change<Abi, never>, "type" | "block">) =>
  `${type === "apply" ? "+" : "-"}${names.get(block.hash)}`

/** An iteration that ends when there is nothing more to deliver. */
const begin = <Tx>(
  url: string,
  checkpoint: Checkpoint<Tx>,
  options: Partial<ChangesOptions<Abi, Tx>> = {},
  idle: () => Promise<void> = async () => {},
) => {
  const stop = new AbortController()
  const published: Array<string> = []
  let waited = 0
  const open: OpenSource = (options, chain) => {
    const source = openSource(options, chain)
    return {
      ...source,
      report: async (reader, report) => {
        published.push(report.id)
        await source.report(reader, report)
      },
      changed: async () => {
        await idle()
        if (++waited === 2) stop.abort()
      },
    }
  }
  const changes = changesFrom<Abi, Tx>(open, {
    redis: url,
    chain: 1,
    name: "reader",
    from: "earliest",
    finality: "latest",
    addresses: [wanted],
    checkpoint,
    lease: "300ms",
    signal: stop.signal,
    onWarning: (warning) => {
      throw warning
    },
    ...options,
  })
  const iterator = changes[Symbol.asyncIterator]()
  return {
    published,
    rest: { [Symbol.asyncIterator]: () => ({ next: () => iterator.next() }) },
    next: async (): Promise<Change<Abi, Tx>> => {
      const { value } = await iterator.next()
      assert.isDefined(value, "there is no change")
      return value
    },
    close: async () => void (await iterator.return!()),
  }
}

/** What the next iteration delivers and commits. */
const again = async <Tx>(url: string, checkpoint: Checkpoint<Tx>) => {
  const seen: Array<string> = []
  for await (const change of begin(url, checkpoint).rest) {
    seen.push(nameOf(change))
    await change.commit()
  }
  return seen
}

const codeOf = async (run: Promise<unknown>) => {
  const error = await run.then(
    () => undefined,
    (error: unknown) => error,
  )
  return error instanceof ConsumerError ? error.code : String(error)
}

/** A checkpoint, and a table of the caller in its database. */
const table = () => {
  const database = new DatabaseSync(":memory:")
  database.exec("CREATE TABLE names (name TEXT PRIMARY KEY)")
  const checkpoint = sqlite(database)
  return {
    checkpoint,
    write: (change: Change<Abi, DatabaseSync>) =>
      void database.prepare("INSERT INTO names VALUES (?)").run(nameOf(change)),
    rows: () =>
      database
        .prepare("SELECT name FROM names ORDER BY name")
        .all()
        .map(({ name }) => String(name)),
    /** Runs a transaction that is rolled back. */
    rolledBack: async (run: (tx: DatabaseSync) => Promise<void>) => {
      const transaction = checkpoint.transaction(async (tx) => {
        await run(tx)
        throw new Error("rolled back")
      })
      assert.strictEqual(await codeOf(transaction), "Error: rolled back")
    },
  }
}

/** Loses the reply of transactions, or of saves, that were stored. */
const lossy = <Tx>(checkpoint: Checkpoint<Tx>) => {
  const lost = { next: false }
  const lose = async <A>(stored: Promise<A>) => {
    const result = await stored
    if (lost.next) {
      lost.next = false
      throw new Error("reply lost")
    }
    return result
  }
  return {
    lost,
    checkpoint: {
      ...checkpoint,
      transaction: (run) => lose(checkpoint.transaction(run)),
    } satisfies Checkpoint<Tx>,
  }
}

type Stream = Effect.Success<ReturnType<typeof StreamWriter.start>>

const test = (name: string, run: (stream: Stream) => Promise<void>) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* Effect.promise(() => run(stream))
    }),
  )

/** The id of the last entry of each block, by its name. */
const idsOf = async ({ client }: Stream) => {
  const entries = await client.xrange("events:1", "-", "+")
  return new Map(
    entries.map(([id, fields]) => {
      const hash = fields[fields.indexOf("block_hash") + 1]!
      return [names.get(hash)!, id] as const
    }),
  )
}

/** Copies the stream. What is returned sets it back to the copy. */
const copy = async ({ client }: Stream) => {
  const keys = ["events:1", "{events:1}:head", "{events:1}:window"]
  const dumps = await Promise.all(keys.map((key) => client.dumpBuffer(key)))
  return async () => {
    const all = client.multi().del(...keys)
    for (const [i, dump] of dumps.entries()) all.restore(keys[i]!, 0, dump!)
    await all.exec()
  }
}

beforeEach(() => {
  // A position is published, and saved at rest, without a second between.
  let now = 0
  vi.spyOn(performance, "now").mockImplementation(() => (now += 1000))
})
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
    test(`keeps the marks of later changes, so that they are undone if they have gone, in ${kind}`, async (stream) => {
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
