/**
 * Runs before all tests: no process that a test started outlives the run, however the run ends, even by `kill -9`. A
 * watchdog process lists all descendants of this process, and kills the remaining ones when its standard input ends.
 *
 * The watchdog reads /proc, so it runs only on Linux; elsewhere, only the scopes of the tests clean up.
 */
import { spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

export default () => {
  if (!existsSync("/proc/self/stat")) return undefined
  const run = randomUUID()
  process.env["TEST_RUN"] = run
  // In its own session, so that Ctrl-C does not reach it.
  const watchdog = spawn(
    process.execPath,
    [fileURLToPath(new URL("watchdog.mjs", import.meta.url)), String(process.pid), run],
    { detached: true, stdio: ["pipe", "ignore", "inherit"] },
  )
  watchdog.unref()
  // Also ends when npm is killed: to the user, `npm test` is one process.
  const parent = process.ppid
  const orphaned = () => {
    if (process.ppid !== parent) process.kill(process.pid, "SIGKILL")
  }
  const timer = process.env["npm_lifecycle_event"] === "test" ? setInterval(orphaned, 500).unref() : undefined
  return () => {
    clearInterval(timer)
    watchdog.stdin.end()
  }
}
