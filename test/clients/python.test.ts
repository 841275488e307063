/** The Python client: its wheel, its own tests by pytest, its types by mypy, and that it shares positions with the TypeScript one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { changes, postgres, sqlite } from "../../clients/typescript/src/index.ts"
import { directory } from "../support/directory.ts"
import * as PostgresServer from "../support/PostgresServer.ts"
import * as StreamWriter from "./StreamWriter.ts"

const root = join(import.meta.dirname, "../..")
const project = join(root, "clients/python")
const requirements = join(project, "requirements-test.txt")

interface Result {
  readonly code: number
  readonly output: string
}

/** Runs a program to its end. */
const run = (program: string, args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  new Promise<Result>((resolve) => {
    const options = {
      cwd: project,
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1", ...env },
      maxBuffer: 1e8,
    }
    execFile(program, args, options, (error, stdout, stderr) =>
      resolve({
        code: error === null ? 0 : typeof error.code === "number" ? error.code : 1,
        output: stdout + stderr,
      }),
    )
  })

const succeed = async (what: string, program: string, args: ReadonlyArray<string>, env = {}) => {
  const { code, output } = await run(program, args, env)
  if (code !== 0) throw new Error(`${what} failed:\n${output}`)
  return output
}

/** A Python that can make virtual environments, and its version. */
const findPython = async () => {
  for (const program of ["python3", "/usr/bin/python3"]) {
    const script = "import ensurepip, sys; assert sys.version_info >= (3, 11); print(sys.version)"
    const { code, output } = await run(program, ["-c", script])
    if (code === 0) return { program, version: output }
  }
  throw new Error(
    "a Python of version 3.11 or later with ensurepip is missing: apt-get install python3 python3-venv",
  )
}

/** A virtual environment with the pinned requirements, made once. @returns its Python */
const environment = async (): Promise<string> => {
  const { program, version } = await findPython()
  const key = createHash("sha256")
    .update(version)
    .update(readFileSync(requirements))
    .digest("hex")
    .slice(0, 16)
  const cache = join(root, "node_modules/.cache/python-client")
  const path = join(cache, key)
  if (!existsSync(path)) {
    mkdirSync(cache, { recursive: true })
    const fresh = join(cache, `${key}.${process.pid}`)
    await succeed("python3 -m venv", program, ["-m", "venv", fresh])
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    const { code, output } = await run(join(fresh, "bin/python"), pip)
    if (code !== 0) {
      rmSync(fresh, { recursive: true })
      throw new Error(
        `pip could not install ${requirements}, which needs PyPI (or PIP_INDEX_URL, a mirror of it):\n${output}`,
      )
    }
    try {
      renameSync(fresh, path)
    } catch {
      // Another run was faster.
      rmSync(fresh, { recursive: true })
    }
  }
  // Its scripts have the path that it was made at: modules are run instead.
  return join(path, "bin/python")
}

/** Builds the wheel and installs it. @returns Python, and an environment that finds the package */
const installed = async (target: string) => {
  const python = await environment()
  const pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
  const wheels = join(target, "wheels")
  const build = ["wheel", project, "--no-deps", "--no-build-isolation", "--wheel-dir", wheels]
  await succeed("pip wheel", python, [...pip, ...build])
  const [wheel, ...others] = readdirSync(wheels)
  assert.deepStrictEqual([wheel, others], ["event_ingestor-0.2.0-py3-none-any.whl", []])
  const site = join(target, "site")
  const install = ["install", "--no-deps", "--no-index", "--target", site, join(wheels, wheel!)]
  await succeed("pip install", python, [...pip, ...install])
  assert.isTrue(existsSync(join(site, "event_ingestor/py.typed")))
  return { python, env: { PYTHONPATH: site } }
}

const timeout = 300_000

describe("the Python client", () => {
  it.live(
    "passes its own tests as an installed wheel, and is typed",
    () =>
      Effect.gen(function* () {
        const target = yield* directory
        const url = yield* PostgresServer.start
        yield* Effect.promise(async () => {
          const { python, env } = await installed(target)
          const pytest = (...args: ReadonlyArray<string>) =>
            succeed("pytest", python, ["-m", "pytest", "-q", "-p", "no:cacheprovider", ...args], {
              ...env,
              TEST_POSTGRES: url,
            })
          const cache = join(root, "node_modules/.cache/python-client/mypy")
          const outputs = await Promise.all([
            // These wait, most of the time.
            pytest("tests/test_follow.py"),
            pytest("tests", "--ignore=tests/test_follow.py"),
            succeed("mypy", python, ["-m", "mypy", "--cache-dir", cache]),
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
          const { python, env } = await installed(target)
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
