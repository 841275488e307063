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
  logsOf: (member: PoolMember<Connection>) => LogSource,
): LogSource => {
  /** What works clears the endpoint's breaker; what does not costs it its place for a while. */
  const httpFirst = <A>(
    ask: (logs: LogSource) => Effect.Effect<A, EndpointError>,
    otherwise: Effect.Effect<A, EndpointError>,
  ): Effect.Effect<A, EndpointError> =>
    Effect.suspend(() => {
      const member = http()
      if (member === undefined) return otherwise
      return ask(logsOf(member)).pipe(
        Effect.tap(member.breaker.succeed),
        Effect.catch((error) => Effect.andThen(member.connection.end(error.reason), otherwise)),
      )
    })

  const refusesBlocks = () => capabilities.refused.has("eth_getLogs")

  return {
    block: (header) =>
      refusesBlocks() ? httpFirst((logs) => logs.block(header), socket.block(header)) : socket.block(header),
    unfinalizedRange: (from, to) =>
      refusesBlocks()
        ? httpFirst((logs) => logs.unfinalizedRange(from, to), socket.unfinalizedRange(from, to))
        : socket.unfinalizedRange(from, to),
    finalizedRange: (from, to) =>
      lowPriority(
        httpFirst(
          (logs) => logs.finalizedRange(from, to),
          Effect.suspend(() => socket.finalizedRange(from, to)),
        ),
      ),
    width: () => {
      const member = http()
      return member === undefined ? socket.width() : logsOf(member).width()
    },
    servedBy: () => (refusesBlocks() ? http()?.connection.name : undefined) ?? socket.servedBy(),
  }
}
