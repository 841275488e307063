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

const sustainedTable = (title: string, all: NonNullable<Results["large"]>) =>
  table(
    [title, "events/s", "× bare", "µs CPU", "µs Redis", "peak MB"],
    all.map(({ subject, perSecond, ratio, cpu, redisCpu, peak }) => [
      subject,
      whole(perSecond),
      ratio.toFixed(2),
      tenth(cpu),
      tenth(redisCpu),
      whole(peak),
    ]),
  )

const pointTable = (title: string, points: NonNullable<Results["chains"]>) =>
  table(
    [title, "µs CPU", "µs Redis", "peak MB"],
    points.map(({ of, cpu, redisCpu, peak }) => [whole(of), tenth(cpu), tenth(redisCpu), whole(peak)]),
  )

const consumerTables = ({ dense, sparse, memory, lags }: NonNullable<Results["consumer"]>) => [
  sustainedTable("consumer, backfill of blocks of 200 logs", dense),
  sustainedTable("consumer, backfill of blocks of one log", sparse),
  table(
    ["consumer, backfill of", "logs", "peak MB"],
    memory.map(({ subject, logs, peak }) => [subject, whole(logs), whole(peak)]),
  ),
  table(
    ["consumer, lag at 50 blocks/s of 200 logs", "p50 ms", "p99", "max", "× bare p50", "CPU %"],
    lags.map(({ subject, p50, p99, max, cpu }, i) => [
      subject,
      ...[p50, p99, max].map(tenth),
      // Each follows its baseline.
      (p50 / lags[i - (i % 2)]!.p50).toFixed(2),
      tenth(cpu),
    ]),
  ),
]

const fleetTables = ({ blockTime, costs, endings, simulated }: NonNullable<Results["fleet"]>) => [
  table(
    ["fleet, replicas", "CPU % of each", "Redis %", "calls per block"],
    costs.map(({ cpu, redisCpu, calls }, i) => [
      String(i + 1),
      cpu.map(tenth).join(", "),
      tenth(redisCpu),
      calls.toFixed(3),
    ]),
  ),
  table(
    [`fleet, blocks every ${blockTime} ms`, "times", "taken over p50 ms", "worst", "silent p50 ms", "worst"],
    endings.map(({ signal, rounds, taken, silent }) => [
      signal,
      String(rounds),
      ...[taken.p50, taken.worst, silent.p50, silent.worst].map(whole),
    ]),
  ),
  `500 chains on ten replicas, simulated: ${simulated.heartbeats.toFixed(2)} % of a core of Redis for heartbeats, ` +
    `${simulated.withPolls.toFixed(2)} % with status polls`,
]

export const format = (results: Results): string => {
  const { ceiling, large, bloom, noBloom, sqlite, latencies, catchUp, startup, recovery, consumer, idle } =
    results
  const lines = [
    ceiling && `ceiling: ${whole(ceiling)} XADD/s, pipelined`,
    large && sustainedTable("blocks of 1 000 logs", large),
    bloom && sustainedTable("blocks of 200, 4 chains, bloom equality", bloom),
    noBloom && sustainedTable("blocks of 200, 4 chains, zero bloom", noBloom),
    sqlite &&
      `SQLite as store: ${whole(sqlite.perSecond)} events/s, ${tenth(sqlite.cpu)} µs CPU, peak ${whole(sqlite.peak)} MB`,
    latencies &&
      table(
        ["events/s × logs of a block", "chains", "p50 ms", "p99", "p99.9", "max", "CPU %"],
        latencies.map(({ load, logs, chains, p50, p99, p999, max, cpu }) => [
          `${whole(load)} × ${whole(logs)}`,
          String(chains),
          ...[p50, p99, p999, max, cpu].map(tenth),
        ]),
      ),
    catchUp &&
      `catch-up: ${whole(catchUp.blocks)} blocks in ${tenth(catchUp.seconds)} s: ${whole(catchUp.blocksPerSecond)} blocks/s, ` +
        `${whole(catchUp.perSecond)} events/s, ${tenth(catchUp.cpu)} µs CPU, peak ${whole(catchUp.peak)} MB`,
    startup &&
      `start → first stored event: ${whole(startup.first)} ms, of which Node ${whole(startup.node)} ms`,
    recovery &&
      table(
        ["recovery after a store outage", "rounds", "p50 s", "worst", "bare client p50", "worst"],
        recovery.away.map(({ store, outage, rounds, ours, bare }) => [
          `${store}, ${outage} s`,
          String(rounds),
          ...[ours.p50, ours.worst, bare.p50, bare.worst].map((value) => value.toFixed(2)),
        ]),
      ),
    recovery &&
      `recovery: socket cut ${tenth(recovery.socket)} s; caught up ${tenth(recovery.caughtUp)} s after the next event`,
    ...(consumer === undefined ? [] : consumerTables(consumer)),
    ...(results.fleet === undefined ? [] : fleetTables(results.fleet)),
    idle && `idle, four chains: ${idle.cpu.toFixed(2)} % of a core, ${whole(idle.resident)} MB`,
    results.chains && pointTable("chains (10 000 events/s)", results.chains),
    results.filters && pointTable("addresses (10 000 events/s)", results.filters),
    results.slope !== undefined && `soak: ${results.slope.toFixed(2)} MB/min`,
    results.goals &&
      table(
        ["goal", "figure", ""],
        results.goals.map(({ goal, figure, met }) => [
          goal,
          figure,
          met === undefined ? "–" : met ? "met" : "NOT MET",
        ]),
      ),
  ]
  return lines.filter((line) => typeof line === "string").join("\n\n")
}
