/** Child processes, and their resource use as the kernel reports it. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readFileSync } from "node:fs"
import { loadavg } from "node:os"
import { fileURLToPath } from "node:url"
import type { Load, News, Order, ProviderReport } from "./provider.ts"

export interface Child {
  readonly pid: number
  readonly process: ChildProcess
  /** Settles when the process has ended. */
  readonly ended: Promise<unknown>
}

interface StartOptions {
  readonly ipc?: boolean
  readonly cwd?: string
}

/** A Node process that lives as long as the scope, with only `PATH` inherited. Its errors go to our stderr. */
export const startNode = (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {},
  options: StartOptions = {},
): Effect.Effect<Child, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [...args], {
        ...(options.cwd !== undefined && { cwd: options.cwd }),
        env: { PATH: process.env["PATH"], ...env },
        stdio: ["ignore", "ignore", "inherit", ...(options.ipc ? ["ipc" as const] : [])],
      })
      return { pid: child.pid!, process: child, ended: once(child, "exit") }
    }),
    ({ process: child, ended }) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        child.kill("SIGTERM")
        const late = setTimeout(() => child.kill("SIGKILL"), 3000)
        await ended
        clearTimeout(late)
      }),
  )

/** The same for a program in a file. */
export const start = (
  file: URL,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {},
  { nodeArgs = [], ...options }: StartOptions & { readonly nodeArgs?: ReadonlyArray<string> } = {},
): Effect.Effect<Child, never, Scope.Scope> =>
  startNode([...nodeArgs, fileURLToPath(file), ...args], env, options)

/** Clock ticks of /proc: a constant of the Linux userspace interface. */
const ticksPerSecond = 100

/** CPU seconds, user and system, of all threads of a process so far. */
export const cpuSeconds = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** The directories of a process's threads in /proc. */
const threadsOf = (pid: number): ReadonlyArray<string> =>
  readdirSync(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}`)

/** CPU milliseconds of all threads of a process so far, exact to microseconds. A thread that ends takes its share with it. */
export const cpuMillis = (pid: number): number =>
  threadsOf(pid).reduce(
    (sum, thread) => sum + Number(readFileSync(`${thread}/schedstat`, "utf8").split(" ")[0]),
    0,
  ) / 1e6

export interface WakeUps {
  readonly main: number
  /** Of all threads, the main thread included. */
  readonly all: number
}

/** How often the threads of a process have waited for something so far: each of these waits ends with a wake-up. */
export const wakeUps = (pid: number): WakeUps => {
  const of = (directory: string) =>
    Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync(`${directory}/status`, "utf8"))![1])
  return {
    main: of(`/proc/${pid}/task/${pid}`),
    all: threadsOf(pid).reduce((sum, thread) => sum + of(thread), 0),
  }
}

/** The load average of the machine over the last minute. */
export const loadAverage = (): number => loadavg()[0]!

const memory = (pid: number, field: "VmRSS" | "VmHWM"): number =>
  Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024

/** Current resident memory in MB (2^20 bytes). */
export const residentMemory = (pid: number): number => memory(pid, "VmRSS")

/** Peak resident memory in MB. */
export const peakMemory = (pid: number): number => memory(pid, "VmHWM")

export interface Provider {
  readonly pid: number
  readonly port: number
  /** Settles when every chain has been subscribed to. */
  readonly subscribed: Promise<void>
  /** Settles when the last head is written. */
  readonly done: Promise<void>
  readonly order: (order: Order) => void
  /** What it has done so far; times are on the clock of `now`. */
  readonly report: () => Promise<ProviderReport>
}

/** Milliseconds on a clock that all processes of a machine share. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6

export const startProvider = (load: Load): Effect.Effect<Provider, never, Scope.Scope> =>
  Effect.flatMap(
    start(new URL("provider.ts", import.meta.url), [JSON.stringify(load)], {}, { ipc: true }),
    ({ pid, process: child }) =>
      Effect.promise(() => {
        const listening = Promise.withResolvers<Provider>()
        const subscribed = Promise.withResolvers<void>()
        const done = Promise.withResolvers<void>()
        let reported: ((report: ProviderReport) => void) | undefined
        const order = (order: Order) => void child.send(order)
        let subscriptions = 0
        child.on("message", (news: News) => {
          switch (news._tag) {
            case "Listening":
              return listening.resolve({
                pid,
                port: news.port,
                subscribed: subscribed.promise,
                done: done.promise,
                order,
                report: () =>
                  new Promise((resolve) => {
                    reported = resolve
                    order("report")
                  }),
              })
            case "Subscribed":
              subscriptions++
              if (subscriptions === load.chains.length) subscribed.resolve()
              return
            case "Done":
              return done.resolve()
            case "Report":
              return reported?.(news)
          }
        })
        child.once("exit", () => listening.reject(new Error("the provider did not start")))
        return listening.promise
      }),
  )
