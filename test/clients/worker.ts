/**
 * A consumer as a process: copies the keys of all logs into the table `logs`. A second copy of a key fails, and so does an undo without
 * a copy. Run: node worker.ts <redis URL> <postgres URL> <tables>
 */
import { Pool } from "pg"
import { follow, postgres } from "../../clients/typescript/src/index.ts"

const [redis = "", database = "", table = ""] = process.argv.slice(2)
const pool = new Pool({ connectionString: database })
const stop = new AbortController()
process.on("SIGTERM", () => stop.abort())

await follow({
  redis,
  chain: 1,
  name: "worker",
  from: "earliest",
  finality: "latest",
  checkpoint: postgres(pool, { table }),
  lease: "2s",
  signal: stop.signal,
  apply: async ({ tx, block }) => {
    for (const { key } of block.logs) await tx.query(`INSERT INTO ${table}_logs VALUES ($1)`, [key])
    process.stdout.write(`applied ${block.number} ${block.hash}\n`)
  },
  undo: async ({ tx, block }) => {
    for (const { key } of block.logs) {
      const { rowCount } = await tx.query(`DELETE FROM ${table}_logs WHERE key = $1`, [key])
      if (rowCount !== 1) throw new Error(`${key} was not there`)
    }
    process.stdout.write(`retracted ${block.number} ${block.hash}\n`)
  },
})
await pool.end()
