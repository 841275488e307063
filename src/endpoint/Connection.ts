/**
 * A connected endpoint, and what is the same over a WebSocket and over HTTP. A connection ends once, with one
 * `EndpointError`. Nothing here retries.
 */
import { Clock, Deferred, Duration, Effect } from "effect"
import type { Scope } from "effect"
import type { ChainId } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { logEvent } from "../observability/LogEvents.ts"
import { Tracing } from "../observability/Tracing.ts"
import { Redaction } from "../Redactor.ts"
import type { Redactor } from "../Redactor.ts"
import type { Capabilities } from "./Capabilities.ts"
import { EndpointError, errorKind, isRpcError, Timeout } from "./EndpointError.ts"
import type { Reason } from "./EndpointError.ts"
import * as Eth from "./Eth.ts"
import * as PolledHeads from "./PolledHeads.ts"
import type { RateLimiter } from "./RateLimiter.ts"
import * as RpcClient from "./RpcClient.ts"
import type { RpcFailure } from "./RpcError.ts"

export interface Connection extends RpcClient.RpcClient {
  readonly polled: boolean
  /**
   * Calls back for each notification until the scope closes, including those that arrive before the response. Over HTTP
   * `newHeads` only, by polling.
   */
  readonly subscribe: (
    params: ReadonlyArray<unknown>,
    onNotification: (result: unknown) => void,
  ) => Effect.Effect<void, EndpointError, Scope.Scope>
  /** Ends the connection with this reason; a no-op if it has already ended. */
  readonly end: (reason: Reason) => Effect.Effect<void>
  /** `end` for callbacks. */
  readonly endUnsafe: (reason: Reason) => void
  /** Fails when the connection ends. */
  readonly ended: Effect.Effect<never, EndpointError>
}

export interface EndpointOptions {
  readonly requestTimeout: Duration.Duration
  readonly wsMaxPayload: number
  /** Called when a request ends, with its duration in milliseconds. */
  readonly onRequest?: (method: string, outcome: RpcClient.Outcome, millis: number) => void
  /** Limits requests to the endpoint; unlimited if absent. */
  readonly rateLimiter?: RateLimiter
  /** Remembers across connections whether the endpoint refuses `newHeads`. */
  readonly capabilities?: Capabilities
  /** `poll`: never subscribes to `newHeads`. */
  readonly heads?: "subscribe" | "poll"
  /** Interval of polled heads; default: one second. */
  readonly pollInterval?: Duration.Duration
}

const defaultPollInterval = Duration.seconds(1)

/** How a connection fails and ends. */
export interface Lifecycle extends Pick<Connection, "name" | "endUnsafe" | "ended"> {
  /** Monotonic milliseconds. */
  readonly now: () => number
  readonly redact: Redactor
  readonly failure: (reason: Reason) => EndpointError
  /** The failure of a request without a response in time. */
  readonly timeout: (method: string) => EndpointError
  /** Requests that are sent by `send`, within the rate limit. */
  readonly client: (send: RpcClient.Send) => RpcClient.RpcClient
  /** The answer to a call that was rejected with this error. */
  readonly rejected: (method: string, rpc: RpcFailure) => RpcClient.Rejection
  /** Why the connection has ended, if it has. */
  readonly endedWith: () => EndpointError | undefined
}

/** @param onEnd called first, before the users of the connection are interrupted */
export const makeLifecycle = Effect.fnUntraced(function* (
  name: string,
  { requestTimeout, rateLimiter }: EndpointOptions,
  onEnd: (error: EndpointError) => void,
) {
  const redact = yield* Redaction
  const clock = yield* Clock.Clock
  const isTraced = yield* Tracing
  const ended = yield* Deferred.make<never, EndpointError>()
  const millis = Duration.toMillis(requestTimeout)
  let end: EndpointError | undefined
  const failure = (reason: Reason) => new EndpointError({ endpoint: name, reason })
  return {
    name,
    now: () => Monotonic.millisUnsafe(clock),
    redact,
    failure,
    timeout: (method) => failure(new Timeout({ method, millis })),
    client: (send) => RpcClient.make(name, send, { rateLimiter, isTraced }),
    rejected: (method, rpc) => RpcClient.rejected(name, method, rpc, { redact, rateLimiter }),
    endedWith: () => end,
    endUnsafe: (reason) => {
      if (end !== undefined) return
      end = failure(reason)
      onEnd(end)
      Deferred.doneUnsafe(ended, Effect.fail(end))
    },
    ended: Deferred.await(ended),
  } satisfies Lifecycle as Lifecycle
})

/** Whether the endpoint does not offer the subscription, as opposed to a missing key or an exhausted quota. */
const isSubscriptionRefused = (error: EndpointError) =>
  isRpcError(error) && errorKind(error) !== "Unauthorized"

/**
 * Verifies the chain id (`undefined`: any chain). If `newHeads` is refused, heads are polled; the refusal is remembered
 * across connections.
 */
export const makeConnection = Effect.fnUntraced(function* (
  chainId: ChainId | undefined,
  { endUnsafe, ended }: Lifecycle,
  { heads, capabilities, pollInterval = defaultPollInterval }: EndpointOptions,
  client: RpcClient.RpcClient,
  subscribeTo: Connection["subscribe"],
) {
  let polled = heads === "poll" || capabilities?.announcesHeads === false
  const end = (reason: Reason) => Effect.sync(() => endUnsafe(reason))

  const subscribe: Connection["subscribe"] = (params, onNotification) => {
    if (params[0] !== "newHeads") return subscribeTo(params, onNotification)
    const poll = PolledHeads.subscribe(client, end, pollInterval, onNotification)
    if (polled) return poll
    return subscribeTo(params, onNotification).pipe(
      Effect.catchIf(isSubscriptionRefused, ({ reason: { message } }) => {
        polled = true
        if (capabilities) capabilities.announcesHeads = false
        return Effect.andThen(
          logEvent("heads_polled", `heads are polled: ${message}`, { reason: message }),
          poll,
        )
      }),
    )
  }

  yield* Eth.confirmChain(client, chainId)
  return {
    ...client,
    get polled() {
      return polled
    },
    subscribe,
    end,
    endUnsafe,
    ended,
  } satisfies Connection as Connection
})
