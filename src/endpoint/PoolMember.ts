/** A connected endpoint. */
import { Effect, SubscriptionRef } from "effect"
import * as Monotonic from "../Monotonic.ts"
import type { Connection, SocketConnection } from "./Endpoint.ts"
import type { Capabilities } from "./Capabilities.ts"
import type { Breaker } from "../Retry.ts"

export interface PoolMember<C extends Connection = SocketConnection> {
  readonly connection: C
  readonly breaker: Breaker
  /** What the endpoint was found to bear; the same object for all its connections. */
  readonly capabilities: Capabilities
  /** The place in the order of preference, 0 first; HTTP endpoints come after all others. */
  readonly rank: number
  /** Since when (monotonic milliseconds). */
  readonly since: number
}

/** How long it must have been connected (milliseconds); twice as long for each failure since it last worked. */
const failbackDelay = 60_000
const longestFailbackDelay = 32 * failbackDelay

/** Whether it has stayed connected for so long, at this time (monotonic milliseconds), that it may be relied upon. */
export const isStable = ({ breaker, since }: PoolMember<Connection>, now: number): boolean => {
  const { failures } = SubscriptionRef.getUnsafe(breaker.state)
  return now - since >= Math.min(failbackDelay * 2 ** failures, longestFailbackDelay)
}

/**
 * It has given a good answer. One that is not in use handles no heads: its failures are forgotten when it answers after
 * it has stayed connected for a while.
 */
export const recordSuccess = (live: PoolMember<Connection>): Effect.Effect<void> =>
  Effect.flatMap(Monotonic.millis, (now) => (isStable(live, now) ? live.breaker.succeed : Effect.void))
