/** The metrics of an endpoint. */
import type { Outcome } from "../endpoint/RpcClient.ts"
import type { BreakerState } from "../Retry.ts"
import type { EndpointStatus } from "./EndpointStatus.ts"
import { latencies, makeTable } from "./MetricFamily.ts"
import type { Registry } from "./MetricFamily.ts"

const breakerCodes = { Closed: 0, Open: 1, HalfOpen: 2 } as const

/** The state of a breaker as a number. */
export const breakerCode = ({ _tag }: BreakerState): number => breakerCodes[_tag]

const outcomes: ReadonlyArray<Outcome> = ["ok", "refused", "lost"]

const { counter, definitions, gauge, histogram } = makeTable()

const perEndpoint = ["chain", "endpoint"] as const

const breakerState = gauge(
  "endpoint_circuit_breaker_state",
  perEndpoint,
  "1",
  "Breaker of an endpoint: 0 closed, 1 open, 2 half-open",
)
const auditMismatches = counter(
  "endpoint_audit_mismatches_total",
  perEndpoint,
  "1",
  "Audit mismatches, of logs or of a final block, attributed to the endpoint",
)
const requests = counter(
  "rpc_requests_total",
  ["chain", "endpoint", "method", "outcome"],
  "{request}",
  "Requests by method and outcome: ok, refused, lost (no response)",
)
const requestDuration = histogram(
  "rpc_request_duration_seconds",
  perEndpoint,
  "s",
  "Time from sending a request to receiving its response",
  latencies,
)

export { definitions }

/** Registers the series of an endpoint. */
export const register = (chain: string, endpoint: EndpointStatus, registry: Registry): void => {
  const labels = { chain, endpoint: endpoint.name }
  breakerState.read(labels, () => breakerCode(endpoint.breakerState), registry)
  auditMismatches.read(labels, () => endpoint.auditMismatches, registry)
  endpoint.recordDuration = requestDuration.record(labels, registry)
  for (const [method, counts] of endpoint.requests) {
    for (const outcome of outcomes)
      requests.read({ ...labels, method, outcome }, () => counts[outcome], registry)
  }
}
