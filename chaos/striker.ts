/**
 * A thread that looks at a SQLite journal all the time and ends the service at once when a block is there in part. Says
 * when it has begun to look.
 */
import { DatabaseSync } from "node:sqlite"
import { parentPort, workerData } from "node:worker_threads"

export interface Strike {
  readonly path: string
  readonly chain: number
  readonly pid: number
}

const { path, chain, pid } = workerData as Strike
const database = new DatabaseSync(path, { readOnly: true })
const look = database.prepare("SELECT part FROM heads WHERE chain_id = ?")
const pause = new Int32Array(new SharedArrayBuffer(4))

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port is no window
parentPort!.postMessage("looking")
while (look.get(chain)?.["part"] === 0) Atomics.wait(pause, 0, 0, 0.2)
process.kill(pid, "SIGKILL")
database.close()
