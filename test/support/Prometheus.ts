/** A real Prometheus as a child process that scrapes one target, and a parser for its queries. */
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { directory } from "./directory.ts"
import { fetchFrom } from "./http.ts"
import { endProcess, freePort } from "./RedisServer.ts"

export interface Sample {
  readonly metric: Readonly<Record<string, string>>
  readonly value: readonly [at: number, value: string]
}

export interface Prometheus {
  /** GET on its HTTP API; returns the `data` of the response. */
  readonly ask: (path: string, parameters?: Readonly<Record<string, string>>) => Effect.Effect<unknown, Error>
  readonly query: (expression: string) => Effect.Effect<ReadonlyArray<Sample>, Error>
}

const launch = (args: ReadonlyArray<string>) =>
  Effect.callback<ChildProcess>((resume) => {
    const child = spawn("prometheus", [...args], { stdio: ["ignore", "ignore", "pipe"] })
    let output = ""
    child.on("error", (error) => resume(Effect.die(error)))
    child.on("exit", () => resume(Effect.die(new Error(`prometheus ended:\n${output}`))))
    child.stderr.on("data", (data: Buffer) => {
      output += data.toString()
      if (output.includes("Server is ready to receive web requests")) resume(Effect.succeed(child))
    })
  })

/** Scrapes the port four times a second and evaluates the rules of a file, until the scope closes. */
export const start = Effect.fnUntraced(function* (
  target: number,
  rules: string,
): Effect.fn.Return<Prometheus, unknown, Scope.Scope> {
  const home = yield* directory
  const port = yield* freePort
  const config = {
    global: { scrape_interval: "250ms", scrape_timeout: "250ms", evaluation_interval: "1s" },
    rule_files: [resolve(rules)],
    scrape_configs: [{ job_name: "event-ingestor", static_configs: [{ targets: [`127.0.0.1:${target}`] }] }],
  }
  const file = join(home, "prometheus.yaml")
  // JSON is valid YAML.
  writeFileSync(file, JSON.stringify(config))
  const args = [
    `--config.file=${file}`,
    `--storage.tsdb.path=${join(home, "data")}`,
    `--web.listen-address=127.0.0.1:${port}`,
  ]
  yield* Effect.acquireRelease(launch(args), endProcess)
  const ask: Prometheus["ask"] = (path, parameters = {}) =>
    fetchFrom(port, `/api/v1/${path}?${new URLSearchParams(parameters)}`).pipe(
      Effect.flatMap(({ text }) => {
        const answer = JSON.parse(text) as { status: string; data: unknown; error?: string }
        return answer.status === "success"
          ? Effect.succeed(answer.data)
          : Effect.die(new Error(`${answer.error}: ${JSON.stringify(parameters)}`))
      }),
    )
  return {
    ask,
    query: (expression) =>
      Effect.map(
        ask("query", { query: expression }),
        (data) => (data as { result: ReadonlyArray<Sample> }).result,
      ),
  }
})

/** Repeats a query until its result satisfies the condition. */
export const until = <A, E>(ask: Effect.Effect<A, E>, good: (answer: A) => boolean): Effect.Effect<A, E> =>
  Effect.repeat(ask, { until: good, schedule: Schedule.spaced("100 millis") })

const operators = /^(and|or|unless|on|ignoring|group_left|group_right|by|without|bool)$/

/** The names of the metrics in a query. */
export const metricsOf = (expression: string): ReadonlyArray<string> => {
  const bare = expression
    .replaceAll(/"(?:[^"\\]|\\.)*"/g, "")
    .replaceAll(/\{[^}]*\}|\[[^\]]*\]/g, "")
    .replaceAll(/\boffset\s+-?\w+/g, "")
    .replaceAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, "")
  const names = [...bare.matchAll(/[a-z_:][\w:]*(\s*\()?/gi)].flatMap(([name, call]) =>
    call === undefined && !operators.test(name) ? [name] : [],
  )
  return [...new Set(names)]
}
