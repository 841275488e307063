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

/**
 * Starts one.
 *
 * @param source the URL of Redis, or the path of the ingestor's SQLite file
 * @param database the path of its own file, if it continues one
 */
export const start = Effect.fnUntraced(function* (source: string, database?: string) {
  const path = database ?? join(yield* directory, "reader.db")
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

/** The identity of a log, as the library gives it. */
export const keyOf = (blockHash: string, logIndex: string) => `${chainId}:${blockHash}:${Number(logIndex)}`

/** Those of all logs that a node has, sorted. */
export const keysOfNode = ({ node }: Pick<Devnet, "node">) =>
  Effect.map(node.request("eth_getLogs", [{ fromBlock: "0x0", toBlock: "latest" }]), (logs) =>
    (logs as ReadonlyArray<NodeLog>).map(({ blockHash, logIndex }) => keyOf(blockHash, logIndex)).sort(),
  )

/** Waits until the table has exactly the logs that the node has, each once. */
export const assertEqual = (reader: Reader, devnet: Pick<Devnet, "node">) =>
  Effect.gen(function* () {
    const wanted = yield* keysOfNode(devnet)
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
