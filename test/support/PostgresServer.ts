/** A real Postgres: a child process on a free port with its own files, or the server of `PGURL`. */
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { chownSync, existsSync, mkdirSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { Pool } from "pg"
import { directory } from "./directory.ts"
import { endProcess, freePort } from "./RedisServer.ts"

/** Where Debian puts the programs of each version. */
const versions = "/usr/lib/postgresql"

const programs = (): string | undefined => {
  const found = existsSync(versions)
    ? readdirSync(versions).sort((a, b) => Number(b) - Number(a))[0]
    : undefined
  return found && join(versions, found, "bin")
}

/** Postgres refuses to run as root. */
const userOf = () => {
  if (process.getuid?.() !== 0) return undefined
  const idOf = (flag: string) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }))
  return { uid: idOf("-u"), gid: idOf("-g") }
}

/** Waits until it answers. */
const answers = (url: string) =>
  Effect.tryPromise(async () => {
    const pool = new Pool({ connectionString: url })
    pool.on("error", () => {})
    try {
      await pool.query("SELECT 1")
    } finally {
      await pool.end()
    }
  }).pipe(Effect.retry(Schedule.spaced("50 millis")), Effect.orDie)

/**
 * The URL of a server that lives as long as the scope, or of that of `PGURL`. It does not sync its files: its process may be killed,
 * but not the machine.
 */
export const start: Effect.Effect<string, never, Scope.Scope> = Effect.gen(function* () {
  const bin = programs()
  if (bin === undefined) {
    const url = process.env["PGURL"]
    if (url === undefined)
      return yield* Effect.die(new Error("Postgres is missing: apt-get install postgresql, or set PGURL"))
    return url
  }
  const port = yield* freePort
  const user = userOf()
  const parent = yield* directory
  const data = join(parent, "data")
  mkdirSync(data, { mode: 0o700 })
  if (user !== undefined) for (const path of [parent, data]) chownSync(path, user.uid, user.gid)
  const options = { ...user, cwd: data, stdio: "ignore" } as const
  execFileSync(
    join(bin, "initdb"),
    ["-D", data, "-U", "test", "--auth=trust", "--no-sync", "-E", "UTF8"],
    options,
  )
  const args = ["-D", data, "-p", String(port), "-h", "127.0.0.1", "-k", data, "-F"]
  const url = `postgres://test@127.0.0.1:${port}/postgres`
  yield* Effect.acquireRelease(
    Effect.sync(() => spawn(join(bin, "postgres"), args, options)),
    endProcess,
  )
  yield* answers(url)
  return url
})
