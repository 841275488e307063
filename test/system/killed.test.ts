/** Killing a test run. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { directory } from "../support/directory.ts"
import { shell } from "../support/shell.ts"

const every = Schedule.spaced("50 millis")

/** A zombie, ended but not reaped, does not count as alive. */
const isAlive = (pid: number) => {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

const parentOf = (pid: number) => Number(/\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))![1])

describe("npm test", () => {
  for (const signal of ["SIGKILL", "SIGTERM"] as const) {
    for (const whom of ["npm", "vitest"] as const) {
      it.live(`leaves no process behind when ${whom} gets ${signal} [G-181]`, () =>
        Effect.gen(function* () {
          const file = join(yield* directory, "started")
          const { child } = yield* shell("exec npm test -- --config test/fixtures/run/vitest.config.ts", {
            STARTED_FILE: file,
          })
          child.unref()
          const read = Effect.try(() => JSON.parse(readFileSync(file, "utf8")) as ReadonlyArray<number>)
          const pids = yield* Effect.retry(read, every).pipe(Effect.timeout("20 seconds"))
          assert.isTrue(pids.every(isAlive))
          const runner = parentOf(pids.at(-1)!)
          process.kill(whom === "npm" ? child.pid! : runner, signal)
          yield* Effect.sync(() => [...pids, runner].filter(isAlive)).pipe(
            Effect.repeat({ until: (left) => left.length === 0, schedule: every }),
            Effect.timeout("8 seconds"),
          )
        }).pipe(Effect.scoped),
      )
    }
  }
})
