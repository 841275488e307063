/** A consumer that uses the library, as a process with a table in SQLite, which is compared with a node. */
import { assert } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { chainId } from "./devnet.ts"
import type { Devnet } from "./devnet.ts"
import { directory } from "./directory.ts"
import { restartable } from "./shell.ts"

const command = (source: string, path: string) =>
  `node test/clients/worker.ts ${source} ${path} reader ${chainId}`

/** Starts one. @param source the URL of Redis, or the path of the ingestor's SQLite file */
export const start = Effect.fnUntraced(function* (source: string) {
  const path = join(yield* directory, "reader.db")
  return { path, ...(yield* restartable(command(source, path), {})) }
})

export type Reader = Effect.Success<ReturnType<typeof start>>

const keysOf = ({ path }: Reader): ReadonlyArray<string> => {
  const database = new DatabaseSync(path, { timeout: 5000 })
  try {
    return database
      .prepare("SELECT key FROM reader_logs ORDER BY key")
      .all()
      .map(({ key }) => String(key))
  } catch {
    // There is no table yet.
    return []
  } finally {
    database.close()
  }
}

interface NodeLog {
  readonly blockHash: string
  readonly logIndex: string
}

/** Waits until it has written something. */
export const hasRows = (reader: Reader) =>
  Effect.repeat(
    Effect.sync(() => keysOf(reader).length),
    { until: (rows) => rows > 0, schedule: Schedule.spaced("50 millis") },
  )

/** Waits until the table has exactly the logs that the node has, each once. */
export const assertEqual = (reader: Reader, { node }: Pick<Devnet, "node">) =>
  Effect.gen(function* () {
    const logs = (yield* node.request("eth_getLogs", [
      { fromBlock: "0x0", toBlock: "latest" },
    ])) as ReadonlyArray<NodeLog>
    const wanted = logs.map(({ blockHash, logIndex }) => `${chainId}:${blockHash}:${Number(logIndex)}`).sort()
    const held = yield* Effect.repeat(
      Effect.sync(() => keysOf(reader)),
      {
        until: (held) => JSON.stringify(held) === JSON.stringify(wanted),
        schedule: Schedule.spaced("50 millis"),
        times: 400,
      },
    )
    assert.deepStrictEqual(held, wanted, reader.output())
    assert.isAbove(held.length, 0)
  })
