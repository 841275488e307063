/** A connected endpoint: a provider of a chain, and what is known of it. */
import { Effect, SubscriptionRef } from "effect"
import type { Scope } from "effect"
import * as Monotonic from "../Monotonic.ts"
import type { Connection } from "./Connection.ts"
import type { Capabilities } from "./Capabilities.ts"
import type { EndpointError } from "./EndpointError.ts"
import type { Heads } from "./Heads.ts"
import type { Breaker } from "../Retry.ts"

export interface Endpoint {
  readonly connection: Connection
  readonly breaker: Breaker
  /** Observed limits; shared by all connections of the endpoint. */
  readonly capabilities: Capabilities
  /** Position in the order of preference, 0 first; HTTP endpoints come last. */
  readonly rank: number
  /** When it connected (monotonic milliseconds). */
  readonly since: number
  /** Subscribes to its heads and monitors it, for as long as the scope: it is the endpoint in use. */
  readonly heads: Effect.Effect<Heads, EndpointError, Scope.Scope>
}

/** Required time of connection (milliseconds); doubles with each failure since the last success. */
const failbackDelay = 60_000
const longestFailbackDelay = 32 * failbackDelay

/** Whether the endpoint has been connected long enough to fail back to it. */
export const isStable = ({ breaker, since }: Endpoint, now: number): boolean => {
  const { failures } = SubscriptionRef.getUnsafe(breaker.state)
  return now - since >= Math.min(failbackDelay * 2 ** failures, longestFailbackDelay)
}

/**
 * Records a successful response. A standby endpoint processes no heads, so its failure count is reset by a response once
 * its connection is stable.
 */
export const recordSuccess = (endpoint: Endpoint): Effect.Effect<void> =>
  Effect.flatMap(Monotonic.millis, (now) =>
    isStable(endpoint, now) ? endpoint.breaker.succeed : Effect.void,
  )
