/**
 * Keeps ERC-20 balances equal to the chain, through reorgs and failovers. Run: node examples/balances.ts 1
 *
 * REDIS_URL names the Redis of the ingestor, and DATABASE_URL a Postgres (`postgres://…`) or a SQLite file. Balances and position are
 * written in one transaction: a process that is killed continues where it was, and none is booked twice.
 */
import { DatabaseSync } from "node:sqlite"
import type { PoolClient } from "pg"
import { follow, postgres, sqlite } from "../clients/typescript/src/index.ts" // yours: "@event-ingestor/consumer"
import type { Block, Checkpoint } from "../clients/typescript/src/index.ts"

const chain = Number(process.argv[2] ?? 1)
const { REDIS_URL: redis = "redis://127.0.0.1:6379", DATABASE_URL: url = "balances.db" } = process.env

const abi = [
  {
    type: "event",
    name: "Transfer",
    inputs: [
      { name: "from", type: "address", indexed: true },
      { name: "to", type: "address", indexed: true },
      { name: "value", type: "uint256" },
    ],
  },
] as const

/** A database with a table of balances. */
interface Database<Tx> {
  readonly checkpoint: Checkpoint<Tx>
  readonly add: (tx: Tx, token: string, holder: string, change: bigint) => void | Promise<void>
}

const openSqlite = (path: string): Database<DatabaseSync> => {
  const database = new DatabaseSync(path, { timeout: 5000 })
  // An amount has up to 78 digits, more than an INTEGER: it is text.
  database.exec(
    "CREATE TABLE IF NOT EXISTS balances (token TEXT, holder TEXT, amount TEXT NOT NULL, PRIMARY KEY (token, holder))",
  )
  const read = database.prepare("SELECT amount FROM balances WHERE token = ? AND holder = ?")
  const write = database.prepare("INSERT OR REPLACE INTO balances VALUES (?, ?, ?)")
  const add = (_: DatabaseSync, token: string, holder: string, change: bigint) => {
    const amount = BigInt(String(read.get(token, holder)?.["amount"] ?? 0))
    write.run(token, holder, String(amount + change))
  }
  return { checkpoint: sqlite(database), add }
}

const openPostgres = async (connectionString: string): Promise<Database<PoolClient>> => {
  const { Pool } = await import("pg")
  const pool = new Pool({ connectionString })
  // The transaction that fails reports it.
  pool.on("error", () => {})
  await pool.query(
    "CREATE TABLE IF NOT EXISTS balances (token text, holder text, amount numeric NOT NULL, PRIMARY KEY (token, holder))",
  )
  const sql = `INSERT INTO balances VALUES ($1, $2, $3)
    ON CONFLICT (token, holder) DO UPDATE SET amount = balances.amount + excluded.amount`
  const add = async (tx: PoolClient, token: string, holder: string, change: bigint) => {
    await tx.query(sql, [token, holder, String(change)])
  }
  return { checkpoint: postgres(pool), add }
}

const run = async <Tx>({ checkpoint, add }: Database<Tx>) => {
  /** Books the transfers of a block, or with -1 takes them back. */
  const book = async (tx: Tx, block: Block<typeof abi>, sign: 1n | -1n) => {
    for (const { args, log } of block.events) {
      await add(tx, log.contract, args.from.toLowerCase(), -sign * args.value)
      await add(tx, log.contract, args.to.toLowerCase(), sign * args.value)
    }
  }
  const stop = new AbortController()
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort())
  await follow({
    redis,
    chain,
    name: "balances",
    from: "earliest",
    finality: "latest",
    // After kill -9, the next process waits so long before it takes over.
    lease: "2s",
    events: abi,
    checkpoint,
    apply: ({ tx, block }) => book(tx, block, 1n),
    undo: ({ tx, block }) => book(tx, block, -1n),
    onProgress: ({ through, lag }) =>
      process.stdout.write(`balances as of block ${through}, ${lag} behind\n`),
    signal: stop.signal,
  })
}

await (/^postgres(ql)?:/.test(url) ? run(await openPostgres(url)) : run(openSqlite(url)))
process.exit()
