import type { Connection } from "./Endpoint.ts"
import type { HttpConnection } from "./HttpEndpoint.ts"
import type { Learned } from "./Learned.ts"
import type { Breaker } from "./RetryPolicy.ts"

/** A connected endpoint. */
export interface Live<C extends HttpConnection = Connection> {
  readonly connection: C
  readonly breaker: Breaker
  /** What the endpoint was found to bear; the same object for all its connections. */
  readonly learned: Learned
  /** The place in the order of preference, 0 first; HTTP endpoints come after all others. */
  readonly rank: number
  /** Since when (unix milliseconds). */
  readonly since: number
}
