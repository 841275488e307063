/**
 * Reads logs over HTTP where an HTTP endpoint is connected, so that large responses do not delay heads: finalized ranges,
 * and blocks whose logs the WebSocket endpoint refuses to serve without an address. The WebSocket endpoint is the fallback.
 */
import { Effect } from "effect"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Endpoint } from "../endpoint/Endpoint.ts"
import { lowPriority } from "../endpoint/RateLimiter.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { LogSource } from "./LogSource.ts"

/**
 * @param socket the endpoint in use, for requests that fail over HTTP
 * @param capabilities the observed limits of the endpoint in use
 * @param http the HTTP endpoint to use, if one is connected
 */
export const preferHttp = (
  socket: LogSource,
  capabilities: Capabilities,
  http: () => Endpoint | undefined,
  logsOf: (endpoint: Endpoint) => LogSource,
): LogSource => {
  /** Success closes the HTTP endpoint's breaker; a failure ends its connection, and falls back to the WebSocket. */
  const httpFirst = <A>(
    read: (logs: LogSource) => Effect.Effect<A, EndpointError>,
  ): Effect.Effect<A, EndpointError> =>
    Effect.suspend(() => {
      const endpoint = http()
      if (endpoint === undefined) return read(socket)
      return read(logsOf(endpoint)).pipe(
        Effect.tap(endpoint.breaker.succeed),
        Effect.catch((error) => Effect.andThen(endpoint.connection.end(error.reason), read(socket))),
      )
    })

  const refusesBlocks = () => capabilities.refused.has("eth_getLogs")
  const httpIfRefused: typeof httpFirst = (read) => (refusesBlocks() ? httpFirst(read) : read(socket))

  return {
    block: (header) => httpIfRefused((logs) => logs.block(header)),
    unfinalizedRange: (from, to) => httpIfRefused((logs) => logs.unfinalizedRange(from, to)),
    finalizedRange: (from, to) => lowPriority(httpFirst((logs) => logs.finalizedRange(from, to))),
    width: () => {
      const endpoint = http()
      return endpoint === undefined ? socket.width() : logsOf(endpoint).width()
    },
    servedBy: () => (refusesBlocks() ? http()?.connection.name : undefined) ?? socket.servedBy(),
  }
}
