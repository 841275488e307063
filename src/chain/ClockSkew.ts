/** Whether a chain's time is ours: some nodes send milliseconds, and some machines have the wrong clock. */
import { Clock, Duration, Effect } from "effect"
import type { Header } from "../Domain.ts"
import { logEvent } from "../observability/LogEvents.ts"

/** A latest block that is further away from now than this is worth a word (milliseconds). */
const far = Duration.toMillis("1 day")

/** Warns of a latest block whose time is far from now, once. The time is stored as the endpoint tells it. */
export const make = (): ((endpoint: string, latest: Header) => Effect.Effect<void>) => {
  let warned = false
  return Effect.fnUntraced(function* (endpoint, { number, timestamp }) {
    const now = yield* Clock.currentTimeMillis
    if (warned || Math.abs(now - timestamp * 1000) <= far) return
    warned = true
    yield* logEvent(
      "head_time",
      `${endpoint} says that block ${number} is of ${timestamp}, and it is ${Math.floor(now / 1000)} here (unix seconds): times are stored as the endpoint tells them`,
      { block: number },
    )
  })
}
