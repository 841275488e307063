/** Polled heads, for connections without a `newHeads` subscription. */
import { Effect, Predicate } from "effect"
import type { Duration, Scope } from "effect"
import * as Background from "../Background.ts"
import type { EndpointError, Reason } from "./EndpointError.ts"
import * as Eth from "./Eth.ts"
import type { RpcClient } from "./RpcClient.ts"

/** Consecutive failed polls that end the connection. */
const mostFailures = 3

const hashOf = (block: unknown): unknown =>
  Predicate.isObject(block) ? (block as { hash?: unknown }).hash : undefined

/** Fetches the latest block at once and then at an interval until the scope closes; calls back when it has changed. */
export const subscribe = Effect.fnUntraced(function* (
  client: RpcClient,
  end: (reason: Reason) => Effect.Effect<void>,
  interval: Duration.Duration,
  onHead: (header: unknown) => void,
): Effect.fn.Return<void, EndpointError, Scope.Scope> {
  let last: unknown
  let failures = 0

  const poll = Effect.gen(function* () {
    const block = yield* Eth.latestBlock(client)
    failures = 0
    const hash = hashOf(block)
    if (hash !== undefined && hash === last) return
    last = hash
    onHead(block)
  })

  yield* poll
  yield* Effect.sleep(interval).pipe(
    Effect.andThen(poll),
    Effect.catch((error) => (++failures < mostFailures ? Effect.void : end(error.reason))),
    Effect.forever,
    Background.forkScoped,
  )
})
