/** The tables of the property test, and the processes that fill them. */
import { assert } from "@effect/vitest"
import { DatabaseSync } from "node:sqlite"
import { changesFrom } from "../../clients/typescript/src/Changes.ts"
import type { Change } from "../../clients/typescript/src/Changes.ts"
import { memory } from "../../clients/typescript/src/checkpoints/Memory.ts"
import { sqlite } from "../../clients/typescript/src/checkpoints/Sqlite.ts"
import type { SqliteDatabase } from "../../clients/typescript/src/checkpoints/Sqlite.ts"
import type { Checkpoint } from "../../clients/typescript/src/Checkpoint.ts"
import type { OpenSource } from "../../clients/typescript/src/Consumer.ts"
import type { RawBlock } from "../../clients/typescript/src/Entry.ts"
import { ConsumerError } from "../../clients/typescript/src/Errors.ts"
import { followFrom } from "../../clients/typescript/src/Follow.ts"
import type { CommonOptions } from "../../clients/typescript/src/Options.ts"
import type { Dice } from "./JournalModel.ts"

/** The table of a consumer: the keys of the logs of each block, by hash. */
export interface Table {
  readonly checkpoint: (isAlive: () => boolean) => Checkpoint<never>
  readonly apply: (block: RawBlock) => void
  readonly undo: (block: RawBlock) => void
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
    checkpoint: (isAlive) => {
      const connection: SqliteDatabase = {
        exec: (sql) => {
          if (!isAlive()) throw new Error("this process has ended")
          return database.exec(sql)
        },
        prepare: (sql) => database.prepare(sql) as never,
      }
      return sqlite(connection) as unknown as Checkpoint<never>
    },
    apply: (block) => {
      for (const key of keysOf(block)) insert.run(key)
    },
    undo: (block) => {
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
    apply: (block) => {
      for (const key of keysOf(block)) rows.add(key)
    },
    undo: (block) => {
      for (const key of keysOf(block)) rows.delete(key)
    },
    rows: () => [...rows].sort(),
    crashed: () => {},
  }
}

export const tables = { "exactly once": sqliteTable, "at least once": separateTable }

/** A process that fills a table until its signal aborts. */
export interface Process {
  readonly table: Table
  readonly dice: Dice
  readonly open: OpenSource
  readonly options: CommonOptions<never, never>
  /** Things happen, and the process may end here. */
  readonly interrupt: () => Promise<void>
  /** It waits for a change that may never come. */
  readonly waits: () => void
  /** Whether it waits for one inside of a transaction. @returns resolves when there may be none */
  readonly quiet: (isOpen: boolean) => Promise<void> | undefined
}

const write = ({ table, options }: Process, type: "apply" | "undo", block: RawBlock) => {
  if (options.finality === "finalized") assert.isTrue(type === "apply" && block.finalized)
  table[type](block)
}

/** By `follow`. */
const follows = (process: Process): Promise<void> => {
  const { dice, open, options, interrupt } = process
  const handler =
    (type: "apply" | "undo") =>
    async ({ block }: { readonly block: RawBlock }) => {
      write(process, type, block)
      await interrupt()
    }
  return followFrom(open, {
    ...options,
    batch: { blocks: 1 + dice.below(5), wait: 0 },
    apply: handler("apply"),
    undo: handler("undo"),
  })
}

class Abandoned extends Error {}

const codeOf = async (run: Promise<unknown>): Promise<string> => {
  try {
    await run
    return ""
  } catch (error) {
    if (error instanceof ConsumerError) return error.code
    throw error
  }
}

type Changes = AsyncIterator<Change<never, never>, void>

/** By `changes`, in transactions of its own of one block or several, some of which it rolls back. */
const transacts = async (process: Process, iterator: Changes): Promise<void> => {
  const { dice, options, interrupt, waits, quiet } = process
  let pending: ReturnType<Changes["next"]> | undefined
  /** The next change; `undefined` at the end. */
  const take = async () => {
    pending ??= iterator.next()
    const { value } = await pending
    pending = undefined
    return value as Change<never, never> | undefined
  }
  const commit = async ({ type, block, commit }: Change<never, never>, tx: never) => {
    write(process, type, block)
    await interrupt()
    await commit(tx)
  }
  for (let change = await take(); change !== undefined; change = await take()) {
    const first = change
    const more = dice.chance(0.2) ? dice.below(4) : 0
    const isAbandoned = dice.chance(0.05)
    const alone = () => options.checkpoint.transaction((tx) => commit(first, tx))
    const several = async (tx: never) => {
      const isQuiet = quiet(true)!.then(() => undefined)
      await commit(first, tx)
      for (let i = 0; i < more; i++) {
        const later = await Promise.race([take(), isQuiet])
        if (later === undefined) break
        await commit(later, tx)
      }
      if (isAbandoned) throw new Abandoned()
    }
    try {
      await options.checkpoint.transaction(several).finally(() => quiet(false))
      // A caller that has lost the reply repeats it.
      const again = () => options.checkpoint.transaction((tx) => first.commit(tx))
      if (dice.chance(0.1)) {
        const code = await codeOf(again())
        // It may have ended meanwhile, as it was asked for a change already.
        assert.include(options.signal!.aborted ? ["COMMITTED", "CLOSED"] : ["COMMITTED"], code)
      }
    } catch (error) {
      if (!(error instanceof Abandoned)) throw error
      if (more === 0 && dice.chance(0.5)) {
        await alone()
        continue
      }
      waits()
      const later = await take()
      if (later !== undefined) assert.strictEqual(await codeOf(later.commit()), "ROLLED_BACK")
      return
    }
    if (dice.chance(0.01)) return
  }
}

/** By `changes`, at least once, with commits that come late, or out of order, or never. */
const calls = async (process: Process, iterator: Changes): Promise<void> => {
  const { dice, interrupt } = process
  const uncommitted: Array<Change<never, never>> = []
  const next = async () => {
    try {
      return await iterator.next()
    } catch (error) {
      if (!(error instanceof ConsumerError) || error.code !== "UNCOMMITTED") throw error
      assert.isNotEmpty(uncommitted)
      return { value: undefined }
    }
  }
  for (let { value } = await next(); value !== undefined; { value } = await next()) {
    write(process, value.type, value.block)
    await interrupt()
    uncommitted.push(value)
    if (dice.chance(0.8)) {
      // Mostly the last one.
      const i = dice.chance(0.6) ? uncommitted.length - 1 : dice.below(uncommitted.length)
      await uncommitted[i]!.commit()
      if (dice.chance(0.1)) await uncommitted[dice.below(i + 1)]!.commit()
      uncommitted.splice(0, i + 1)
    }
    // Sometimes the caller leaves.
    if (dice.chance(0.01)) return
  }
}

const iterates = async (process: Process): Promise<void> => {
  const { open, options } = process
  const iterator = changesFrom<never, never>(open, options)[Symbol.asyncIterator]()
  await (options.checkpoint.atLeastOnce ? calls : transacts)(process, iterator)
  await iterator.return!()
}

export const readers = { follow: follows, changes: iterates }
