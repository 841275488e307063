/** A real redis-server: a child process on a free port, with its files in its own directory. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { Redis } from "ioredis"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface RedisServer {
  readonly port: number
  readonly url: string
  /** Where its files are. */
  readonly directory: string
  /** An ordinary client, for changes behind the store's back. */
  readonly client: Redis
  readonly kill: (signal: NodeJS.Signals) => void
  /** Restarts it on the same port and files after it has ended. */
  readonly restart: Effect.Effect<void>
}

/** Whether a server can listen on a port. */
const isFree = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const server = createServer()
    server.on("error", () => resume(Effect.succeed(false)))
    server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(true))))
  })

/** Redis Cluster's bus listens on the port of a node plus this. */
const busOffset = 10_000

/**
 * A free port, with that of the cluster bus. Both are below the ports that Linux gives to outgoing connections and to servers
 * that ask for any port (32768–60999): one of these could take the port before a server is started on it.
 */
export const freePort: Effect.Effect<number> = Effect.sync(
  () => 10_240 + Math.floor(Math.random() * 12_000),
).pipe(
  Effect.repeat({
    until: (port) =>
      Effect.map(Effect.all([isFree(port), isFree(port + busOffset)]), (free) => !free.includes(false)),
  }),
)

const ready = /Ready to accept connections|Sentinel ID is/

/** Redis overwrites its environment with its title, so the title carries the id by which the watchdog finds leftovers of a run. */
const marked = () => {
  const run = process.env["TEST_RUN"]
  return run === undefined ? [] : ["--proc-title-template", `{title} {listen-addr} TEST_RUN=${run}`]
}

/** Starts `redis-server` with these arguments and waits until it listens. */
export const spawnServer = (
  args: ReadonlyArray<string>,
  program = "redis-server",
): Effect.Effect<ChildProcess> =>
  Effect.callback<ChildProcess>((resume) => {
    const child = spawn(program, [...args, ...marked()], { stdio: ["ignore", "pipe", "inherit"] })
    let output = ""
    child.on("error", (error) => resume(Effect.die(error)))
    child.on("exit", () => resume(Effect.die(new Error(`redis-server ended:\n${output}`))))
    child.stdout.on("data", (data: Buffer) => {
      output += data.toString()
      if (ready.test(output)) resume(Effect.succeed(child))
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** Ends a process and waits until it is gone. */
export const endProcess = (child: ChildProcess): Effect.Effect<void> =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill("SIGKILL")
    await once(child, "exit")
  })

/** A server that lives as long as the scope. `args` are added to a quiet configuration without persistence. */
export const start = Effect.fnUntraced(function* (
  args: ReadonlyArray<string> = [],
): Effect.fn.Return<RedisServer, never, Scope.Scope> {
  const port = yield* freePort
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "event-ingestor-redis-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true })),
  )
  const all = ["--port", String(port), "--bind", "127.0.0.1", "--dir", directory, "--save", "", ...args]
  let child: ChildProcess = yield* Effect.acquireRelease(spawnServer(all), () =>
    Effect.suspend((): Effect.Effect<void> => endProcess(child)),
  )
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const client = new Redis({
        port,
        lazyConnect: true,
        retryStrategy: () => 50,
        maxRetriesPerRequest: null,
      })
      client.on("error", () => {})
      return client
    }),
    (client) => Effect.sync(() => client.disconnect()),
  )
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    directory,
    client,
    kill: (signal) => void child.kill(signal),
    restart: Effect.gen(function* () {
      yield* endProcess(child)
      child = yield* spawnServer(all)
    }),
  }
})
