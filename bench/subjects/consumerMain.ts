/**
 * A consumer of a stream: `ours` is the consumer library, `bare` the shortest loop that reads and parses the same entries. Both write
 * the same rows, with the position in the same transaction. `node consumerMain.ts <order as JSON>`
 *
 * It reports `Began` with the first block, and `Done` after the last one is committed.
 */
import type { Abi } from "abitype"
import { Redis } from "ioredis"
import { DatabaseSync } from "node:sqlite"
import { Pool } from "pg"
import { follow, memory, postgres, sqlite } from "../../clients/typescript/src/index.ts"
import type { Block, Checkpoint, Log, Position } from "../../clients/typescript/src/index.ts"
import type { Contents } from "../chain.ts"
import { now } from "../child.ts"

/** Where the logs go: nowhere, with a position in memory, or into a table of a database. */
export type Target = "no-op" | "SQLite" | "Postgres"

export interface ConsumerOrder {
  readonly reader: "bare" | "ours"
  readonly target: Target
  readonly redisPort: number
  readonly chain: number
  /** It ends after so many logs. */
  readonly logs: number
  /** The path or the URL of the database. */
  readonly database: string
  /** Whether to report when the handler of each block was entered. */
  readonly timed: boolean
}

export interface ConsumerReport {
  readonly _tag: "Done"
  /** From the first connection to the last commit. */
  readonly milliseconds: number
  /** Microseconds of CPU, of all threads. */
  readonly cpu: number
  /** Peak resident memory in MB. */
  readonly peak: number
  /** The logs that are in the database, or that the handler got. */
  readonly contents: Contents
  /** When the handler of each block was entered, on the clock of `now`. */
  readonly entered: ReadonlyArray<number>
}

export type ConsumerNews = { readonly _tag: "Began" } | ConsumerReport

type Row = Pick<Log, "blockNumber" | "index" | "contract" | "data">

interface Sink<Tx> {
  readonly checkpoint: Checkpoint<Tx>
  readonly write: (tx: Tx, rows: ReadonlyArray<Row>) => unknown
  /** Whether a call for all blocks of a transaction is what a user of this database would write. */
  readonly isBatched: boolean
  readonly contents: () => Contents | Promise<Contents>
}

const table = "CREATE TABLE logs (block bigint, log int, contract text, data text, PRIMARY KEY (block, log))"
const contentsQuery = "SELECT count(*) AS count, coalesce(sum(block + log), 0) AS checksum FROM logs"
const contentsOf = (row: unknown): Contents => {
  const { count, checksum } = row as Record<keyof Contents, number | string>
  return { count: Number(count), checksum: Number(checksum) }
}

const nowhere = (): Sink<undefined> => {
  const contents = { count: 0, checksum: 0 }
  return {
    checkpoint: memory(),
    isBatched: false,
    write: (_, rows) => {
      contents.count += rows.length
      for (const { blockNumber, index } of rows) contents.checksum += blockNumber + index
    },
    contents: () => contents,
  }
}

const intoSqlite = (path: string): Sink<DatabaseSync> => {
  const database = new DatabaseSync(path)
  database.exec(`PRAGMA journal_mode = WAL; ${table}`)
  const insert = database.prepare("INSERT INTO logs VALUES (?, ?, ?, ?)")
  return {
    checkpoint: sqlite(database),
    isBatched: false,
    write: (_, rows) => {
      for (const { blockNumber, index, contract, data } of rows)
        insert.run(blockNumber, index, contract, data)
    },
    contents: () => contentsOf(database.prepare(contentsQuery).get()),
  }
}

const intoPostgres = async (url: string) => {
  const pool = new Pool({ connectionString: url, options: "-c search_path=bench" })
  await pool.query(`DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench; ${table}`)
  const insert = "INSERT INTO logs SELECT * FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[])"
  const checkpoint = postgres(pool)
  return {
    checkpoint,
    isBatched: true,
    write: (tx, rows) =>
      tx.query(insert, [
        rows.map(({ blockNumber }) => blockNumber),
        rows.map(({ index }) => index),
        rows.map(({ contract }) => contract),
        rows.map(({ data }) => data),
      ]),
    contents: async () => {
      const { rows } = await pool.query(contentsQuery)
      await pool.end()
      return contentsOf(rows[0])
    },
  } satisfies Sink<Parameters<Parameters<(typeof checkpoint)["transaction"]>[0]>[0]>
}

const order = JSON.parse(process.argv[2]!) as ConsumerOrder
const { reader, target, redisPort, chain, database } = order
const report = (news: ConsumerNews) => process.send!(news)
const entered: Array<number> = []
let blocks = 0
let logs = 0

/** A handler begins with this block. @returns whether it is the last one */
const enter = (count: number): boolean => {
  if (order.timed) entered.push(now())
  if (blocks++ === 0) report({ _tag: "Began" })
  logs += count
  return logs >= order.logs
}

const ours = async <Tx>({ checkpoint, write, isBatched }: Sink<Tx>) => {
  const done = new AbortController()
  const handle = (tx: Tx, all: ReadonlyArray<Block>) => {
    for (const block of all) if (enter(block.logs.length)) done.abort()
    return write(tx, all.length === 1 ? all[0]!.logs : all.flatMap(({ logs }) => logs)) as Promise<void>
  }
  await follow<Abi, Tx>({
    redis: `redis://127.0.0.1:${redisPort}`,
    chain,
    name: "bench",
    from: "earliest",
    finality: "latest",
    checkpoint,
    signal: done.signal,
    undo: () => {
      throw new Error("no block is replaced")
    },
    ...(isBatched
      ? { applyMany: ({ tx, blocks }) => handle(tx, blocks) }
      : { apply: ({ tx, block }) => handle(tx, [block]) }),
  })
}

type Reply = ReadonlyArray<
  readonly [key: string, ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>]
>

const rowOf = (fields: ReadonlyArray<string>) => {
  const entry: Record<string, string> = {}
  for (let i = 0; i < fields.length; i += 2) entry[fields[i]!] = fields[i + 1]!
  return {
    blockNumber: Number(entry["block_number"]),
    index: Number(entry["log_index"]),
    contract: entry["contract"] as Log["contract"],
    topics: JSON.parse(entry["topics"]!) as unknown,
    data: entry["data"] as Log["data"],
  }
}

/** Pages of the stream, each in a transaction. It would read half a block, and it knows of no reorg and no lost entry. */
const bare = async <Tx>({ checkpoint, write }: Sink<Tx>) => {
  const redis = new Redis({ port: redisPort })
  let top = -1
  for (let id = "0-0"; logs < order.logs;) {
    const reply = await redis.xread("COUNT", 1000, "BLOCK", 0, "STREAMS", `events:${chain}`, id)
    const [, entries] = (reply as Reply)[0]!
    const rows = entries.map(([, fields]) => rowOf(fields))
    for (const { blockNumber } of rows) {
      if (blockNumber === top) continue
      top = blockNumber
      enter(0)
    }
    logs += rows.length
    id = entries.at(-1)![0]
    await checkpoint.transaction(async (tx) => {
      await write(tx, rows)
      await checkpoint.save(
        tx,
        { name: "bench", chain },
        { position: { id } as Position, remove: [], put: [] },
      )
    })
  }
  redis.disconnect()
}

const consume = async <Tx>(sink: Sink<Tx>) => {
  const [began, cpuBefore] = [now(), process.cpuUsage()]
  await (reader === "ours" ? ours(sink) : bare(sink))
  const { user, system } = process.cpuUsage(cpuBefore)
  const milliseconds = now() - began
  const peak = process.resourceUsage().maxRSS / 1024
  report({ _tag: "Done", milliseconds, cpu: user + system, peak, contents: await sink.contents(), entered })
}

if (target === "no-op") await consume(nowhere())
else if (target === "SQLite") await consume(intoSqlite(database))
else await consume(await intoPostgres(database))
