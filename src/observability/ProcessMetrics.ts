/** The metrics of the process: CPU, memory, event loop, and telemetry that was not delivered. */
import { version } from "../Version.ts"
import type { EventLoopLag } from "./EventLoopLag.ts"
import { makeTable } from "./MetricFamily.ts"
import type { Registry } from "./MetricFamily.ts"
import { signals } from "../Tracing.ts"
import type { Signal } from "../Tracing.ts"

const { counter, definitions, gauge, standardCounter, standardGauge } = makeTable()

const telemetryDropped = counter(
  "telemetry_dropped_total",
  ["signal"],
  "1",
  "Spans, data points and log records that were not delivered",
)
const fleetMembers = gauge(
  "fleet_members",
  ["fleet"],
  "1",
  "Replicas of the fleet that this one sees as present; 1 without a fleet",
)
const buildInfo = gauge("build_info", ["version"], "1", "Always 1; the version is in the label")
const start = standardGauge("process_start_time_seconds", [], "s", "Start of the process, unix time")
const cpu = standardCounter("process_cpu_seconds_total", [], "s", "User and system CPU time")
const memory = standardGauge("process_resident_memory_bytes", [], "By", "Resident memory")
const heapUsed = standardGauge("nodejs_heap_size_used_bytes", [], "By", "JavaScript heap in use")
const lagMedian = standardGauge(
  "nodejs_eventloop_lag_p50_seconds",
  [],
  "s",
  "Event loop delay in the last minute, median",
)
const lagHigh = standardGauge(
  "nodejs_eventloop_lag_p99_seconds",
  [],
  "s",
  "Event loop delay in the last minute, 99th percentile",
)

export { definitions }

/**
 * Registers the series of the fleet.
 *
 * @param fleet its name; empty without one
 * @param members how many replicas this one sees
 */
export const registerFleet = (fleet: string, members: () => number, registry: Registry): void =>
  void fleetMembers.read({ fleet }, members, registry)

/**
 * Registers the series of the process.
 *
 * @param startedAt unix milliseconds
 * @param lag the delay of the event loop
 * @param dropped telemetry that was not delivered, by signal
 */
export const register = (
  startedAt: number,
  lag: EventLoopLag,
  dropped: Readonly<Record<Signal, number>>,
  registry: Registry,
): void => {
  for (const signal of signals) telemetryDropped.read({ signal }, () => dropped[signal], registry)
  buildInfo.read({ version }, () => 1, registry)
  start.read({}, () => startedAt / 1000, registry)
  cpu.read({}, () => (process.cpuUsage().user + process.cpuUsage().system) / 1e6, registry)
  memory.read({}, () => process.memoryUsage.rss(), registry)
  heapUsed.read({}, () => process.memoryUsage().heapUsed, registry)
  lagMedian.read({}, () => lag.quantile(0.5), registry)
  lagHigh.read({}, () => lag.quantile(0.99), registry)
}
