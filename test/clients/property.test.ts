/** Random journals, crashes, failovers and reorgs: a consumer's table equals the chain. */
import { assert, describe, it } from "@effect/vitest"
import { DatabaseSync } from "node:sqlite"
import { memory } from "../../clients/typescript/src/checkpoints/Memory.ts"
import { sqlite } from "../../clients/typescript/src/checkpoints/Sqlite.ts"
import type { SqliteDatabase } from "../../clients/typescript/src/checkpoints/Sqlite.ts"
import type { Checkpoint } from "../../clients/typescript/src/Checkpoint.ts"
import { followFrom } from "../../clients/typescript/src/Follow.ts"
import type { Finality } from "../../clients/typescript/src/Plan.ts"
import type { RawBlock } from "../../clients/typescript/src/Entry.ts"
import { Dice, JournalModel, contracts } from "./JournalModel.ts"

/** The table of a consumer: the keys of the logs of each block, by hash. */
interface Table {
  readonly checkpoint: () => Checkpoint<never>
  readonly apply: (tx: never, block: RawBlock) => void
  readonly undo: (tx: never, block: RawBlock) => void
  readonly rows: () => ReadonlyArray<string>
  /** The process that held a transaction has ended. */
  readonly crashed: () => void
}

const keysOf = ({ logs }: RawBlock) => logs.map(({ key }) => key)

/** A table and a checkpoint in one database: a block that is applied twice, or retracted without being there, fails. */
const sqliteTable = (): Table => {
  const database = new DatabaseSync(":memory:")
  database.exec("CREATE TABLE logs (key TEXT PRIMARY KEY)")
  const insert = database.prepare("INSERT INTO logs VALUES (?)")
  const remove = database.prepare("DELETE FROM logs WHERE key = ?")
  return {
    // A connection of each process of its own.
    checkpoint: () => {
      const connection: SqliteDatabase = {
        exec: (sql) => database.exec(sql),
        prepare: (sql) => database.prepare(sql) as never,
      }
      return sqlite(connection) as unknown as Checkpoint<never>
    },
    apply: (_, block) => {
      for (const key of keysOf(block)) insert.run(key)
    },
    undo: (_, block) => {
      for (const key of keysOf(block)) assert.strictEqual(remove.run(key).changes, 1, `${key} was not there`)
    },
    rows: () =>
      database
        .prepare("SELECT key FROM logs ORDER BY key")
        .all()
        .map(({ key }) => String(key)),
    crashed: () => {
      if (database.isTransaction) database.exec("ROLLBACK")
    },
  }
}

/** A table that is no part of the checkpoint's transaction. */
const separateTable = (): Table => {
  const checkpoint = memory()
  const rows = new Set<string>()
  return {
    checkpoint: () => checkpoint as unknown as Checkpoint<never>,
    apply: (_, block) => {
      for (const key of keysOf(block)) rows.add(key)
    },
    undo: (_, block) => {
      for (const key of keysOf(block)) rows.delete(key)
    },
    rows: () => [...rows].sort(),
    crashed: () => {},
  }
}

const tables = { "exactly once": sqliteTable, "at least once": separateTable }

/** More looks than any journal needs to be read to its end. */
const mostLooks = 2000

const never = new Promise<never>(() => {})

interface Case {
  readonly table: () => Table
  readonly finality: Finality
  readonly seed: number
}

const expected = (model: JournalModel, finality: Finality, wanted: ReadonlyArray<string>) => {
  const limit =
    finality === "latest"
      ? Infinity
      : finality === "finalized"
        ? model.finalNumber
        : model.chain.length - finality
  return model.chain
    .filter(({ number }) => number <= limit)
    .flatMap(({ hash, logs }) =>
      logs.flatMap((contract, i) => (wanted.includes(contract) ? [`1:${hash}:${i}`] : [])),
    )
    .sort()
}

const play = async ({ table: makeTable, finality, seed }: Case) => {
  const dice = new Dice(seed)
  const model = new JournalModel(dice)
  const table = makeTable()
  const wanted = dice.chance(0.5) ? contracts : [contracts[dice.below(contracts.length)]!]
  const isSlow = dice.chance(0.3)
  let steps = 50 + dice.below(200)
  let crashes = dice.below(4)
  let looks = 0
  let stop = new AbortController()
  let died: (() => void) | undefined
  let process = 0

  const isDone = () => {
    if (steps > 0 || !model.isComplete) return false
    return JSON.stringify(table.rows()) === JSON.stringify(expected(model, finality, wanted))
  }

  /** Things happen at any await, and the process may end there. */
  const interrupt = async (mine: number) => {
    if (mine !== process) return never
    if (++looks > mostLooks) stop.abort()
    if (steps > 0) {
      if (!isSlow || dice.chance(0.2)) {
        for (let i = dice.below(3); i > 0; i--, steps--) model.step()
      }
    } else model.ingest()
    if (crashes > 0 && dice.chance(0.02)) {
      crashes--
      died!()
      return never
    }
    if (isDone()) stop.abort()
    return undefined
  }

  /** A checkpoint whose every call may be the last one. */
  const interrupted = (checkpoint: Checkpoint<never>, mine: number): Checkpoint<never> => ({
    ...checkpoint,
    load: async (...args) => {
      await interrupt(mine)
      return checkpoint.load(...args)
    },
    save: async (...args) => {
      await interrupt(mine)
      await checkpoint.save(...args)
      await interrupt(mine)
    },
  })

  const problems: Array<unknown> = []
  const isOver = () => isDone() || looks > mostLooks || problems.length > 0
  while (!isOver()) {
    const mine = ++process
    stop = new AbortController()
    const { signal } = stop
    const death = new Promise<void>((resolve) => (died = resolve))
    const { source } = model
    model.before = async () => {}
    const guarded = Object.fromEntries(
      Object.entries(source).map(([name, value]) => [
        name,
        typeof value === "function" && name !== "compare" && name !== "close"
          ? async (...args: Array<never>) => {
              await interrupt(mine)
              return (value as (...args: Array<never>) => unknown)(...args)
            }
          : value,
      ]),
    ) as typeof source
    const following = followFrom(() => guarded, {
      sqlite: "model",
      chain: 1,
      name: "table",
      from: "earliest",
      addresses: wanted.length === contracts.length ? [] : wanted,
      finality,
      checkpoint: interrupted(table.checkpoint(), mine),
      batch: { blocks: 1 + dice.below(5), wait: 0 },
      lease: 0,
      signal,
      onWarning: (warning) => {
        problems.push(warning)
        stop.abort()
      },
      apply: async ({ tx, block }) => {
        if (finality === "finalized") assert.isTrue(block.finalized)
        table.apply(tx, block)
        await interrupt(mine)
      },
      undo: async ({ tx, block }) => {
        assert.notStrictEqual(finality, "finalized")
        table.undo(tx, block)
        await interrupt(mine)
      },
    }).catch((error: unknown) => void problems.push(error))
    await Promise.race([following, death])
    process++
    table.crashed()
  }
  if (problems.length > 0) throw problems[0]
  assert.deepStrictEqual(table.rows(), expected(model, finality, wanted))
}

/** How many random journals are read in each of the ways. More: `CONSUMER_SEEDS=10000`. */
const seeds = Number(process.env["CONSUMER_SEEDS"] ?? 170)
const first = Number(process.env["CONSUMER_FIRST"] ?? 1)

describe("a consumer's table equals the canonical chain, whatever the stream, its store and its own process do", () => {
  for (const [name, table] of Object.entries(tables)) {
    for (const finality of ["latest", "finalized", 3] as const) {
      it(`${name}, finality ${finality}`, async () => {
        for (let seed = first; seed < first + seeds; seed++) {
          try {
            await play({ table, finality, seed })
          } catch (error) {
            throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
          }
        }
      }, 600_000)
    }
  }
})
