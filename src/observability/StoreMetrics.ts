/** The metrics of the store and of the readers of a stream. */
import { latencies, makeTable } from "./MetricFamily.ts"
import type { Registry } from "./MetricFamily.ts"
import type { StoreStatus } from "./StoreStatus.ts"

const { counter, definitions, gauge, histogram } = makeTable()

export const operationDuration = histogram(
  "store_operation_duration_seconds",
  ["operation"],
  "s",
  "Time from a call to its acknowledgement, by operation",
  latencies,
)
const memory = gauge("store_memory_bytes", [], "By", "Memory used by Redis, or the size of the SQLite file")
const memoryLimit = gauge("store_memory_limit_bytes", [], "By", "maxmemory of Redis; 0 means no limit")
const evictionUnsafe = gauge(
  "store_eviction_unsafe",
  [],
  "1",
  "1 when the maxmemory-policy of Redis may evict streams",
)
export const groupLag = gauge(
  "stream_group_lag",
  ["chain", "group"],
  "{entry}",
  "Entries not yet delivered to a consumer group (the 20 groups furthest behind)",
)
export const groupPending = gauge(
  "stream_group_pending",
  ["chain", "group"],
  "{entry}",
  "Entries delivered to a consumer group and not acknowledged (the 20 groups furthest behind)",
)
export const groupConsumers = gauge(
  "stream_group_consumers",
  ["chain", "group"],
  "1",
  "Consumers of a consumer group, active or not (the 20 groups furthest behind)",
)
export const groupIdle = gauge(
  "stream_group_idle_seconds",
  ["chain", "group"],
  "s",
  "Time since a consumer of the group last read or claimed entries; 0 while all are acknowledged (the 20 groups furthest behind)",
)
export const groupMissed = counter(
  "stream_group_missed_total",
  ["chain", "group"],
  "{entry}",
  "Entries trimmed before their delivery to a consumer group; 0 until the group has had a consumer (the 20 groups furthest behind)",
)
export const readerLag = gauge(
  "stream_reader_lag",
  ["chain", "reader"],
  "{entry}",
  "Entries not yet read by a reader with its own checkpoint (the 20 readers furthest behind)",
)
export const readerIdle = gauge(
  "stream_reader_idle_seconds",
  ["chain", "reader"],
  "s",
  "Time since a reader with its own checkpoint last reported its position (the 20 readers furthest behind)",
)
export const readerMissed = counter(
  "stream_reader_missed_total",
  ["chain", "reader"],
  "{entry}",
  "Entries trimmed before a reader with its own checkpoint read them (the 20 readers furthest behind)",
)

export { definitions }

/** Registers the series of the store. Those of readers come and go with them: see ReaderSeries.ts. */
export const register = (store: StoreStatus, registry: Registry): void => {
  memory.read({}, () => store.info?.bytes ?? 0, registry)
  memoryLimit.read({}, () => store.info?.limit ?? 0, registry)
  evictionUnsafe.read({}, () => Number(store.evictionUnsafe), registry)
}
