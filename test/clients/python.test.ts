/** The Python client: its wheel, its own tests by pytest, its types by mypy, and that it shares positions with the TypeScript one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { changes, postgres, sqlite } from "../../clients/typescript/src/index.ts"
import { directory } from "../support/directory.ts"
import * as PostgresServer from "../support/PostgresServer.ts"
import { cache, installWheel, succeed } from "../support/PythonEnvironment.ts"
import * as StreamWriter from "./StreamWriter.ts"

const timeout = 300_000

describe("the Python client", () => {
  it.live(
    "passes its own tests as an installed wheel, and is typed",
    () =>
      Effect.gen(function* () {
        const target = yield* directory
        const url = yield* PostgresServer.start
        yield* Effect.promise(async () => {
          const { python, env, wheel, site } = await installWheel(target)
          assert.strictEqual(wheel, "event_ingestor-0.2.0-py3-none-any.whl")
          assert.isTrue(existsSync(join(site, "event_ingestor/py.typed")))
          const pytest = (...args: ReadonlyArray<string>) =>
            succeed("pytest", python, ["-m", "pytest", "-q", "-p", "no:cacheprovider", ...args], {
              ...env,
              TEST_POSTGRES: url,
            })
          const outputs = await Promise.all([
            // These wait, most of the time.
            pytest("tests/test_follow.py"),
            pytest("tests", "--ignore=tests/test_follow.py"),
            succeed("mypy", python, ["-m", "mypy", "--cache-dir", join(cache, "mypy")]),
          ])
          for (const output of outputs) assert.notInclude(output, "skipped")
        })
      }).pipe(Effect.scoped),
    timeout,
  )

  it.live(
    "has the tables of the TypeScript client, and each continues a position of the other",
    () =>
      Effect.gen(function* () {
        const target = yield* directory
        const stream = yield* StreamWriter.start()
        yield* Effect.promise(async () => {
          const { python, env } = await installWheel(target)
          const script =
            'import event_ingestor as e; print(e.sqlite_ddl(table="t") + e.postgres_ddl(schema="s"), end="")'
          const ddl = await succeed("python", python, ["-c", script], env)
          assert.strictEqual(ddl, sqlite.ddl({ table: "t" }) + postgres.ddl({ schema: "s" }))

          await stream.push(["1a", "2a", "3a", "4a", "5a", "6a"])
          const path = join(target, "both.db")
          const inTypeScript = async (count: number) => {
            const database = new DatabaseSync(path, { timeout: 5000 })
            const seen: Array<string> = []
            const options = { chain: 1, name: "both", from: "earliest", finality: "latest" } as const
            for await (const { type, block, commit } of changes({
              ...options,
              redis: stream.url,
              checkpoint: sqlite(database),
              lease: "500ms",
            })) {
              await commit()
              seen.push(`${type} ${block.number} ${block.hash} ${block.logs.length}`)
              if (seen.length === count) break
            }
            database.close()
            return seen
          }
          const inPython = async (count: number) => {
            const worker = ["tests/worker.py", stream.url, path, String(count)]
            return (await succeed("worker.py", python, worker, env)).trim().split("\n")
          }
          const change = (type: string) => (name: string) => {
            const { number, hash } = StreamWriter.named(name)
            return `${type} ${number} ${hash} 2`
          }
          const [applied, retracted] = [change("apply"), change("undo")]
          assert.deepStrictEqual(await inTypeScript(2), ["1a", "2a"].map(applied))
          assert.deepStrictEqual(await inPython(3), ["3a", "4a", "5a"].map(applied))
          assert.deepStrictEqual(await inTypeScript(1), ["6a"].map(applied))
          await stream.popTo(1)
          await stream.push(["2b", "3b"])
          assert.deepStrictEqual(await inPython(2), ["6a", "5a"].map(retracted))
          assert.deepStrictEqual(await inTypeScript(1), ["4a"].map(retracted))
          assert.deepStrictEqual(await inPython(3), [...["3a", "2a"].map(retracted), applied("2b")])
          assert.deepStrictEqual(await inTypeScript(1), [applied("3b")])
        })
      }).pipe(Effect.scoped),
    timeout,
  )
})
