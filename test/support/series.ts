/** The series names that a query may use. */
import { definitions } from "../../src/observability/Metrics.ts"
import { namesOf } from "../../src/observability/MetricFamily.ts"
import type { Definition } from "../../src/observability/MetricFamily.ts"

/** Every series of a metric. */
export const seriesOf = (one: Definition): ReadonlyArray<string> =>
  namesOf(one).flatMap((name) =>
    one.type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
  )

/** Every series of every defined metric. */
export const defined: ReadonlySet<string> = new Set(definitions.flatMap(seriesOf))
