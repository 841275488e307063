/**
 * `npm run chaos -- --seed N --minutes M --only TEXT`: inflicts every fault on real processes, repeatedly for M minutes, and
 * prints one table. Exit code 1 unless nothing was lost, duplicated or otherwise wrong. The first pass inflicts each fault
 * once and kills the service at twenty moments; later passes inflict each several times in a row. When the time is over
 * nothing new begins.
 *
 * The seed determines the order of the faults and the details of each; real processes determine the rest.
 */
import { Cause, Effect, Exit, Logger, Random } from "effect"
import { parseArgs } from "node:util"
import { build } from "../test/support/built.ts"
import { run } from "./FaultPlan.ts"
import type { Outcome } from "./FaultPlan.ts"
import type { Fault } from "./Fault.ts"
import { awayLong, awayShortly } from "./away.ts"
import { consumerFaults } from "./consumers.ts"
import { olderFile } from "./epochs.ts"
import * as Fleet from "./fleet.ts"
import { hostFaults } from "./host.ts"
import * as Isolation from "./isolation.ts"
import { anotherType, keysGone, resetInstead } from "./keys.ts"
import { atRandom, kills } from "./kills.ts"
import { limitFaults } from "./limits.ts"
import { nodeLeg, redisLeg } from "./network.ts"
import { redisFaults } from "./redis.ts"
import { rightsTaken } from "./rights.ts"
import { kinds } from "./Cluster.ts"
import type { Kind } from "./Cluster.ts"
import { gathered, isClean, tableOf } from "./table.ts"
import { three } from "./three.ts"

/** How many clusters run at the same time: they mostly wait. */
const atOnce = 3

const fail = (why: string): never => {
  process.stderr.write(`${why}\n`)
  process.exit(64)
}

const number = (name: string, text: string): number => {
  const value = Number(text)
  return text !== "" && value >= 0 ? value : fail(`--${name}: a number, not "${text}"`)
}

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Math.floor(Math.random() * 1_000_000)) },
    minutes: { type: "string", default: "10" },
    only: { type: "string", default: "" },
  },
})
const minutes = number("minutes", values.minutes)
const seed = number("seed", values.seed)

const write = (text: string) => Effect.sync(() => void process.stdout.write(`${text}\n`))

interface Turn {
  readonly fault: Fault
  readonly kind: Kind
}

const turns: ReadonlyArray<Turn> = [
  ...kills,
  ...redisFaults,
  ...nodeLeg,
  ...redisLeg,
  three,
  ...keysGone,
  resetInstead,
  anotherType,
  olderFile,
  ...hostFaults,
  ...awayShortly,
  ...awayLong,
  ...rightsTaken,
  ...limitFaults,
  ...consumerFaults,
]
  .flatMap((fault) => fault.stores.map((kind) => ({ fault, kind })))
  .filter(({ fault, kind }) => `${fault.name} ${kind}`.includes(values.only))

const isolated = kinds.filter((kind) => `one of four chains ${kind}`.includes(values.only))

const isFleetWanted = `${Fleet.name} redis`.includes(values.only)

const all = [
  ...(isFleetWanted ? [{ name: Fleet.name, kind: "redis" as const }] : []),
  ...turns.map(({ fault: { name }, kind }) => ({ name, kind })),
  ...isolated.flatMap((kind) => Isolation.troubles.map((one) => ({ name: Isolation.nameOf(one), kind }))),
]
if (all.length === 0) fail(`--only: no fault has "${values.only}" in its name`)

const summaryOf = ({ fault, kind, times, lost, doubled, problems, epochs, recoveries }: Outcome) =>
  `${kind.padEnd(6)}  ${fault}: ${times} times, lost ${lost}, doubled ${doubled}, epochs ${epochs}, recovered in ${recoveries.map((millis) => (millis / 1000).toFixed(1)).join(" ")} s${problems.map((problem) => `\n        ${problem}`).join("")}`

const program = Effect.gen(function* () {
  const entry = yield* build
  const until = performance.now() + minutes * 60_000
  const outcomes: Array<Outcome> = []
  yield* write(`seed ${seed}, ${minutes} minutes, ${turns.length} faults`)
  // The latency measurement must run alone.
  for (const kind of isolated) {
    const brief = minutes < 10
    const found = yield* Isolation.run({ kind, entry, brief, until, seed: `${seed}/isolation/${kind}` })
    outcomes.push(...found)
    yield* write(found.map(summaryOf).join("\n"))
  }
  // Its replicas need the machine, too. Beside other faults it gets one round.
  if (isFleetWanted) {
    const isOnly = turns.length + isolated.length === 0
    const found = yield* Fleet.run({
      entry,
      faults: 30,
      until: isOnly ? until : 0,
      seed: `${seed}/fleet`,
      isAlone: true,
    })
    outcomes.push(found)
    yield* write(summaryOf(found))
  }
  for (let pass = 1; turns.length > 0 && performance.now() < until; pass++) {
    yield* Effect.forEach(
      yield* Random.shuffle(turns),
      ({ fault, kind }) =>
        Effect.gen(function* () {
          if (performance.now() > until) return
          const found = yield* run({
            kind,
            entry,
            brief: false,
            faults: [fault],
            times: (fault) => (pass === 1 && fault !== atRandom ? 1 : fault.times),
            until,
            seed: `${seed}/${pass}/${fault.name}/${kind}`,
          })
          outcomes.push(...found)
          yield* write(found.map(summaryOf).join("\n"))
        }),
      { concurrency: atOnce, discard: true },
    )
  }
  const rows = gathered(outcomes)
  yield* write(`\n${tableOf(rows)}`)
  const missed = all.filter(({ name, kind }) => !rows.some((row) => row.fault === name && row.kind === kind))
  if (missed.length > 0) {
    yield* write(
      `not reached within the time: ${missed.map(({ name, kind }) => `${name} (${kind})`).join(", ")}`,
    )
  }
  process.exitCode = rows.every(isClean) ? 0 : 1
}).pipe(Effect.scoped, Random.withSeed(seed), Effect.provide(Logger.layer([])))

// Nodes and servers end with the scope, also when the run is interrupted.
const stop = new AbortController()
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => stop.abort())
const exit = await Effect.runPromiseExit(program, { signal: stop.signal })
if (Exit.isFailure(exit)) {
  process.stderr.write(`${Cause.pretty(exit.cause)}\n`)
  process.exitCode = 1
}
process.exit()
