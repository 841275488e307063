/** The checkpoints of examples/checkpoints on a real Postgres, with what they use of each library made of `pg`; and the one in Redis. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Pool } from "pg"
import type { PoolClient } from "pg"
import { drizzle } from "../../examples/checkpoints/drizzle.ts"
import { kysely } from "../../examples/checkpoints/kysely.ts"
import { postgresJs } from "../../examples/checkpoints/postgresJs.ts"
import { prisma } from "../../examples/checkpoints/prisma.ts"
import { isSerializationFailure } from "../../clients/typescript/src/Checkpoint.ts"
import type { Checkpoint } from "../../clients/typescript/src/Checkpoint.ts"
import { postgres, redis } from "../../clients/typescript/src/index.ts"
import * as RedisServer from "../support/RedisServer.ts"
import * as PostgresServer from "../support/PostgresServer.ts"

const runIn = async <A>(pool: Pool, run: (client: PoolClient) => Promise<A>): Promise<A> => {
  const client = await pool.connect()
  try {
    await client.query("BEGIN")
    const result = await run(client)
    await client.query("COMMIT")
    return result
  } catch (error) {
    await client.query("ROLLBACK")
    throw error
  } finally {
    client.release()
  }
}

interface Query {
  readonly text: string
  readonly values: Array<unknown>
}

/** Drizzle's `sql`: fragments that are joined, whose parameters are numbered at the end. */
interface Fragment {
  readonly texts: ReadonlyArray<string>
  readonly values: ReadonlyArray<unknown>
}

const sql = Object.assign(
  (parts: TemplateStringsArray, ...values: Array<unknown>): Fragment => ({ texts: [...parts], values }),
  {
    raw: (text: string): Fragment => ({ texts: [text], values: [] }),
    join: (parts: Array<Fragment>): Fragment =>
      parts.reduce((all, { texts: [first = "", ...rest], values }) => ({
        texts: [...all.texts.slice(0, -1), `${all.texts.at(-1)}${first}`, ...rest],
        values: [...all.values, ...values],
      })),
  },
)

const checkpoints: Record<string, (pool: Pool) => Checkpoint<unknown>> = {
  "postgres.js": (pool) => {
    const begin = (...args: ReadonlyArray<unknown>) => {
      const run = args.at(-1) as (tx: {
        unsafe: (text: string, values: Array<never>) => Promise<Array<Record<string, unknown>>>
      }) => Promise<unknown>
      return runIn(pool, (client) =>
        run({ unsafe: async (text, values) => (await client.query(text, values)).rows }),
      )
    }
    return postgres(postgresJs({ begin }), { table: "postgres_js" }) as Checkpoint<unknown>
  },
  Drizzle: (pool) => {
    const execute =
      (client: PoolClient) =>
      async ({ texts, values }: Fragment) => {
        const text = texts.reduce((all, one, i) => `${all}$${i}${one}`)
        try {
          return await client.query(text, [...values])
        } catch (cause) {
          throw new Error(`Failed query: ${text}`, { cause })
        }
      }
    const db = {
      transaction: <A>(run: (tx: { execute: ReturnType<typeof execute> }) => Promise<A>) =>
        runIn(pool, (client) => run({ execute: execute(client) })),
    }
    return postgres(drizzle(db, sql), { table: "drizzle" }) as Checkpoint<unknown>
  },
  Kysely: (pool) => {
    interface Tx {
      executeQuery(query: Query): Promise<{ readonly rows: Array<unknown> }>
    }
    const execute = <A>(run: (tx: Tx) => Promise<A>) =>
      runIn(pool, (client) => run({ executeQuery: ({ text, values }) => client.query(text, values) }))
    const db = { transaction: () => ({ execute }) }
    return postgres(
      kysely(db, (text, values): Query => ({ text, values })),
      { table: "kysely" },
    ) as Checkpoint<unknown>
  },
  Prisma: (pool) => {
    interface Tx {
      $queryRawUnsafe(text: string, ...values: Array<unknown>): Promise<unknown>
      $executeRawUnsafe(text: string, ...values: Array<unknown>): Promise<unknown>
    }
    const $transaction = <A>(run: (tx: Tx) => Promise<A>) =>
      runIn(pool, (client) =>
        run({
          $queryRawUnsafe: async (text, ...values) => (await client.query(text, values)).rows,
          $executeRawUnsafe: async (text, ...values) => (await client.query(text, values)).rowCount,
        }),
      )
    return postgres(prisma({ $transaction }), { table: "prisma" }) as Checkpoint<unknown>
  },
}

const position = {
  id: "1790000000000-7",
  identity: "0xaa:0:false",
  epoch: "e",
  offset: 8,
  final: 1,
  block: 2,
  filter: "none",
  owner: "me",
  beat: 1,
}

describe("a checkpoint by another library for Postgres", () => {
  it.live("creates its tables, and commits a state with its blocks, or none of it", () =>
    Effect.gen(function* () {
      const pool = new Pool({ connectionString: yield* PostgresServer.start })
      pool.on("error", () => {})
      yield* Effect.promise(async () => {
        for (const [name, make] of Object.entries(checkpoints)) {
          const { transaction, load, blocks, save, deadLetter } = make(pool)
          const reader = { name: "reader", chain: 1 }
          const put = [5, 6].map((number) => ({ number, data: `{"block":${number}}` }))
          await transaction(async (tx) => {
            assert.isUndefined(await load(tx, reader), name)
            await save(tx, reader, { position, remove: [], put })
            await deadLetter(tx, reader, { kind: "apply", number: 5, hash: "0x", error: "no", data: "{}" })
          })
          const failing = transaction(async (tx) => {
            await save(tx, reader, { position: { ...position, beat: 2 }, remove: [5], put: [] })
            throw new Error("no")
          })
          assert.strictEqual(await failing.catch(({ message }: Error) => message), "no", name)
          await transaction(async (tx) => {
            assert.deepStrictEqual(await load(tx, reader), position, name)
            assert.deepStrictEqual(await blocks(tx, reader), put, name)
          })
        }
      })
      yield* Effect.promise(() => pool.end())
    }),
  )

  it("is repeated after a serialization failure, whatever error wraps it", () => {
    const failure = Object.assign(new Error("could not serialize access"), { code: "40001" })
    const repeated = [
      failure,
      new Error("Failed query", { cause: failure }),
      { code: "P2034" },
      { code: "P2010", meta: { code: "40P01" } },
    ]
    assert.deepStrictEqual(repeated.map(isSerializationFailure), [true, true, true, true])
    assert.isFalse(isSerializationFailure({ code: "P2010", meta: { code: "42P01" } }))
  })
})

describe("a checkpoint in Redis", () => {
  it.live(
    "refuses a process that was suspended between loading and saving, and keeps what another one has saved",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        yield* Effect.promise(async () => {
          const [one, other] = [redis(server.client), redis(server.client)]
          const reader = { name: "reader", chain: 1 }
          const put = [5, 6].map((number) => ({ number, data: `{"block":${number}}` }))
          assert.isUndefined(await one.load(undefined, reader))
          await one.save(undefined, reader, { position, remove: [], put })
          assert.deepStrictEqual(await one.load(undefined, reader), position)
          const taken = { ...position, owner: "other", beat: 2 }
          await other.load(undefined, reader)
          await other.save(undefined, reader, { position: taken, remove: [6], put: [] })
          const late = one.save(undefined, reader, {
            position,
            remove: [5],
            put: [{ number: 7, data: "{}" }],
          })
          assert.match(String(await late.catch(String)), /another process has moved the position of reader/)
          assert.deepStrictEqual(await one.load(undefined, reader), taken)
          assert.deepStrictEqual(await one.blocks(undefined, reader), put.slice(0, 1))
        })
      }),
  )
})
