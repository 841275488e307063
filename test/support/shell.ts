/** Commands as a user types them. */
import { Effect, Scope } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"

/** Debian's own Python has the redis module; another Python may lack it. */
export const python =
  spawnSync("python3", ["-c", "import redis"]).status === 0 ? "python3" : "/usr/bin/python3"

const path = `${process.cwd()}/node_modules/.bin:${process.env["PATH"]}`

/** A command in a shell, in its own process group; ended with the scope. */
export const shell = (command: string, env: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn("bash", ["-c", command], {
        env: { PATH: path, HOME: "/tmp", TEST_RUN: process.env["TEST_RUN"], ...env },
        detached: true,
      })
      let output = ""
      const waiting = new Set<() => void>()
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (data: Buffer) => {
          output += data.toString()
          for (const check of waiting) check()
        })
      }
      const says = (pattern: RegExp) =>
        Effect.callback<void>((resume) => {
          const check = () => {
            if (pattern.test(output)) resume(Effect.void)
          }
          waiting.add(check)
          check()
        })
      return { child, says, output: () => output }
    }),
    ({ child }) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const gone = once(child, "close")
        process.kill(-child.pid!, "SIGKILL")
        await gone
      }),
  )

/** A command that can be killed and started again. It ends with the scope in which it was started. */
export const restartable = Effect.fnUntraced(function* (command: string, env: Record<string, string>) {
  const scope = yield* Effect.scope
  const start = Scope.provide(shell(`exec ${command}`, env), scope)
  let running = yield* start
  let before = ""
  return {
    /** What it has written, since its first start. */
    output: () => before + running.output(),
    /** The exit code, if it has ended by itself. */
    exitCode: () => running.child.exitCode,
    restart: Effect.gen(function* () {
      const { child } = running
      if (child.exitCode === null && child.signalCode === null) {
        const gone = once(child, "close")
        child.kill("SIGKILL")
        yield* Effect.promise(() => gone)
      }
      before += running.output()
      running = yield* start
    }),
  }
})
