/**
 * Logs over HTTP where there is an HTTP endpoint, so that big answers do not block heads: ranges of final blocks, and
 * blocks that the WebSocket endpoint refuses to give without an address. The WebSocket is the way back.
 */
import { Effect } from "effect"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Live } from "../endpoint/PoolMember.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import { unhurried } from "../endpoint/RateLimiter.ts"
import type { Learned } from "../endpoint/Capabilities.ts"
import type { Logs } from "./LogSource.ts"

/**
 * @param socket the endpoint in use, which is asked where HTTP fails
 * @param learned what the endpoint in use was found to bear
 * @param http the HTTP endpoint to ask now, if there is one
 */
export const prefer = (
  socket: Logs,
  learned: Learned,
  http: () => Live<Connection> | undefined,
  logsOf: (live: Live<Connection>) => Logs,
): Logs => {
  /** What works clears the endpoint's breaker; what does not costs it its place for a while. */
  const first = <A>(
    ask: (logs: Logs) => Effect.Effect<A, EndpointError>,
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

  const refusesBlocks = () => learned.refused.has("eth_getLogs")

  return {
    tip: (header) =>
      refusesBlocks() ? first((logs) => logs.tip(header), socket.tip(header)) : socket.tip(header),
    recent: (from, to) =>
      refusesBlocks()
        ? first((logs) => logs.recent(from, to), socket.recent(from, to))
        : socket.recent(from, to),
    history: (from, to) =>
      unhurried(
        first(
          (logs) => logs.history(from, to),
          Effect.suspend(() => socket.history(from, to)),
        ),
      ),
    width: () => {
      const live = http()
      return live === undefined ? socket.width() : logsOf(live).width()
    },
    by: () => (refusesBlocks() ? http()?.connection.name : undefined) ?? socket.by(),
  }
}
