/**
 * Reconnects at once, before the backoff, where a healthy connection was cut: many cuts are over in a moment. Whatever drops
 * connections again and again is left to the backoff.
 */
import { Duration, Effect, Random, Schedule } from "effect"
import * as Monotonic from "../Monotonic.ts"
import type { Breaker } from "../Retry.ts"

/** How long a connection must have lived, and the least time between two fast reconnects of an endpoint (milliseconds). */
const interval = 60_000

/** Milliseconds, at random: many clients that a provider has dropped must not return in the same moment. */
const [shortest, longest] = [100, 300]

/** The delay before a fast reconnect. */
export const delay = Schedule.forever.pipe(
  Schedule.modifyDelay(() => Effect.map(Random.nextBetween(shortest, longest), Duration.millis)),
)

export interface FastReconnect {
  /** The breaker of the endpoint, whose successes show that its connection is healthy. */
  readonly breaker: Breaker
  /** A connection begins. Returns when (monotonic milliseconds). */
  readonly connected: Effect.Effect<number>
  /** Whether what has just failed was a healthy connection, and the endpoint had no fast reconnect within the interval. */
  readonly applies: Effect.Effect<boolean>
}

export const make = (breaker: Breaker): FastReconnect => {
  let reconnectedAt = -Infinity
  /** `undefined` while there is no connection. */
  let connectedAt: number | undefined
  let isHealthy = false
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
      return now
    }),
    applies: Effect.map(Monotonic.millis, (now) => {
      const lived = connectedAt === undefined ? 0 : now - connectedAt
      connectedAt = undefined
      const applies = isHealthy && lived >= interval && now - reconnectedAt >= interval
      if (applies) reconnectedAt = now
      return applies
    }),
  }
}
