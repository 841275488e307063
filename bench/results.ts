/** All figures, and the goals. A figure that was not measured in this run is missing. */
import type { CatchUp } from "./figures/catchUp.ts"
import type { Consumer } from "./figures/consumer.ts"
import type { Idle } from "./figures/idle.ts"
import type { Latency } from "./figures/latency.ts"
import type { Recovery } from "./figures/recovery.ts"
import type { Ending, Fleet } from "./fleet.ts"
import type { Point } from "./figures/scaling.ts"
import type { Startup } from "./figures/startup.ts"
import type { Sustained } from "./figures/sustained.ts"
import type { Cost } from "./run.ts"

export interface Results {
  readonly at: string
  readonly commit: string
  readonly machine: string
  readonly mode: "full" | "quick"
  /** Raw pipelined XADD, events a second. */
  ceiling?: number
  /** Blocks of 1 000 logs: too large for bloom equality. */
  large?: ReadonlyArray<Sustained>
  /** Blocks of 200 logs on four chains, with bloom equality. */
  bloom?: ReadonlyArray<Sustained>
  /** The same with zero blooms in the headers. */
  noBloom?: ReadonlyArray<Sustained>
  sqlite?: Cost
  latencies?: ReadonlyArray<Latency>
  catchUp?: CatchUp
  startup?: Startup
  recovery?: Recovery
  consumer?: Consumer
  idle?: Idle
  chains?: ReadonlyArray<Point>
  filters?: ReadonlyArray<Point>
  fleet?: Fleet
  /** MB a minute over the soak. */
  slope?: number
  goals?: ReadonlyArray<Goal>
}

export interface Goal {
  readonly goal: string
  readonly figure: string
  readonly met: boolean | undefined
}

const atLeast = (goal: string, figure: number | undefined, least: number, digits = 2): Goal => ({
  goal,
  figure: figure === undefined ? "not measured" : figure.toFixed(digits),
  met: figure === undefined ? undefined : figure >= least,
})

const atMost = (goal: string, figure: number | undefined, most: number, digits = 2): Goal => ({
  goal,
  figure: figure === undefined ? "not measured" : figure.toFixed(digits),
  met: figure === undefined ? undefined : figure <= most,
})

/** MB a minute that count as a slope of 0: the noise of the garbage collector. */
const flat = 0.5

export const fleetGoals = (fleet: Fleet | undefined): ReadonlyArray<Goal> => {
  const [one, ...shared] = fleet?.costs.map(({ calls }) => calls) ?? []
  const differences = shared.map((calls) => Math.abs(calls / one! - 1) * 100)
  const silence = (signal: Ending["signal"]) =>
    fleet?.endings.find((ending) => ending.signal === signal)?.silent.worst
  return [
    atMost(
      "fleet: provider calls per block = one process ± 10 % (%)",
      one === undefined ? undefined : Math.max(...differences),
      10,
      1,
    ),
    atMost("fleet: longest silence of a chain ≤ 6 s after kill -9 (ms)", silence("SIGKILL"), 6000, 0),
    atMost(
      "fleet: longest silence of a chain ≤ 1 s + block time after SIGTERM (ms)",
      silence("SIGTERM"),
      1000 + (fleet?.blockTime ?? 0),
      0,
    ),
  ]
}

export const goalsOf = (results: Results): ReadonlyArray<Goal> => {
  const { large, bloom, noBloom, ceiling, latencies, chains, startup, recovery, consumer, idle, slope } =
    results
  const of = (all: ReadonlyArray<Sustained> | undefined, name: string) =>
    all?.find(({ subject }) => subject === name)
  const over = (a: number | undefined, b: number | undefined) =>
    a === undefined || b === undefined ? undefined : a / b
  const ours = of(large, "ours")
  const at10k = latencies?.find(({ load, logs }) => load === 10_000 && logs === 200)
  const [one] = chains ?? []
  const peak = (logs: number) => consumer?.memory.find((row) => row.logs === logs)?.peak
  return [
    atLeast("≥ 0.55 × bare with every check on (blocks of 200)", of(bloom, "ours")?.ratio, 0.55),
    atLeast("≥ 0.75 × bare without bloom equality (blocks of 200)", of(noBloom, "ours")?.ratio, 0.75),
    atLeast("≥ 150 000 events/s on blocks of 1 000 logs", ours?.perSecond, 150_000, 0),
    atLeast("≥ 0.4 × ceiling", over(ours?.perSecond, ceiling), 0.4),
    atLeast("≥ 8 × per-event", over(ours?.perSecond, of(large, "per-event")?.perSecond), 8, 1),
    atLeast("≥ 5 × script", over(ours?.perSecond, of(large, "script")?.perSecond), 5, 1),
    atMost("p50 ≤ 5 ms at 10 000 events/s", at10k?.p50, 5, 1),
    atMost("p99 ≤ 20 ms at 10 000 events/s", at10k?.p99, 20, 1),
    atMost("CPU ≤ 12 % of one core at 10 000 events/s", at10k?.cpu, 12, 1),
    atMost("RSS ≤ 1.25 × bare at full load", over(ours?.peak, of(large, "bare")?.peak), 1.25),
    atMost("RSS ≤ 110 MB idle with four chains", idle?.resident, 110, 0),
    atMost("slope of memory over the soak: 0 (MB/min)", slope, flat),
    atMost(
      "telemetry costs ≤ 5 % (CPU per event)",
      over(of(large, "ours + telemetry")?.cpu, ours?.cpu),
      1.05,
    ),
    atMost("64 chains cost ≤ 1.15 × one", over(chains?.find(({ of }) => of === 64)?.cpu, one?.cpu), 1.15),
    atMost("idle CPU < 1 % of a core", idle?.cpu, 1),
    atMost(
      "start → first stored event < 1 s after Node's own start (ms)",
      startup && startup.first - startup.node,
      1000,
      0,
    ),
    atMost(
      "next event ≤ 1.5 s after the store answers again, whatever the outage (s)",
      recovery && Math.max(...recovery.away.map(({ ours }) => ours.worst)),
      1.5,
    ),
    atLeast(
      "consumer: ≥ 30 000 logs/s of a backfill into a no-op",
      of(consumer?.dense, "ours, no-op")?.perSecond,
      30_000,
      0,
    ),
    atLeast(
      "consumer: ≥ 10 000 blocks/s of one log into SQLite",
      of(consumer?.sparse, "ours, SQLite")?.perSecond,
      10_000,
      0,
    ),
    atMost(
      "consumer: RSS for 1 000 000 logs ≤ 1.25 × for 100 000",
      over(peak(1_000_000), peak(100_000)),
      1.25,
    ),
    ...fleetGoals(results.fleet),
  ]
}
