/** Detects clock skew between a chain and this machine: some nodes send milliseconds, and some machines have a wrong clock. */
import { Clock, Duration, Effect } from "effect"
import type { Header } from "../Domain.ts"
import { logEvent } from "../observability/LogEvents.ts"

/** A latest block whose time is further from now than this is logged (milliseconds). */
const maxSkew = Duration.toMillis("1 day")

/** Warns once of a latest block whose time is far from now. The time is stored as the endpoint reports it. */
export const make = (): ((endpoint: string, latest: Header) => Effect.Effect<void>) => {
  let warned = false
  return Effect.fnUntraced(function* (endpoint, { number, timestamp }) {
    const now = yield* Clock.currentTimeMillis
    if (warned || Math.abs(now - timestamp * 1000) <= maxSkew) return
    warned = true
    yield* logEvent(
      "head_time",
      `${endpoint} reports time ${timestamp} for block ${number}, local time is ${Math.floor(now / 1000)} (unix seconds): times are stored as reported`,
      { block: number },
    )
  })
}
