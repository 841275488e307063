/** Detects clock skew between a chain and this machine: some nodes send milliseconds, and some machines have a wrong clock. */
import { Clock, Duration, Effect } from "effect"
import type { Header } from "../Domain.ts"
import type { Publisher } from "./ChainEvents.ts"

/** A latest block whose time is further from now than this is logged (milliseconds). */
const maxSkew = Duration.toMillis("1 day")

/** Warns once of a latest block whose time is far from now. The time is stored as the endpoint reports it. */
export const make = (
  publish: Publisher["publish"],
): ((endpoint: string, latest: Header) => Effect.Effect<void>) => {
  let warned = false
  return Effect.fnUntraced(function* (endpoint, header) {
    const now = yield* Clock.currentTimeMillis
    if (warned || Math.abs(now - header.timestamp * 1000) <= maxSkew) return
    warned = true
    yield* publish({ _tag: "ClockSkewed", endpoint, header })
  })
}
