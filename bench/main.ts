/**
 * `npm run bench`: all figures, as a table and in `bench/results.json`. `--quick` measures the most important ones within a
 * minute; `--only sustained,latency` measures some and keeps the others from the last results. Exit code 1 when a goal of the fleet
 * is missed.
 */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { cpus, release, totalmem } from "node:os"
import { parseArgs } from "node:util"
import { catchUp } from "./figures/catchUp.ts"
import { consumer } from "./figures/consumer.ts"
import { idle } from "./figures/idle.ts"
import { fleet } from "./fleet.ts"
import { latency } from "./figures/latency.ts"
import { recovery } from "./figures/recovery.ts"
import { chains, filters } from "./figures/scaling.ts"
import { sqlite } from "./figures/sqlite.ts"
import { startup } from "./figures/startup.ts"
import { ceilings, summary, sustained } from "./figures/sustained.ts"
import { fleetGoals, goalsOf } from "./results.ts"
import type { Results } from "./results.ts"
import { load, throughput } from "./run.ts"
import { bare } from "./subjects/bare.ts"
import { ours } from "./subjects/ours.ts"
import { perEvent } from "./subjects/perEvent.ts"
import { script } from "./subjects/script.ts"
import { telemetry } from "./subjects/telemetry.ts"
import { format } from "./table.ts"

const resultsFile = new URL("results.json", import.meta.url)

/** Subjects that write one event at a time get fewer events: their speed does not depend on the number. */
const slowPart = 0.05

type Figure = (results: Results) => Effect.Effect<void>

const large =
  (blocks: number, rounds: number): Figure =>
  (results) =>
    Effect.gen(function* () {
      const all = load(1000, blocks)
      const few = load(1000, Math.ceil(blocks * slowPart))
      results.ceiling = yield* ceilings(all, blocks * 1000, rounds)
      results.large = yield* sustained(
        [
          { subject: bare, load: all },
          { subject: ours, load: all },
          { subject: telemetry, load: all },
          { subject: perEvent, load: few },
          { subject: script, load: few },
        ],
        rounds,
      )
    })

const small =
  (blocks: number, rounds: number): Figure =>
  (results) =>
    Effect.gen(function* () {
      const [withBloom, without] = [load(200, blocks, 4), load(200, blocks, 4, false)]
      const costs = []
      for (let round = 0; round < rounds; round++) {
        costs.push({
          bare: yield* throughput(bare, withBloom),
          bloom: yield* throughput(ours, withBloom),
          none: yield* throughput(ours, without),
        })
      }
      const first = costs.map(({ bare }) => bare)
      const barely = summary("bare", first, first)
      results.bloom = [
        barely,
        summary(
          "ours",
          costs.map(({ bloom }) => bloom),
          first,
        ),
      ]
      results.noBloom = [
        barely,
        summary(
          "ours",
          costs.map(({ none }) => none),
          first,
        ),
      ]
    })

/** A figure that has a field of its own in the results. */
const one =
  <Field extends keyof Results>(field: Field, effect: Effect.Effect<NonNullable<Results[Field]>>): Figure =>
  (results) =>
    Effect.map(effect, (value) => void Object.assign(results, { [field]: value }))

const loads = [1_000, 10_000, 50_000]
const sizes = [20, 200, 2_000]

const full: Readonly<Record<string, Figure>> = {
  large: large(1000, 3),
  small: small(1000, 3),
  sqlite: one("sqlite", sqlite(load(1000, 300))),
  latency: one(
    "latencies",
    Effect.forEach(
      loads.flatMap((load) => sizes.map((logs) => ({ load, logs, seconds: 20 }))),
      (at) => latency(ours, at),
    ),
  ),
  startup: one("startup", startup(ours, 9)),
  idle: one("idle", idle(ours, 30)),
  catchUp: one("catchUp", catchUp(ours, 100_000, 5)),
  chains: one("chains", chains([1, 4, 16, 64], 15)),
  filters: one("filters", filters([1, 10, 100, 1_000, 10_000], 10)),
  recovery: one(
    "recovery",
    recovery(ours, [
      { seconds: 3, rounds: 9 },
      { seconds: 60, rounds: 3 },
    ]),
  ),
  consumer: one("consumer", consumer(3)),
  fleet: one("fleet", fleet(20, 5)),
}

const quick: Readonly<Record<string, Figure>> = {
  large: large(250, 1),
  small: small(200, 1),
  latency: one(
    "latencies",
    Effect.map(latency(ours, { load: 10_000, logs: 200, seconds: 5 }), (one) => [one]),
  ),
  startup: one("startup", startup(ours, 1)),
  idle: one("idle", idle(ours, 3)),
}

const { values } = parseArgs({
  options: { quick: { type: "boolean", default: false }, only: { type: "string" } },
})
const figures = values.quick ? quick : full
const wanted = values.only?.split(",") ?? Object.keys(figures)
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
    if (values.only !== undefined) return last
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

await Effect.runPromise(program)
