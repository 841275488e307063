/** The goals, each with the figure that it had in the version before, and with what limits it where it was missed. */
import { silentAfter } from "./figures/reconnect.ts"
import { checked } from "./subjects/bare.ts"
import { timesFaster } from "./figures/sustained.ts"
import type { Sustained } from "./figures/sustained.ts"
import type { Ending, Fleet } from "./fleet.ts"
import type { Results } from "./results.ts"
import { median } from "./statistics.ts"

export interface Goal {
  readonly goal: string
  readonly figure: string
  /** The figure of version 0.2 and those of other programs, where they are known. */
  readonly before?: string | undefined
  readonly met: boolean | undefined
  /** What was measured in the same way and cannot be undercut, or what the goal would have to be without. */
  readonly limit?: string | undefined
}

/** Adds a measured limit to a goal. */
const limited = (goal: Goal, name: string, figure: number | undefined, digits = 2): Goal =>
  goal.met === false && figure !== undefined ? { ...goal, limit: `${name}: ${figure.toFixed(digits)}` } : goal

/** Adds the range of the rounds, of which the figure is the median. */
const ofRounds = (goal: Goal, rounds: ReadonlyArray<number> | undefined): Goal =>
  rounds === undefined || rounds.length < 2
    ? goal
    : {
        ...goal,
        figure: `${goal.figure} (${Math.min(...rounds).toFixed(2)}–${Math.max(...rounds).toFixed(2)})`,
      }

type Compare = (
  goal: string,
  figure: number | undefined,
  bound: number,
  digits?: number,
  before?: string,
) => Goal

const comparing =
  (meets: (figure: number, bound: number) => boolean): Compare =>
  (goal, figure, bound, digits = 2, before = undefined) => ({
    goal,
    figure: figure === undefined ? "not measured" : figure.toFixed(digits),
    before,
    met: figure === undefined ? undefined : meets(figure, bound),
  })

const atLeast = comparing((figure, least) => figure >= least)
const atMost = comparing((figure, most) => figure <= most)

/** MB a minute that count as a slope of 0: the noise of the garbage collector. */
const flat = 0.5

type Rows = ReadonlyArray<Sustained> | undefined

const rowOf = (rows: Rows, name: string) => rows?.find(({ subject }) => subject === name)

/** How fast a subject is relative to bare, with the rounds, and the checks alone as its limit. */
const relativeToBare = (
  goal: string,
  row: Sustained | undefined,
  least: number,
  before?: string,
  limit?: Sustained,
) => limited(ofRounds(atLeast(goal, row?.ratio, least, 2, before), row?.ratios), checked.name, limit?.ratio)

const over = (a: number | undefined, b: number | undefined) =>
  a === undefined || b === undefined ? undefined : a / b

/** How many times faster ours is than another subject of the same rounds. */
const faster = (rows: Rows, name: string) => {
  const [ours, other] = [rowOf(rows, "ours"), rowOf(rows, name)]
  return ours && other && timesFaster(ours, other)
}

/** Percent of a core, or milliseconds, as they would be if the machine ran a process that wakes up seldom at full speed. */
const atFullSpeed = (goal: Goal, figure: number | undefined, quiet: Results["quiet"]): Goal =>
  limited(
    goal,
    `code after 1 s of sleep takes ${quiet?.slowdown?.toFixed(1)} × as long here; without`,
    over(figure, quiet?.slowdown),
  )

const recoveryGoals = ({ reconnect, silence, recovery }: Results): ReadonlyArray<Goal> => {
  const before = "3.4–3.8; connect 0.6–1.0, rindexer 0.1"
  const silentWorst = (heads: number) => silence?.find((row) => row.heads === heads)?.ours.worst
  const afterRedis = recovery?.away.find(({ store, outage }) => store === "Redis" && outage === 3)
  return [
    atMost("back ≤ 0.5 s after a 2 s cut of a healthy socket, p50 (s)", reconnect?.ours.p50, 0.5, 2, before),
    atMost("back ≤ 1 s after a 2 s cut of a healthy socket, worst (s)", reconnect?.ours.worst, 1, 2, before),
    atMost(
      "back ≤ 1 s after 3 s without Redis, worst (s)",
      afterRedis?.ours.worst,
      1,
      2,
      "3.1–3.6; connect, script 0.8–1.1",
    ),
    atMost(
      "next event ≤ 1.5 s after the store answers again, whatever the outage, worst (s)",
      recovery && Math.max(...recovery.away.map(({ ours }) => ours.worst)),
      1.5,
      2,
      "0.54",
    ),
    ...silentAfter.map((heads) =>
      limited(
        atMost(
          `silent provider, one endpoint, blocks of 1 s: back ≤ 6.5 s after head ${heads}, worst (s)`,
          silentWorst(heads),
          6.5,
          2,
          "15 + 2",
        ),
        "without the 2 s ± 20 % that a connection younger than 60 s waits",
        silentWorst(Math.max(...silentAfter)),
      ),
    ),
  ]
}

const lightGoals = ({ cold, quiet, startup }: Results): ReadonlyArray<Goal> => {
  const of = (name: string) => cold?.find(({ subject }) => subject === name)
  const ofBlock = of("ours")?.cpuOfBlock
  // On some machines a CPU is so much slower while there is nothing to do that the difference is negative.
  const cpuOfBlock = ofBlock !== undefined && ofBlock < 0 ? of("ours")?.cpu : ofBlock
  const peers = cold?.filter(({ subject }) => ["script", "per-event"].includes(subject)).map(({ p50 }) => p50)
  const rests = [
    ["a silent provider", quiet?.silent],
    ["between heads of 12 s", quiet?.betweenHeads],
  ] as const
  return [
    limited(
      atMost("a block of 50 every 2 s: p50 ≤ 20 ms", of("ours")?.p50, 20, 1, "46–75; original 30, script 37"),
      `script ${of("script")?.p50.toFixed(1)}; bare`,
      of("bare")?.p50,
      1,
    ),
    atMost(
      "a block of 50 every 2 s: p50 ≤ 1 × the best of script and per-event",
      over(of("ours")?.p50, peers && Math.min(...peers)),
      1,
      2,
      "1.5–2.5",
    ),
    atFullSpeed(
      atMost("a block of 50 every 2 s: ≤ 5 ms of CPU per block", cpuOfBlock, 5, 1, "60–90"),
      cpuOfBlock,
      quiet,
    ),
    ...rests.flatMap(([name, rest]) => [
      limited(
        atMost(`quiet, four chains, ${name}: ≤ 4 wake-ups/s`, rest?.wakeUps.all, 4, 1, "22 with one chain"),
        "the other threads compile (V8); main thread",
        rest?.wakeUps.main,
        1,
      ),
      atFullSpeed(
        atMost(`quiet, four chains, ${name}: ≤ 0.15 % of a core`, rest?.cpu, 0.15, 2, "1.1 with one chain"),
        rest?.cpu,
        quiet,
      ),
    ]),
    atMost(
      "start → first stored event < 1 s after Node's own start (ms)",
      startup && startup.first - startup.node,
      1000,
      0,
      "173",
    ),
  ]
}

/** A row whose headers have blooms of zeros, with which logs cannot be compared. */
export const withoutBloom = ({ name }: { readonly name: string }) => `${name}, blooms of zeros`

const speedGoals = ({ ceiling, large, small, loaded, history }: Results): ReadonlyArray<Goal> => {
  const ours = rowOf(large, "ours")
  const onLoaded = (row: string, rows: Rows) =>
    ["script", "per-event"].map((name) =>
      atLeast(
        `loaded machine, ${row}: ≥ 1.5 × ${name}`,
        faster(rows, name),
        1.5,
        1,
        name === "script" ? "0.3–0.9" : undefined,
      ),
    )
  return [
    relativeToBare(
      "blocks of 200, four chains: ≥ 0.7 × bare with bloom equality",
      rowOf(small, "ours"),
      0.7,
      "0.60–0.64",
      rowOf(small, checked.name),
    ),
    relativeToBare(
      "blocks of 200, four chains: ≥ 0.85 × bare without",
      rowOf(small, withoutBloom({ name: "ours" })),
      0.85,
      "0.80",
      rowOf(small, withoutBloom(checked)),
    ),
    relativeToBare("blocks of 1 000: ≥ 0.55 × bare with bloom equality", ours, 0.55, "0.87"),
    relativeToBare(
      "blocks of 1 000: ≥ 0.9 × bare without",
      rowOf(large, withoutBloom({ name: "ours" })),
      0.9,
      undefined,
      rowOf(large, withoutBloom(checked)),
    ),
    limited(
      atLeast("blocks of 1 000: ≥ 0.6 × ceiling", over(ours?.perSecond, ceiling), 0.6, 2, "0.55–0.60"),
      `${checked.name} ${over(rowOf(large, checked.name)?.perSecond, ceiling)?.toFixed(2)}; bare`,
      over(rowOf(large, "bare")?.perSecond, ceiling),
    ),
    limited(
      atLeast("blocks of 1 000: ≥ 150 000 events/s", ours?.perSecond, 150_000, 0, "258 568"),
      checked.name,
      rowOf(large, checked.name)?.perSecond,
      0,
    ),
    atLeast("blocks of 1 000: ≥ 8 × per-event", faster(large, "per-event"), 8, 1, "45.3"),
    atLeast("blocks of 1 000: ≥ 5 × script", faster(large, "script"), 5, 1, "16.2"),
    ...onLoaded("blocks of 1 000", loaded?.large),
    ...onLoaded("blocks of 200, four chains", loaded?.small),
    limited(
      atLeast(
        "history: ≥ 120 000 events/s from one provider, or its limit",
        history?.perSecond,
        Math.min(120_000, history?.limit ?? 120_000),
        0,
        "78 000–108 000",
      ),
      "a core at its CPU per event",
      over(1e6, history?.cpu),
      0,
    ),
  ]
}

const costGoals = ({
  ceiling,
  large,
  latencies,
  latencyOfBare,
  chains,
  chainsOfBare,
  memory,
  slope,
}: Results): ReadonlyArray<Goal> => {
  const ours = rowOf(large, "ours")
  /** Relative to the run without telemetry in the same round. */
  const telemetryGoal = (goal: string, name: string, before?: string) => {
    const of = rowOf(large, name)
    const rounds = of?.cpus?.map((cpu, i) => cpu / ours!.cpus![i]!) ?? []
    const middle = rounds.length > 0 ? median(rounds) : over(of?.cpu, ours?.cpu)
    return limited(
      ofRounds(atMost(goal, middle, 1.05, 2, before), rounds),
      "lowest of the rounds",
      rounds.length > 0 ? Math.min(...rounds) : undefined,
    )
  }
  const of64 = (points: Results["chains"]) => points?.find(({ of }) => of === 64)
  const steady = latencies?.find(({ load, logs }) => load === 10_000 && logs === 200)
  const at10k = (goal: string, field: "p50" | "p99" | "cpu", most: number, before: string) =>
    limited(
      atMost(`${goal} at 10 000 events/s`, steady?.[field], most, 1, before),
      "bare",
      latencyOfBare?.[field],
      1,
    )
  return [
    at10k("p50 ≤ 5 ms", "p50", 5, "2.9"),
    at10k("p99 ≤ 20 ms", "p99", 20, "8.2"),
    at10k("CPU ≤ 12 % of one core", "cpu", 12, "10.1"),
    telemetryGoal("telemetry ≤ 1.05 × CPU per event", "ours + telemetry", "1.14–1.15"),
    telemetryGoal("telemetry without sampled traces ≤ 1.05 ×", "ours + telemetry, unsampled"),
    limited(
      ofRounds(
        atMost("64 chains ≤ 1.10 × CPU per event of one", of64(chains)?.ratio, 1.1, 2, "1.17–1.26"),
        of64(chains)?.ratios,
      ),
      "bare",
      of64(chainsOfBare)?.ratio,
    ),
    limited(
      atMost("Redis: ≤ 2.5 µs of CPU per event", ours?.redisCpu, 2.5, 2, "2.9–4.8"),
      "XADD alone, pipelined",
      ceiling && 1e6 / ceiling,
    ),
    limited(
      atMost("RSS ≤ 85 MB idle with four chains", memory?.idle, 85, 0, "104"),
      "Node, ws and ioredis",
      memory?.libraries,
      0,
    ),
    limited(
      atMost("RSS ≤ 130 MB live, 10 000 events/s", memory?.live, 130, 0, "190"),
      "bare",
      memory?.liveOfBare,
      0,
    ),
    limited(
      atMost("RSS ≤ 180 MB behind, at full speed", memory?.backlog, 180, 0, "253–269"),
      "bare",
      rowOf(large, "bare")?.peak,
      0,
    ),
    atMost("RSS ≤ 1.25 × bare at full load", over(ours?.peak, rowOf(large, "bare")?.peak), 1.25, 2, "0.44"),
    atMost(
      "slope of memory over the soak: 0 (MB/min)",
      slope,
      flat,
      2,
      "1.41 in ten minutes, 0.20 in twenty",
    ),
  ]
}

const consumerGoals = ({ consumer }: Results): ReadonlyArray<Goal> => {
  const peak = (logs: number) => consumer?.memory.find((row) => row.logs === logs)?.peak
  return [
    atLeast(
      "consumer: ≥ 30 000 logs/s of a backfill into a no-op",
      rowOf(consumer?.dense, "ours, no-op")?.perSecond,
      30_000,
      0,
      "41 922",
    ),
    atLeast(
      "consumer: ≥ 10 000 blocks/s of one log into SQLite",
      rowOf(consumer?.sparse, "ours, SQLite")?.perSecond,
      10_000,
      0,
      "29 071",
    ),
    atMost(
      "consumer: RSS for 1 000 000 logs ≤ 1.25 × for 100 000",
      over(peak(1_000_000), peak(100_000)),
      1.25,
      2,
      "0.97",
    ),
  ]
}

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

export const goalsOf = (results: Results): ReadonlyArray<Goal> => [
  ...recoveryGoals(results),
  ...lightGoals(results),
  ...speedGoals(results),
  ...costGoals(results),
  ...consumerGoals(results),
  ...fleetGoals(results.fleet),
]
