/**
 * A consumer as a process: copies the keys of all logs into the table `<table>_logs`, which it creates. A second copy of a key fails,
 * and so does an undo without a copy.
 *
 * Run: node worker.ts <source: URL of Redis, or path of the ingestor's SQLite file> <database: URL of Postgres, or path> <table> <chain>
 */
import { DatabaseSync } from "node:sqlite"
import { Pool } from "pg"
import { follow, postgres, sqlite } from "../../clients/typescript/src/index.ts"
import type { Block, Checkpoint } from "../../clients/typescript/src/index.ts"

const [source = "", database = "", table = "", chain = ""] = process.argv.slice(2)
const stop = new AbortController()
process.on("SIGTERM", () => stop.abort())

interface Table<Tx> {
  readonly checkpoint: Checkpoint<Tx>
  readonly insert: (tx: Tx, key: string) => unknown
  /** How many rows were deleted. */
  readonly remove: (tx: Tx, key: string) => unknown
}

const copyInto = <Tx>({ checkpoint, insert, remove }: Table<Tx>) => {
  const say = (what: string, { number, hash }: Pick<Block, "number" | "hash">) =>
    process.stdout.write(`${what} ${number} ${hash}\n`)
  return follow<readonly [], Tx>({
    ...(source.includes("://") ? { redis: source } : { sqlite: source }),
    chain: Number(chain),
    name: "worker",
    from: "earliest",
    finality: "latest",
    checkpoint,
    lease: "2s",
    signal: stop.signal,
    apply: async ({ tx, block }) => {
      for (const { key } of block.logs) await insert(tx, key)
      say("applied", block)
    },
    undo: async ({ tx, block }) => {
      for (const { key } of block.logs)
        if (Number(await remove(tx, key)) !== 1) throw new Error(`${key} was not there`)
      say("retracted", block)
    },
  })
}

const create = `CREATE TABLE IF NOT EXISTS ${table}_logs (key text PRIMARY KEY)`
const inserting = `INSERT INTO ${table}_logs VALUES ($1)`
const deleting = `DELETE FROM ${table}_logs WHERE key = $1`

if (database.includes("://")) {
  const pool = new Pool({ connectionString: database })
  await pool.query(create)
  await copyInto({
    checkpoint: postgres(pool, { table }),
    insert: (tx, key) => tx.query(inserting, [key]),
    remove: async (tx, key) => (await tx.query(deleting, [key])).rowCount,
  })
  await pool.end()
} else {
  const file = new DatabaseSync(database, { timeout: 5000 })
  file.exec(`PRAGMA journal_mode = WAL; ${create}`)
  await copyInto({
    checkpoint: sqlite(file, { table }),
    insert: (tx, key) => tx.prepare(inserting.replace("$1", "?")).run(key),
    remove: (tx, key) => tx.prepare(deleting.replace("$1", "?")).run(key).changes,
  })
  file.close()
}
