/**
 * A store of which copies can be taken and brought back, as a backup or a replica that was behind is, with the ids, the epoch
 * and all else that it had then; and what a look past the service's code finds in it.
 */
import { Effect, Schema, Stream } from "effect"
import type { Scope } from "effect"
import type { Redis } from "ioredis"
import { randomUUID } from "node:crypto"
import { DatabaseSync } from "node:sqlite"
import { entryFields } from "../../src/Domain.ts"
import type { Entry } from "../../src/Domain.ts"
import type { CallLimits } from "../../src/store/Journal.ts"
import type { Stored } from "../../src/store/Entries.ts"
import type { Client } from "./ingestor.ts"
import { keeping, openSqlite } from "./ingestor.ts"

/** An entry as an ingestor or a reader remembers it. */
export interface Remembered {
  readonly id: string
  /** Which log of which block it is, and whether it is a removal. */
  readonly log: string
}

export interface Epoch {
  readonly token: string
  readonly reason: string
}

export interface Copy {
  readonly bringBack: Effect.Effect<void>
  /** It is not needed any more. */
  readonly discard: Effect.Effect<void>
}

export interface Copied {
  readonly store: Client
  /** A connection to the store of another process. */
  readonly open: Effect.Effect<Client, unknown, Scope.Scope>
  /** A copy of all that is stored now. */
  readonly copy: Effect.Effect<Copy>
  /** Nothing is left, as in a store that was never used. */
  readonly wipe: Effect.Effect<void>
  readonly epoch: Effect.Effect<Epoch | undefined>
  readonly last: Effect.Effect<Remembered | undefined>
  /** The entries that are missing although they were not trimmed: only the oldest are ever trimmed. */
  readonly lacks: (entries: ReadonlyArray<Remembered>) => Effect.Effect<ReadonlyArray<Remembered>>
  /** The store as if nothing had been trimmed, for a reader of the whole stream. */
  readonly untrimmed: Client
}

const logOf = ({ block_hash, log_index, removed }: Record<string, unknown>) =>
  `${String(block_hash)}:${String(log_index)}:${removed === 1 || removed === "true" ? "removed" : "added"}`

const tables = [
  "events",
  "heads",
  "journals",
  "epochs",
  "filters",
  "readers",
  "missed",
  "heartbeats",
  "writers",
  "window",
]

interface Column {
  readonly name: string
  readonly pk: number
}

/**
 * Writes down with each change what takes it back (https://www.sqlite.org/undoredo.html): a copy is then a place in that list,
 * however much is stored.
 */
const writeDown = (database: DatabaseSync) => {
  database.exec("CREATE TABLE undo (seq INTEGER PRIMARY KEY, sql TEXT NOT NULL)")
  database.exec("CREATE TABLE trimmed AS SELECT * FROM events")
  database.exec("CREATE UNIQUE INDEX trimmed_id ON trimmed (id)")
  database.exec(
    "CREATE TRIGGER trimmed AFTER DELETE ON events BEGIN DELETE FROM trimmed WHERE id = old.id; INSERT INTO trimmed SELECT " +
      (database.prepare("PRAGMA table_info(events)").all() as unknown as ReadonlyArray<Column>)
        .map(({ name }) => `old."${name}"`)
        .join() +
      "; END",
  )
  for (const table of tables) {
    const columns = database.prepare(`PRAGMA table_info(${table})`).all() as unknown as ReadonlyArray<Column>
    const keys = columns.filter(({ pk }) => pk > 0).map(({ name }) => `"${name}"`)
    const remove = `'DELETE FROM ${table} WHERE ' || ${keys.map((key) => `'${key} = ' || quote(new.${key})`).join(" || ' AND ' || ")}`
    const restore = (of: string) =>
      `'INSERT OR REPLACE INTO ${table} VALUES (' || ${columns.map(({ name }) => `quote(${of}"${name}")`).join(" || ',' || ")} || ')'`
    const same = keys.map((key) => `${key} = new.${key}`).join(" AND ")
    database.exec(`
      CREATE TRIGGER ${table}_replaced BEFORE INSERT ON ${table}
        BEGIN INSERT INTO undo (sql) SELECT ${restore("")} FROM ${table} WHERE ${same}; END;
      CREATE TRIGGER ${table}_added AFTER INSERT ON ${table} BEGIN INSERT INTO undo (sql) VALUES (${remove}); END;
      CREATE TRIGGER ${table}_changed AFTER UPDATE ON ${table}
        BEGIN INSERT INTO undo (sql) VALUES (${restore("old.")}); INSERT INTO undo (sql) VALUES (${remove}); END;
      CREATE TRIGGER ${table}_removed AFTER DELETE ON ${table} BEGIN INSERT INTO undo (sql) VALUES (${restore("old.")}); END;`)
  }
}

/** A store in memory. @param maxLength how many entries are kept (0: all) */
export const memory = Effect.fnUntraced(function* (maxLength: number, limits: CallLimits) {
  const path = `file:${randomUUID()}?mode=memory&cache=shared`
  const database = yield* Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(path)),
    (database) => Effect.sync(() => database.close()),
  )
  const store = yield* openSqlite(path, keeping(maxLength), limits)
  writeDown(database)

  const prepared = {
    sequence: database.prepare("SELECT name, seq FROM sqlite_sequence"),
    place: database.prepare("SELECT coalesce(max(seq), 0) AS seq FROM undo"),
    undo: database.prepare("SELECT sql FROM undo WHERE seq > ? ORDER BY seq DESC"),
    forget: database.prepare("DELETE FROM undo WHERE seq > ?"),
    setSequence: database.prepare("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)"),
    forgetTrimmed: database.prepare(
      "DELETE FROM trimmed WHERE id > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events')",
    ),
    epoch: database.prepare("SELECT epoch, epoch_reason FROM journals"),
    last: database.prepare("SELECT * FROM events ORDER BY id DESC LIMIT 1"),
    first: database.prepare("SELECT min(id) AS id FROM events"),
    at: database.prepare("SELECT * FROM events WHERE id = ?"),
    read: database.prepare(
      `SELECT * FROM trimmed WHERE id > ? AND id < (SELECT min(id) FROM events)
       UNION ALL SELECT * FROM events WHERE id > ? ORDER BY id`,
    ),
  }
  const numbers = prepared.sequence
  const copy = () => {
    const sequence = numbers.all() as unknown as ReadonlyArray<{
      readonly name: string
      readonly seq: number
    }>
    const { seq } = prepared.place.get() as { readonly seq: number }
    const bringBack = Effect.sync(() => {
      database.exec("BEGIN IMMEDIATE")
      for (const { sql } of prepared.undo.all(seq)) database.exec(String(sql))
      prepared.forget.run(seq)
      database.exec("DELETE FROM sqlite_sequence")
      for (const { name, seq } of sequence) prepared.setSequence.run(name, seq)
      prepared.forgetTrimmed.run()
      database.exec("COMMIT")
    })
    return { bringBack, discard: Effect.void }
  }
  const fresh = copy()
  const entryOf = (row: Record<string, unknown>): Stored => {
    const fields = entryFields.map((field) => [field, field === "removed" ? row[field] === 1 : row[field]])
    const entry = Object.fromEntries(
      fields.flatMap(([field, value]) =>
        value === null || value === undefined ? [] : [[field, String(value)]],
      ),
    ) as Entry
    return { id: String(row["id"]), entry }
  }
  return {
    store,
    open: openSqlite(path, keeping(maxLength), limits),
    copy: Effect.sync(copy),
    wipe: fresh.bringBack,
    epoch: Effect.sync(() => {
      const row = prepared.epoch.get()
      return row && { token: String(row["epoch"]), reason: String(row["epoch_reason"]) }
    }),
    last: Effect.sync(() => {
      const row = prepared.last.get()
      return row && { id: String(row["id"]), log: logOf(row) }
    }),
    lacks: (entries) =>
      Effect.sync(() => {
        const first = Number(prepared.first.get()?.["id"] ?? 0)
        return entries.filter(({ id, log }) => {
          const row = prepared.at.get(Number(id))
          return row === undefined ? Number(id) >= first : logOf(row) !== log
        })
      }),
    untrimmed: {
      ...store,
      after: (_chain, after = "0") =>
        Stream.suspend(() => Stream.fromArray(prepared.read.all(Number(after), Number(after)).map(entryOf))),
    },
  } satisfies Copied as Copied
})

/** The place of an id of Redis among others. */
const placeOf = (id: string) => {
  const [millis, serial] = id.split("-")
  return [Number(millis), Number(serial)] as const
}

const isBefore = (a: string, b: string) => {
  const [[millis, serial], [others, other]] = [placeOf(a), placeOf(b)]
  return millis < others || (millis === others && serial < other)
}

const Entries = Schema.decodeUnknownSync(
  Schema.Array(Schema.Tuple([Schema.String, Schema.Array(Schema.String)])),
)

const entriesOf = (reply: unknown) =>
  Entries(reply).map(([id, fields]) => {
    const named: Record<string, string> = {}
    for (let i = 0; i < fields.length; i += 2) named[fields[i]!] = fields[i + 1]!
    return { id, log: logOf(named) }
  })

/** A store in Redis that trims nothing. @param client connected to its server */
export const redis = (store: Client, client: Redis, stream: string): Copied => {
  const keys = [stream, ...["head", "window", "missed", "filters"].map((part) => `{${stream}}:${part}`)]
  let copies = 0
  return {
    store,
    open: Effect.succeed(store),
    copy: Effect.promise(async () => {
      const number = ++copies
      const nameOf = (key: string) => `{${stream}}:copy:${number}:${key}`
      const taken = client.multi()
      for (const key of keys) taken.call("COPY", key, nameOf(key))
      await taken.exec()
      return {
        bringBack: Effect.promise(async () => {
          const back = client.multi().del(...keys)
          for (const key of keys) back.call("COPY", nameOf(key), key)
          await back.exec()
        }),
        discard: Effect.promise(() => client.del(...keys.map(nameOf))),
      }
    }),
    wipe: Effect.promise(() => client.del(...keys)),
    epoch: Effect.promise(async () => {
      const [token, reason] = await client.hmget(`{${stream}}:head`, "epoch", "epoch_reason")
      return typeof token === "string" ? { token, reason: String(reason) } : undefined
    }),
    last: Effect.promise(async () => entriesOf(await client.xrevrange(stream, "+", "-", "COUNT", 1))[0]),
    lacks: (entries) =>
      Effect.promise(async () => {
        const all = client.pipeline().xrange(stream, "-", "+", "COUNT", 1)
        for (const { id } of entries) all.xrange(stream, id, id)
        const [oldest, ...found] = ((await all.exec()) ?? []).map(([, reply]) => entriesOf(reply))
        const first = oldest?.[0]
        return entries.filter(({ id, log }, i) => {
          const same = found[i]?.[0]
          return same === undefined ? first === undefined || !isBefore(id, first.id) : same.log !== log
        })
      }),
    untrimmed: store,
  }
}
