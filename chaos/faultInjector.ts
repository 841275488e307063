/**
 * A thread that polls a SQLite journal and kills the service as soon as a block is partially stored. Posts a message when it
 * has started to poll.
 */
import { DatabaseSync } from "node:sqlite"
import { parentPort, workerData } from "node:worker_threads"

export interface Target {
  readonly path: string
  readonly chain: number
  readonly pid: number
}

const { path, chain, pid } = workerData as Target
const database = new DatabaseSync(path, { readOnly: true })
const readPart = database.prepare("SELECT part FROM heads WHERE chain_id = ?")
const pause = new Int32Array(new SharedArrayBuffer(4))

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port is no window
parentPort!.postMessage("looking")
while (readPart.get(chain)?.["part"] === 0) Atomics.wait(pause, 0, 0, 0.2)
process.kill(pid, "SIGKILL")
database.close()
