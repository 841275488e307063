/** The service as a user starts it: a child process with an environment, an exit code and signals. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

/** The program: the build that `buildOnce` made for the tests, or else the sources. */
export const main =
  process.env["SERVICE_ENTRY"] ?? fileURLToPath(new URL("../../src/start.cjs", import.meta.url))

/** The Node flags in the second line of our program, `":" //; exec node … "$(readlink`; other programs have none. */
export const flagsOf = (program: string): ReadonlyArray<string> =>
  /^":".*exec node (.+) "\$\(readlink/m.exec(readFileSync(program, "utf8"))?.[1]?.split(" ") ?? []

export interface Process {
  readonly pid: number
  /** Everything it has written so far. */
  readonly output: () => string
  readonly errors: () => string
  /** Waits until it has written something that matches. */
  readonly says: (pattern: RegExp) => Effect.Effect<RegExpExecArray>
  readonly kill: (signal: NodeJS.Signals) => void
  /** Where its HTTP routes listen, once they do. */
  readonly port: Effect.Effect<number>
  /** The exit code, or the name of the signal that ended it. */
  readonly exit: Effect.Effect<number | NodeJS.Signals>
}

export interface ProcessOptions {
  readonly args?: ReadonlyArray<string>
  /** Only `PATH` is inherited. The HTTP routes get any free port unless one is set. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly entry?: string
}

const wrap = (child: ChildProcess): Process => {
  let output = ""
  let errors = ""
  const waiting = new Set<() => void>()
  const notify = () => {
    for (const check of waiting) check()
  }
  child.stdout!.on("data", (data: Buffer) => {
    output += data.toString()
    notify()
  })
  child.stderr!.on("data", (data: Buffer) => {
    errors += data.toString()
    notify()
  })
  let ended = false
  const closed = once(child, "close").then(([code, signal]) => {
    ended = true
    notify()
    return (code ?? signal) as number | NodeJS.Signals
  })
  const says = (pattern: RegExp) =>
    Effect.callback<RegExpExecArray>((resume) => {
      const check = () => {
        const found = pattern.exec(output) ?? pattern.exec(errors)
        if (found === null && !ended) return
        waiting.delete(check)
        const silent = () =>
          Effect.die(new Error(`the process ended without writing ${pattern}:\n${output}${errors}`))
        resume(found === null ? silent() : Effect.succeed(found))
      }
      waiting.add(check)
      check()
      return Effect.sync(() => void waiting.delete(check))
    })
  return {
    pid: child.pid!,
    output: () => output,
    errors: () => errors,
    says,
    port: Effect.map(says(/status at http:\/\/[^:]+:(\d+)/), ([, port]) => Number(port)),
    kill: (signal) => void child.kill(signal),
    exit: Effect.promise(() => closed),
  }
}

/** Runs the command line with these arguments. What still runs when the scope closes is killed. */
export const start = (options: ProcessOptions = {}): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const entry = options.entry ?? main
      return spawn(process.execPath, [...flagsOf(entry), entry, ...(options.args ?? [])], {
        cwd: options.cwd ?? process.cwd(),
        env: {
          PATH: process.env["PATH"],
          TEST_RUN: process.env["TEST_RUN"],
          HTTP_PORT: "0",
          ...options.env,
        },
        stdio: ["ignore", "pipe", "pipe"],
      })
    }),
    (child) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        child.kill("SIGKILL")
        await once(child, "exit")
      }),
  ).pipe(Effect.map(wrap))

/** Runs a command to its end. */
export const run = (options: ProcessOptions) =>
  Effect.gen(function* () {
    const process = yield* start(options)
    const code = yield* process.exit
    return { code, output: process.output(), errors: process.errors() }
  }).pipe(Effect.scoped)
