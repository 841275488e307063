/**
 * `npm run bench`: all figures, as a table and in `bench/results.json`. `--quick` measures the most important ones within a
 * minute; `--only large,latency` measures some and keeps the others from the last results; `--loaded` is `--only loaded`. Exit
 * code 1 when a goal of the fleet is missed.
 */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { cpus, release, totalmem } from "node:os"
import { parseArgs } from "node:util"
import { fleetGoals, goalsOf } from "./goals.ts"
import { full, quick } from "./plans.ts"
import type { Results } from "./results.ts"
import { format } from "./table.ts"

const resultsFile = new URL("results.json", import.meta.url)

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    loaded: { type: "boolean", default: false },
    only: { type: "string" },
  },
})
const figures = values.quick ? quick : full
const only = values.loaded ? "loaded" : values.only
const wanted = only?.split(",") ?? Object.keys(figures)
const unknown = wanted.find((name) => figures[name] === undefined)
if (unknown !== undefined) {
  console.error(`--only: there is ${Object.keys(figures).join(", ")}, no ${unknown}`)
  process.exit(64)
}

const git = (...args: ReadonlyArray<string>) => execFileSync("git", [...args], { encoding: "utf8" }).trim()

/** Keeps from the last results what is not measured now. Only the soak measures the slope. */
const kept = (): Partial<Results> => {
  try {
    const last = JSON.parse(readFileSync(resultsFile, "utf8")) as Results
    if (only !== undefined) return last
    return last.slope === undefined ? {} : { slope: last.slope }
  } catch {
    return {}
  }
}

const program = Effect.gen(function* () {
  execFileSync(process.execPath, ["scripts/build.mjs"], { stdio: "inherit" })
  const results: Results = {
    ...kept(),
    at: new Date().toISOString(),
    commit:
      git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain", "src") === "" ? "" : " + changes"),
    machine: `${cpus().length} × ${cpus()[0]!.model}, ${Math.round(totalmem() / 2 ** 30)} GB, Linux ${release()}, Node ${process.versions.node}`,
    mode: values.quick ? "quick" : "full",
  }
  for (const name of wanted) {
    const since = performance.now()
    yield* figures[name]!(results)
    console.error(`${name}: ${((performance.now() - since) / 1000).toFixed(0)} s`)
    results.goals = goalsOf(results)
    writeFileSync(resultsFile, `${JSON.stringify(results, undefined, 2)}\n`)
  }
  console.log(`${results.machine}\n\n${format(results)}`)
  // What a fleet promises hardly depends on the machine.
  if (wanted.includes("fleet") && fleetGoals(results.fleet).some(({ met }) => !met)) process.exitCode = 1
})

/** On Ctrl-C the scopes close, and with them the processes end that the benchmark has started. */
const interrupted = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => interrupted.abort())

try {
  await Effect.runPromise(program, { signal: interrupted.signal })
} catch (error) {
  if (!interrupted.signal.aborted) throw error
  process.exit(130)
}
