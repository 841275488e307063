/** Formats results as text. */
import type { Results } from "./results.ts"

type Row = ReadonlyArray<string>

const table = (head: Row, rows: ReadonlyArray<Row>): string => {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)))
  const line = (row: Row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")
  return [line(head), line(widths.map((width) => "─".repeat(width))), ...rows.map(line)].join("\n")
}

const whole = (value: number) => Math.round(value).toLocaleString("en-GB")
const tenth = (value: number) => value.toFixed(1)

/** Results of an earlier version of the benchmark have no load average. */
const loadOf = ({ loadAverage }: { readonly loadAverage?: number }) =>
  loadAverage === undefined ? "–" : tenth(loadAverage)

const seconds = (value: number) => value.toFixed(2)

const sustainedTable = (title: string, all: NonNullable<Results["large"]>) =>
  table(
    [title, "events/s", "× bare", "µs CPU", "µs Redis", "peak MB", "load"],
    all.map((row) => [
      row.subject,
      whole(row.perSecond),
      row.ratio.toFixed(2),
      tenth(row.cpu),
      tenth(row.redisCpu),
      whole(row.peak),
      loadOf(row),
    ]),
  )

const pointTable = (title: string, points: NonNullable<Results["chains"]>) =>
  table(
    [title, "µs CPU", "× first", "µs Redis", "peak MB", "load"],
    points.map((row) => [
      whole(row.of),
      tenth(row.cpu),
      // Missing in the results of an earlier version.
      (row.ratio ?? row.cpu / points[0]!.cpu).toFixed(2),
      tenth(row.redisCpu),
      whole(row.peak),
      loadOf(row),
    ]),
  )

const latencyTable = (title: string, latencies: NonNullable<Results["latencies"]>) =>
  table(
    [title, "chains", "p50 ms", "p99", "p99.9", "max", "CPU %", "load"],
    latencies.map((row) => [
      `${whole(row.load)} × ${whole(row.logs)}`,
      String(row.chains),
      ...[row.p50, row.p99, row.p999, row.max, row.cpu].map(tenth),
      loadOf(row),
    ]),
  )

const coldTable = (cold: NonNullable<Results["cold"]>) =>
  table(
    ["a block of 50 every 2 s", "blocks", "p50 ms", "p90", "max", "CPU ms per block", "without idle", "load"],
    cold.map((row) => [
      row.subject,
      String(row.blocks),
      ...[row.p50, row.p90, row.max, row.cpu, row.cpuOfBlock].map(tenth),
      loadOf(row),
    ]),
  )

const recoveryTables = ({ away, socket, caughtUp }: NonNullable<Results["recovery"]>) => [
  table(
    ["recovery after a store outage", "rounds", "p50 s", "worst", "bare client p50", "worst", "load"],
    away.map((row) => [
      `${row.store}, ${row.outage} s`,
      String(row.rounds),
      ...[row.ours.p50, row.ours.worst, row.bare.p50, row.bare.worst].map(seconds),
      loadOf(row),
    ]),
  ),
  `recovery: socket cut soon after the start ${tenth(socket)} s; caught up ${tenth(caughtUp)} s after the next event`,
]

const reconnectTables = ({ reconnect, silence }: Results) => [
  (reconnect || silence) &&
    table(
      ["back with a provider", "samples", "p50 s", "worst", "load"],
      [
        reconnect && {
          ...reconnect,
          name: "from its return; 2 s away, healthy before",
          samples: reconnect.samples.length,
        },
        ...(silence ?? []).map((row) => ({
          ...row,
          name: `from its last head, the ${row.heads}th; silent for ever, blocks of 1 s`,
        })),
      ]
        .filter((row) => row !== undefined)
        .map((row) => [
          row.name,
          String(row.samples),
          seconds(row.ours.p50),
          seconds(row.ours.worst),
          loadOf(row),
        ]),
    ),
  reconnect &&
    table(
      ["cuts of 2 s", "back after s", "connections, s after the cut"],
      reconnect.samples.map((sample) => [
        sample.how,
        seconds(sample.seconds),
        sample.attempts.map(seconds).join(", "),
      ]),
    ),
]

const quietTable = ({ silent, betweenHeads }: NonNullable<Results["quiet"]>) =>
  table(
    [
      "quiet, four chains (wake-ups: voluntary context switches)",
      "main thread/s",
      "all threads/s",
      "% of a core",
      "load",
    ],
    [
      { ...silent, name: "the provider sends nothing" },
      { ...betweenHeads, name: "between two heads, block time 12 s" },
    ].map((row) => [
      row.name,
      tenth(row.wakeUps.main),
      tenth(row.wakeUps.all),
      row.cpu.toFixed(2),
      loadOf(row),
    ]),
  )

const memoryTable = (memory: NonNullable<Results["memory"]>) =>
  table(
    ["memory", "RSS MB"],
    (
      [
        ["Node that only waits", memory.node],
        ["Node that only waits, with the service's flags", memory.nodeWithFlags],
        ["Node with ws and ioredis", memory.libraries],
        ["idle, four chains", memory.idle],
        ["live, 10 000 events/s, peak", memory.live],
        ["the same, bare", memory.liveOfBare],
        ["behind, at full speed, peak", memory.backlog],
        ["load", memory.loadAverage],
      ] as const
    ).map(([name, value]) => [name, name === "load" ? tenth(value) : whole(value)]),
  )

const historyLine = (history: NonNullable<Results["history"]>) =>
  `catch-up: ${whole(history.blocks)} blocks of ${history.logs} logs in ${tenth(history.seconds)} s: ` +
  `${whole(history.perSecond)} events/s, ${history.ratio.toFixed(2)} × the provider's own limit of ${whole(history.limit)} for the same ranges ` +
  `(${history.requested.toFixed(2)} × the history); ${tenth(history.cpu)} µs CPU, peak ${whole(history.peak)} MB, load ${loadOf(history)}`

const goalTable = (goals: NonNullable<Results["goals"]>) =>
  table(
    ["goal", "figure", "before", "", "limit"],
    goals.map(({ goal, figure, before = "", met, limit = "" }) => [
      goal,
      figure,
      before,
      met === undefined ? "not measured" : met ? "met" : "NOT MET",
      limit,
    ]),
  )

const consumerTables = ({ dense, sparse, memory, lags }: NonNullable<Results["consumer"]>) => [
  sustainedTable("consumer, backfill of blocks of 200 logs", dense),
  sustainedTable("consumer, backfill of blocks of one log", sparse),
  table(
    ["consumer, backfill of", "logs", "peak MB", "load"],
    memory.map((row) => [row.subject, whole(row.logs), whole(row.peak), loadOf(row)]),
  ),
  table(
    ["consumer, lag at 50 blocks/s of 200 logs", "p50 ms", "p99", "max", "× bare p50", "CPU %", "load"],
    lags.map((row, i) => [
      row.subject,
      ...[row.p50, row.p99, row.max].map(tenth),
      // Each follows its baseline.
      (row.p50 / lags[i - (i % 2)]!.p50).toFixed(2),
      tenth(row.cpu),
      loadOf(row),
    ]),
  ),
]

const fleetTables = ({ blockTime, costs, endings, simulated }: NonNullable<Results["fleet"]>) => [
  table(
    ["fleet, replicas", "CPU % of each", "Redis %", "calls per block", "load"],
    costs.map((row, i) => [
      String(i + 1),
      row.cpu.map(tenth).join(", "),
      tenth(row.redisCpu),
      row.calls.toFixed(3),
      loadOf(row),
    ]),
  ),
  table(
    [
      `fleet, blocks every ${blockTime} ms`,
      "times",
      "taken over p50 ms",
      "worst",
      "silent p50 ms",
      "worst",
      "load",
    ],
    endings.map((row) => [
      row.signal,
      String(row.rounds),
      ...[row.taken.p50, row.taken.worst, row.silent.p50, row.silent.worst].map(whole),
      loadOf(row),
    ]),
  ),
  `500 chains on ten replicas, simulated: ${simulated.heartbeats.toFixed(2)} % of a core of Redis for heartbeats, ` +
    `${simulated.withPolls.toFixed(2)} % with status polls`,
]

export const format = (results: Results): string => {
  const { ceiling, large, small, loaded, sqlite, latencies, history, startup, recovery, consumer } = results
  const lines = [
    ceiling && `ceiling: ${whole(ceiling)} XADD/s, pipelined`,
    large && sustainedTable("blocks of 1 000 logs (ours: bloom equality)", large),
    small && sustainedTable("blocks of 200, four chains (ours: bloom equality)", small),
    loaded && sustainedTable(`blocks of 1 000, ${loaded.busy} busy processes`, loaded.large),
    loaded && sustainedTable(`blocks of 200, four chains, ${loaded.busy} busy processes`, loaded.small),
    results.cold && coldTable(results.cold),
    sqlite &&
      `SQLite as store: ${whole(sqlite.perSecond)} events/s, ${tenth(sqlite.cpu)} µs CPU, peak ${whole(sqlite.peak)} MB, load ${loadOf(sqlite)}`,
    latencies && latencyTable("events/s × logs of a block", latencies),
    results.latencyOfBare && latencyTable("the same, bare", [results.latencyOfBare]),
    history && historyLine(history),
    startup &&
      `start → first stored event: ${whole(startup.first)} ms, of which Node ${whole(startup.node)} ms, load ${loadOf(startup)}`,
    ...reconnectTables(results),
    ...(recovery === undefined ? [] : recoveryTables(recovery)),
    ...(consumer === undefined ? [] : consumerTables(consumer)),
    ...(results.fleet === undefined ? [] : fleetTables(results.fleet)),
    results.quiet && quietTable(results.quiet),
    results.quiet?.slowdown &&
      `the machine runs the same work ${tenth(results.quiet.slowdown)} × as long after a second of sleep`,
    results.memory && memoryTable(results.memory),
    results.chains && pointTable("chains (10 000 events/s)", results.chains),
    results.chainsOfBare && pointTable("the same, bare", results.chainsOfBare),
    results.filters && pointTable("addresses (10 000 events/s)", results.filters),
    results.slope !== undefined && `soak: ${results.slope.toFixed(2)} MB/min`,
    results.goals && goalTable(results.goals),
  ]
  return lines.filter((line) => typeof line === "string").join("\n\n")
}
