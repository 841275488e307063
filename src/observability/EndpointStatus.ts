/** The state of an endpoint: its connection, its requests, and what it supports. */
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { Connection } from "../endpoint/Connection.ts"
import type { RateLimiter } from "../endpoint/RateLimiter.ts"
import type { Outcome } from "../endpoint/RpcClient.ts"
import { stateOf } from "../Retry.ts"
import type { Breaker, BreakerState } from "../Retry.ts"

/** The methods that the ingestor calls: the only values of the `method` label of the metrics. */
export const methods = [
  "eth_chainId",
  "eth_blockNumber",
  "eth_syncing",
  "eth_subscribe",
  "eth_getBlockByNumber",
  "eth_getLogs",
  "eth_getBlockReceipts",
  "eth_getBlockByHash",
  "eth_getTransactionReceipt",
] as const

export class EndpointStatus {
  readonly name: string
  breaker: Breaker | undefined
  capabilities: Capabilities | undefined
  rateLimiter: RateLimiter | undefined
  /** The most recent connection. */
  connection: Pick<Connection, "polled"> | undefined
  connectedSince: number | undefined
  /** Connections made since the process started. */
  connects = 0
  /** Responses that the audit or the endpoint's own header proved wrong. */
  auditMismatches = 0
  readonly requests = new Map<string, Record<Outcome, number>>(
    methods.map((method) => [method, { ok: 0, refused: 0, lost: 0 }]),
  )
  /** Records the duration of a request, in seconds. */
  recordDuration: (seconds: number) => void = () => {}

  constructor(name: string) {
    this.name = name
  }

  requested(method: string, outcome: Outcome, millis: number): void {
    const counts = this.requests.get(method)
    if (counts === undefined) return
    counts[outcome]++
    if (outcome !== "lost") this.recordDuration(millis / 1000)
  }

  /** How this endpoint delivers heads when it is in use; `undefined` while it is not connected. */
  get heads(): "subscribed" | "polled" | undefined {
    if (this.connectedSince === undefined || this.connection === undefined) return undefined
    return this.connection.polled ? "polled" : "subscribed"
  }

  get breakerState(): BreakerState {
    return stateOf(this.breaker)
  }
}
