/**
 * Logs over HTTP where there is an HTTP endpoint, so that big answers do not block heads: ranges of final blocks, and
 * blocks that the WebSocket endpoint refuses to give without an address. The WebSocket is the way back.
 */
import { Effect } from "effect"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { PoolMember } from "../endpoint/PoolMember.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import { lowPriority } from "../endpoint/RateLimiter.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { LogSource } from "./LogSource.ts"

/**
 * @param socket the endpoint in use, which is asked where HTTP fails
 * @param capabilities what the endpoint in use was found to bear
 * @param http the HTTP endpoint to ask now, if there is one
 */
export const preferHttp = (
  socket: LogSource,
  capabilities: Capabilities,
  http: () => PoolMember<Connection> | undefined,
  logsOf: (live: PoolMember<Connection>) => LogSource,
): LogSource => {
  /** What works clears the endpoint's breaker; what does not costs it its place for a while. */
  const first = <A>(
    ask: (logs: LogSource) => Effect.Effect<A, EndpointError>,
    otherwise: Effect.Effect<A, EndpointError>,
  ): Effect.Effect<A, EndpointError> =>
    Effect.suspend(() => {
      const live = http()
      if (live === undefined) return otherwise
      return ask(logsOf(live)).pipe(
        Effect.tap(live.breaker.succeed),
        Effect.catch((error) => Effect.andThen(live.connection.end(error.reason), otherwise)),
      )
    })

  const refusesBlocks = () => capabilities.refused.has("eth_getLogs")

  return {
    block: (header) =>
      refusesBlocks() ? first((logs) => logs.block(header), socket.block(header)) : socket.block(header),
    unfinalizedRange: (from, to) =>
      refusesBlocks()
        ? first((logs) => logs.unfinalizedRange(from, to), socket.unfinalizedRange(from, to))
        : socket.unfinalizedRange(from, to),
    finalizedRange: (from, to) =>
      lowPriority(
        first(
          (logs) => logs.finalizedRange(from, to),
          Effect.suspend(() => socket.finalizedRange(from, to)),
        ),
      ),
    width: () => {
      const live = http()
      return live === undefined ? socket.width() : logsOf(live).width()
    },
    servedBy: () => (refusesBlocks() ? http()?.connection.name : undefined) ?? socket.servedBy(),
  }
}
