/**
 * A connected endpoint, and what is the same over a WebSocket and over HTTP. A connection ends once, with one
 * `EndpointError`. Nothing here retries.
 */
import { Clock, Deferred, Duration, Effect } from "effect"
import type { Scope } from "effect"
import type { ChainId } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { Tracing } from "../Tracing.ts"
import { Redaction } from "../Redactor.ts"
import type { Capabilities } from "./Capabilities.ts"
import { EndpointError, errorKind, isRpcError, Malformed, Timeout } from "./EndpointError.ts"
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

export interface ConnectionOptions {
  readonly requestTimeout: Duration.Duration
  readonly wsMaxPayload: number
  /** Called when a request ends, with its duration in milliseconds. */
  readonly onRequest?: (method: string, outcome: RpcClient.Outcome, millis: number) => void
  /** Called when the endpoint refuses `newHeads`. */
  readonly onHeadsPolled?: (reason: string) => Effect.Effect<void>
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

/**
 * How a connection fails, ends and reports its requests.
 *
 * @param onEnd called first, before the users of the connection are interrupted
 */
export const makeCore = Effect.fnUntraced(function* (
  name: string,
  { requestTimeout, rateLimiter, onRequest }: ConnectionOptions,
  onEnd: (error: EndpointError) => void,
) {
  const redact = yield* Redaction
  const clock = yield* Clock.Clock
  const isTraced = yield* Tracing
  const ended = yield* Deferred.make<never, EndpointError>()
  const now = () => Monotonic.millisUnsafe(clock)
  let end: EndpointError | undefined
  const failure = (reason: Reason) => new EndpointError({ endpoint: name, reason })
  const endUnsafe = (reason: Reason) => {
    if (end !== undefined) return
    end = failure(reason)
    onEnd(end)
    Deferred.doneUnsafe(ended, Effect.fail(end))
  }
  return {
    now,
    redact,
    rateLimiter,
    failure,
    endUnsafe,
    ended: Deferred.await(ended),
    /** Why the connection has ended, if it has. */
    endedWith: () => end,
    /** A violation of the protocol by text of the provider. */
    malformed: (detail: string) => new Malformed({ detail: redact(detail) }),
    /** No response in time. */
    timeout: (method: string) => new Timeout({ method, millis: Duration.toMillis(requestTimeout) }),
    /** The answer to a call that was rejected with this error. */
    rejected: (method: string, rpc: RpcFailure) =>
      RpcClient.rejected(name, method, rpc, { redact, rateLimiter }),
    /** Reports the end of a request that was sent at `sentAt`. */
    report: (method: string, outcome: RpcClient.Outcome, sentAt: number) =>
      onRequest?.(method, outcome, now() - sentAt),
    /** Requests that are sent by `send`, within the rate limit. */
    client: (send: RpcClient.Send) => RpcClient.make(name, send, { rateLimiter, isTraced }),
  }
})

export type ConnectionCore = Effect.Success<ReturnType<typeof makeCore>>

/** Whether the endpoint does not offer the subscription, as opposed to a missing key or an exhausted quota. */
const isSubscriptionRefused = (error: EndpointError) =>
  isRpcError(error) && errorKind(error) !== "Unauthorized"

/**
 * Verifies the chain id (`undefined`: any chain). If `newHeads` is refused, heads are polled; the refusal is remembered
 * across connections.
 */
export const makeConnection = Effect.fnUntraced(function* (
  chainId: ChainId | undefined,
  { endUnsafe, ended }: ConnectionCore,
  {
    heads,
    capabilities,
    pollInterval = defaultPollInterval,
    onHeadsPolled = () => Effect.void,
  }: ConnectionOptions,
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
        return Effect.andThen(onHeadsPolled(message), poll)
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
