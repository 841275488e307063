/**
 * Anvil, a real EVM node, as a child process.
 *
 * `node_modules/.bin/anvil` is a launcher whose child outlives it, so the platform binary is started directly. It gets its
 * own process group, so that Ctrl-C reaches only the ingestor.
 */
import { Effect, Schema } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { createRequire } from "node:module"

export class AnvilError extends Schema.TaggedError<AnvilError>()("AnvilError", { detail: Schema.String }) {
  override get message() {
    return `anvil did not start: ${this.detail}`
  }
}

export interface AnvilOptions {
  readonly chainId: number
  /** Seconds between blocks; without it only `evm_mine` makes blocks. */
  readonly blockTime?: number
  /** Any free port by default. */
  readonly port?: number
  readonly args?: ReadonlyArray<string>
}

export interface Anvil {
  /** The WebSocket address; the same port speaks HTTP. */
  readonly url: string
  readonly port: number
  readonly pid: number
  /** Sends a signal and waits until the process has exited. */
  readonly stop: (signal: NodeJS.Signals) => Effect.Effect<void>
}

const binary = (): string => {
  const machine = { x64: "amd64", arm64: "arm64" }[process.arch as string] ?? process.arch
  const file = `@foundry-rs/anvil-${process.platform}-${machine}/bin/anvil`
  try {
    return createRequire(import.meta.url).resolve(file)
  } catch {
    return "anvil"
  }
}

const listening = /Listening on [\d.]+:(\d+)/

const launch = (options: AnvilOptions) =>
  Effect.callback<{ readonly child: ChildProcess; readonly port: number }, AnvilError>((resume) => {
    const blocks =
      options.blockTime === undefined ? ["--no-mining"] : ["--block-time", String(options.blockTime)]
    const args = ["--chain-id", String(options.chainId), "--port", String(options.port ?? 0), ...blocks]
    const child = spawn(binary(), [...args, ...(options.args ?? [])], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    })
    let output = ""
    child.on("error", (error) => resume(Effect.fail(new AnvilError({ detail: error.message }))))
    child.on("exit", (code) =>
      resume(Effect.fail(new AnvilError({ detail: `exit code ${code}: ${output.slice(-500)}` }))),
    )
    child.stderr.on("data", (data: Buffer) => (output += data.toString()))
    child.stdout.on("data", function read(data: Buffer) {
      output += data.toString()
      const port = listening.exec(output)?.[1]
      if (port === undefined) return
      child.stdout.off("data", read)
      child.stdout.resume()
      resume(Effect.succeed({ child, port: Number(port) }))
    })
  })

/** Starts a node that lives as long as the scope. */
export const start = (options: AnvilOptions): Effect.Effect<Anvil, AnvilError, Scope.Scope> =>
  Effect.acquireRelease(launch(options), ({ child }) => Effect.sync(() => void child.kill("SIGKILL"))).pipe(
    Effect.tap(({ child }) => {
      const kill = () => child.kill("SIGKILL")
      process.on("exit", kill)
      return Effect.addFinalizer(() => Effect.sync(() => process.off("exit", kill)))
    }),
    Effect.map(({ child, port }): Anvil => ({
      url: `ws://127.0.0.1:${port}`,
      port,
      pid: child.pid!,
      stop: (signal) =>
        Effect.callback<void>((resume) => {
          if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
          child.on("exit", () => resume(Effect.void))
          child.kill(signal)
        }),
    })),
  )
