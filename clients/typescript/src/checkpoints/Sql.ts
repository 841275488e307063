/** What the checkpoints in SQL databases share: the tables, their versions, and the statements. */
import type { Checkpoint } from "../Checkpoint.ts"
import { OptionError } from "../Errors.ts"
import type { Position } from "../Position.ts"

/** Where the tables are. */
export interface Tables {
  /** The schema of a Postgres database; by default the first of the search path. */
  readonly schema?: string
  /** The beginning of the tables' names: `event_ingestor` by default. */
  readonly table?: string
}

type Row = Readonly<Record<string, unknown>>

/** A connection in a transaction. Parameters are `$1`, `$2`, … */
export interface Dialect<Tx> {
  readonly transaction: <A>(run: (tx: Tx) => Promise<A>) => Promise<A>
  readonly query: (tx: Tx, text: string, values: ReadonlyArray<unknown>) => Promise<ReadonlyArray<Row>>
}

/** What differs between the databases. */
interface Flavour {
  readonly integer: string
  readonly identity: string
  readonly now: string
  /** Locks the selected row until the transaction ends. */
  readonly lock: string
}

export const flavours = {
  postgres: {
    integer: "bigint",
    identity: "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    now: "timestamptz NOT NULL DEFAULT now()",
    lock: " FOR UPDATE",
  },
  // A transaction that begins IMMEDIATE has locked the file.
  sqlite: {
    integer: "INTEGER",
    identity: "INTEGER PRIMARY KEY AUTOINCREMENT",
    now: "TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP",
    lock: "",
  },
} as const satisfies Record<string, Flavour>

const quoted = (name: string) => {
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,50}$/.test(name)) {
    throw new OptionError(
      `${JSON.stringify(name)} is no name of a schema or table: letters, digits and _ only`,
    )
  }
  return `"${name}"`
}

const namesOf = ({ schema, table = "event_ingestor" }: Tables) => {
  const named = (suffix: string) =>
    `${schema === undefined ? "" : `${quoted(schema)}.`}${quoted(`${table}_${suffix}`)}`
  return {
    readers: named("readers"),
    blocks: named("blocks"),
    letters: named("dead_letters"),
    migrations: named("migrations"),
  }
}

/** The statements that create or change the tables, one array for each version. A version that was released never changes. */
const migrationsOf = (
  tables: Tables,
  { integer, identity, now }: Flavour,
): ReadonlyArray<ReadonlyArray<string>> => {
  const { readers, blocks, letters } = namesOf(tables)
  return [
    [
      `CREATE TABLE ${readers} (
  name     text NOT NULL,
  chain    ${integer} NOT NULL,
  position text NOT NULL,
  PRIMARY KEY (name, chain)
)`,
      `CREATE TABLE ${blocks} (
  name   text NOT NULL,
  chain  ${integer} NOT NULL,
  number ${integer} NOT NULL,
  data   text NOT NULL,
  PRIMARY KEY (name, chain, number)
)`,
      `CREATE TABLE ${letters} (
  id     ${identity},
  name   text NOT NULL,
  chain  ${integer} NOT NULL,
  kind   text NOT NULL,
  number ${integer} NOT NULL,
  hash   text NOT NULL,
  error  text NOT NULL,
  data   text NOT NULL,
  at     ${now}
)`,
    ],
  ]
}

const migrationTable = (tables: Tables, { integer }: Flavour) =>
  `CREATE TABLE IF NOT EXISTS ${namesOf(tables).migrations} (version ${integer} PRIMARY KEY)`

/** All statements, to run them beforehand: a user without the right to create tables then needs none. */
export const ddlOf = (tables: Tables, flavour: Flavour): string => {
  const { migrations } = namesOf(tables)
  const all = migrationsOf(tables, flavour).flatMap((statements, i) => [
    ...statements,
    `INSERT INTO ${migrations} (version) VALUES (${i + 1})`,
  ])
  return `${[migrationTable(tables, flavour), ...all].join(";\n")};\n`
}

/** Whether an error, or one that it wraps, says so: some libraries wrap the database's. */
const errorWith = (error: unknown, pattern: RegExp): boolean =>
  error instanceof Error && (pattern.test(error.message) || errorWith(error.cause, pattern))

/** A checkpoint in the tables of a database. */
export const sqlCheckpoint = <Tx>(
  { transaction, query }: Dialect<Tx>,
  tables: Tables,
  flavour: Flavour,
): Checkpoint<Tx> => {
  const { readers, blocks, letters, migrations } = namesOf(tables)
  const steps = migrationsOf(tables, flavour)

  const versionOf = async (tx: Tx) => {
    const [row] = await query(tx, `SELECT max(version) AS version FROM ${migrations}`, [])
    return Number(row?.["version"] ?? 0)
  }

  const migrate = async () => {
    // A user without the right to create tables needs none where they exist. (A failed query ends a transaction of Postgres.)
    const found = await transaction(versionOf).catch((error: unknown) => {
      if (errorWith(error, /no such table|does not exist/i)) return 0
      throw error
    })
    if (found === steps.length) return
    await transaction(async (tx) => {
      await query(tx, migrationTable(tables, flavour), [])
      // Two processes may begin at the same time.
      if (flavour.lock !== "") await query(tx, `LOCK TABLE ${migrations} IN EXCLUSIVE MODE`, [])
      const version = await versionOf(tx)
      if (version > steps.length) {
        throw new OptionError(
          `the tables have version ${version}, and this library knows ${steps.length}: install a later one`,
        )
      }
      for (const [i, statements] of steps.entries()) {
        if (i < version) continue
        for (const statement of statements) await query(tx, statement, [])
        await query(tx, `INSERT INTO ${migrations} (version) VALUES ($1)`, [i + 1])
      }
    })
  }

  let migrated: Promise<void> | undefined
  const ready = (): Promise<void> => {
    migrated ??= migrate().catch((error: unknown) => {
      migrated = undefined
      // The other one has created them meanwhile.
      if (errorWith(error, /already exists|duplicate key/i)) return ready()
      throw error
    })
    return migrated
  }

  return {
    atLeastOnce: false,

    transaction: async (run) => {
      await ready()
      return transaction(run)
    },

    load: async (tx, { name, chain }) => {
      const select = `SELECT position FROM ${readers} WHERE name = $1 AND chain = $2${flavour.lock}`
      const [row] = await query(tx, select, [name, chain])
      return row && (JSON.parse(String(row["position"])) as Position)
    },

    blocks: async (tx, { name, chain }) => {
      const select = `SELECT number, data FROM ${blocks} WHERE name = $1 AND chain = $2 ORDER BY number`
      const rows = await query(tx, select, [name, chain])
      return rows.map(({ number, data }) => ({ number: Number(number), data: String(data) }))
    },

    save: async (tx, { name, chain }, { position, remove, put }) => {
      await query(
        tx,
        `INSERT INTO ${readers} (name, chain, position) VALUES ($1, $2, $3)
         ON CONFLICT (name, chain) DO UPDATE SET position = excluded.position`,
        [name, chain, JSON.stringify(position)],
      )
      for (const number of remove) {
        await query(tx, `DELETE FROM ${blocks} WHERE name = $1 AND chain = $2 AND number = $3`, [
          name,
          chain,
          number,
        ])
      }
      for (const { number, data } of put) {
        await query(tx, `INSERT INTO ${blocks} (name, chain, number, data) VALUES ($1, $2, $3, $4)`, [
          name,
          chain,
          number,
          data,
        ])
      }
    },

    deadLetter: async (tx, { name, chain }, { kind, number, hash, error, data }) => {
      await query(
        tx,
        `INSERT INTO ${letters} (name, chain, kind, number, hash, error, data) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
        [name, chain, kind, number, hash, error, data],
      )
    },
  }
}
