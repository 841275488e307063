/** Iterations by `changes` on a real Redis that end when there is nothing more to deliver, and tables of their caller. */
import { assert, it, vi } from "@effect/vitest"
import type { Abi } from "abitype"
import { Effect } from "effect"
import { DatabaseSync } from "node:sqlite"
import { changesFrom } from "../../clients/typescript/src/Changes.ts"
import { openSource } from "../../clients/typescript/src/Consumer.ts"
import type { OpenSource } from "../../clients/typescript/src/Consumer.ts"
import { ConsumerError, sqlite } from "../../clients/typescript/src/index.ts"
import type { Change, ChangesOptions, Checkpoint } from "../../clients/typescript/src/index.ts"
import * as StreamWriter from "./StreamWriter.ts"
import { named } from "./StreamWriter.ts"

const wanted = `0x${"ab".repeat(20)}` as const

/** A block that these readers ask for, and one that they do not. */
export const own = (name: string) => {
  const block = named(name)
  return { ...block, logs: block.logs.map((log) => ({ ...log, contract: wanted })) }
}
export const foreign = (name: string) => named(name)

const names = new Map<string, string>(
  Array.from({ length: 200 }, (_, i) => [`${i}a`, `${i}b`])
    .flat()
    .map((name) => [named(name).hash, name]),
)

export const nameOf = ({ type, block }: Pick<Change<Abi, never>, "type" | "block">) =>
  `${type === "apply" ? "+" : "-"}${names.get(block.hash)}`

/** An iteration that ends when there is nothing more to deliver. */
export const begin = <Tx>(
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
      waited = 0
      const { value } = await iterator.next()
      assert.isDefined(value, "there is no change")
      return value
    },
    close: async () => void (await iterator.return!()),
  }
}

/** What the next iteration delivers and commits. */
export const again = async <Tx>(url: string, checkpoint: Checkpoint<Tx>) => {
  const seen: Array<string> = []
  for await (const change of begin(url, checkpoint).rest) {
    seen.push(nameOf(change))
    await change.commit()
  }
  return seen
}

export const codeOf = async (run: Promise<unknown>) => {
  const error = await run.then(
    () => undefined,
    (error: unknown) => error,
  )
  return error instanceof ConsumerError ? error.code : String(error)
}

/** A checkpoint, and a table of the caller in its database. */
export const table = () => {
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
export const lossy = <Tx>(checkpoint: Checkpoint<Tx>) => {
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

export type Stream = Effect.Success<ReturnType<typeof StreamWriter.start>>

export const test = (name: string, run: (stream: Stream) => Promise<void>) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const stream = yield* StreamWriter.start()
      yield* Effect.promise(() => run(stream))
    }),
  )

/** The id of the last entry of each block, by its name. */
export const idsOf = async ({ client }: Stream) => {
  const entries = await client.xrange("events:1", "-", "+")
  return new Map(
    entries.map(([id, fields]) => {
      const hash = fields[fields.indexOf("block_hash") + 1]!
      return [names.get(hash)!, id] as const
    }),
  )
}

/** Copies the stream. What is returned sets it back to the copy. */
export const copy = async ({ client }: Stream) => {
  const keys = ["events:1", "{events:1}:head", "{events:1}:window"]
  const dumps = await Promise.all(keys.map((key) => client.dumpBuffer(key)))
  return async () => {
    const all = client.multi().del(...keys)
    for (const [i, dump] of dumps.entries()) all.restore(keys[i]!, 0, dump!)
    await all.exec()
  }
}

/** Lets a position be published, and saved at rest, without a second between. */
export const hurry = () => {
  let now = 0
  vi.spyOn(performance, "now").mockImplementation(() => (now += 1000))
}
