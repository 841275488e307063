/**
 * All metrics, from which docs/METRICS.md is generated. Labels are bounded: chain, endpoint name, method, error type; never
 * a URL, a hash or a height.
 */
import * as ChainMetrics from "./ChainMetrics.ts"
import * as EndpointMetrics from "./EndpointMetrics.ts"
import type { Definition } from "./MetricFamily.ts"
import * as ProcessMetrics from "./ProcessMetrics.ts"
import * as StoreMetrics from "./StoreMetrics.ts"

export const definitions: ReadonlyArray<Definition> = [
  ...ChainMetrics.definitions,
  ...EndpointMetrics.definitions,
  ...StoreMetrics.definitions,
  ...ProcessMetrics.definitions,
]
