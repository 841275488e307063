/**
 * Before all tests: nothing that a test started outlives the run, however that ends, `kill -9` too. A watchdog beside it
 * keeps a list of everything that comes from this process, and kills what is left of it when its standard input ends.
 *
 * It reads /proc: elsewhere than on Linux there is none, and the scopes of the tests have to do.
 */
import { spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

export default () => {
  if (!existsSync("/proc/self/stat")) return undefined
  const run = randomUUID()
  process.env["TEST_RUN"] = run
  // Of its own session: Ctrl-C is not for it.
  const watchdog = spawn(
    process.execPath,
    [fileURLToPath(new URL("watchdog.mjs", import.meta.url)), String(process.pid), run],
    { detached: true, stdio: ["pipe", "ignore", "inherit"] },
  )
  watchdog.unref()
  // Who is killed with npm: `npm test` is one command.
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
