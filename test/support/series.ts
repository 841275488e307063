/** The names that a query may use. */
import { definitions } from "../../src/Metrics.ts"

/** Every series of every metric that is defined. */
export const defined: ReadonlySet<string> = new Set(
  definitions.flatMap(({ name, type }) =>
    type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
  ),
)

/** Metrics that are on their way: as soon as one is defined, its queries have to return data like all others. */
export const announced: ReadonlySet<string> = new Set([
  "events_audited_missing_total",
  "events_audited_extra_total",
  "blocks_unaudited_total",
  "telemetry_dropped_total",
])
