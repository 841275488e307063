/**
 * Reconnects at once, before the backoff, where a healthy connection was cut: many cuts are over in a moment. Whatever drops
 * connections again and again is left to the backoff.
 */
import { Duration, Effect, Random, Schedule } from "effect"
import * as Monotonic from "../Monotonic.ts"
import type { Breaker } from "../Retry.ts"
import type { EndpointError } from "./EndpointError.ts"

/** How long a connection must have lived, and the least time between two fast reconnects of an endpoint (milliseconds). */
const interval = 60_000

/** The delay at random (milliseconds): many clients that a provider has dropped must not return in the same moment. */
const [shortest, longest] = [100, 300]
/** The same while nothing can be reached: no connection is opened there, so that such an attempt costs a provider nothing. */
const [shortestAgain, longestAgain] = [400, 600]
/** How long a fast reconnect waits until the provider can be reached (milliseconds): that of one that restarts. */
const patience = 3000

export interface FastReconnect {
  /** The breaker of the endpoint, whose successes show that its connection is healthy. */
  readonly breaker: Breaker
  /** A connection begins. Returns when (monotonic milliseconds). */
  readonly connected: Effect.Effect<number>
  /**
   * Whether to reconnect fast: what has just failed was a healthy connection, and the endpoint had no fast reconnect within the
   * interval; or the provider cannot be reached yet, shortly after such a failure.
   */
  readonly applies: (error: EndpointError) => Effect.Effect<boolean>
  /** The delay before it. */
  readonly delay: Schedule.Schedule<unknown>
}

export const make = (breaker: Breaker): FastReconnect => {
  let reconnectedAt = -Infinity
  /** `undefined` while there is no connection. */
  let connectedAt: number | undefined
  let isHealthy = false
  /** Until the fast reconnect has opened a connection, or is given up. */
  let isReconnecting = false
  let delay = [shortest, longest] as const
  const applies = (error: EndpointError, now: number) => {
    const lived = connectedAt === undefined ? undefined : now - connectedAt
    connectedAt = undefined
    if (lived === undefined) {
      delay = [shortestAgain, longestAgain]
      return isReconnecting && error.reason._tag === "Disconnected" && now - reconnectedAt < patience
    }
    delay = [shortest, longest]
    const begins = isHealthy && lived >= interval && now - reconnectedAt >= interval
    if (begins) reconnectedAt = now
    return begins
  }
  return {
    breaker: {
      ...breaker,
      succeed: Effect.suspend(() => {
        isHealthy = true
        return breaker.succeed
      }),
    },
    connected: Effect.map(Monotonic.millis, (now) => {
      connectedAt = now
      isHealthy = false
      isReconnecting = false
      return now
    }),
    applies: (error) => Effect.map(Monotonic.millis, (now) => (isReconnecting = applies(error, now))),
    delay: Schedule.forever.pipe(
      Schedule.modifyDelay(() => Effect.map(Random.nextBetween(...delay), Duration.millis)),
    ),
  }
}
