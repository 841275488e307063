/**
 * One connection to one provider: requests, batches and subscriptions over a scoped WebSocket.
 *
 * A connection ends once, with one `EndpointError`: the socket closed, the server violated the protocol or went silent,
 * or the caller ended it (`end`). Pending requests then fail with the same error. Nothing here retries.
 */
import { Clock, Deferred, Duration, Effect, Schedule } from "effect"
import type { Scope } from "effect"
import type { EndpointConfig } from "../config/AppConfig.ts"
import type { ChainId } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { logEvent } from "../observability/LogEvents.ts"
import { Redaction } from "../Redactor.ts"
import { Tracing } from "../observability/Tracing.ts"
import type { RateLimiter } from "./RateLimiter.ts"
import * as RpcClient from "./RpcClient.ts"
import { rejected } from "./RpcClient.ts"
import type { Answer, Outcome } from "./RpcClient.ts"
import {
  Defect,
  Disconnected,
  EndpointError,
  isRpcError,
  Malformed,
  Oversized,
  errorKind,
  Timeout,
} from "./EndpointError.ts"
import type { Reason } from "./EndpointError.ts"
import * as Eth from "./Eth.ts"
import * as JsonRpc from "./JsonRpc.ts"
import type { Capabilities } from "./Capabilities.ts"
import * as PolledHeads from "./PolledHeads.ts"
import { PendingCalls } from "./PendingCalls.ts"
import { Transport } from "./Socket.ts"

/** A connected endpoint, over a WebSocket or over HTTP. */
export interface Connection extends RpcClient.RpcClient {
  /** The endpoint's public name. */
  readonly name: string
  /** Whether its heads are polled. Consecutive responses near the head may then come from different nodes. */
  readonly polled: boolean
  /** Ends the connection with this reason; a no-op if it has already ended. */
  readonly end: (reason: Reason) => Effect.Effect<void>
  /** `end` for callbacks. */
  readonly endUnsafe: (reason: Reason) => void
  /** Fails when the connection ends. */
  readonly ended: Effect.Effect<never, EndpointError>
}

/** A connection with subscriptions. An HTTP endpoint supports `newHeads` only, by polling. */
export interface SocketConnection extends Connection {
  /** Calls back for each notification until the scope closes, including those that arrive before the response. */
  readonly subscribe: (
    params: ReadonlyArray<unknown>,
    onNotification: (result: unknown) => void,
  ) => Effect.Effect<void, EndpointError, Scope.Scope>
}

export interface EndpointOptions {
  readonly requestTimeout: Duration.Duration
  readonly wsMaxPayload: number
  /** Called when a request ends, with its duration in milliseconds. */
  readonly onRequest?: (method: string, outcome: Outcome, millis: number) => void
  /** Limits requests to the endpoint; unlimited if absent. */
  readonly rateLimiter?: RateLimiter
  /** Remembers across connections whether the endpoint refuses `newHeads`. */
  readonly capabilities?: Capabilities
  /** `poll`: never subscribes to `newHeads`. */
  readonly heads?: "subscribe" | "poll"
  /** Interval of polled heads; default: one second. */
  readonly pollInterval?: Duration.Duration
}

/** Whether the endpoint does not offer the subscription, as opposed to a missing key or an exhausted quota. */
const isSubscriptionRefused = (error: EndpointError) =>
  isRpcError(error) && errorKind(error) !== "Unauthorized"

export const defaultPollInterval = Duration.seconds(1)

/** Interval of pings. Providers close sockets that are idle for 30 s or longer. */
const heartbeat = Duration.seconds(20)

/** Notifications kept for subscriptions whose response has not arrived yet, and their largest size in characters. */
const mostPendingNotifications = 64
const longestPendingNotification = 64 * 1024

/** Accepted unsolicited messages per second: late responses, notifications without a subscription. */
const mostUnsolicited = 1000

/** Connects and verifies the chain id (`id: undefined`: any chain). The connection lives as long as the scope. */
export const connect = Effect.fnUntraced(
  function* (
    chain: { readonly id: ChainId | undefined },
    { name, url }: EndpointConfig,
    options: EndpointOptions,
  ) {
    const transport = yield* Transport
    const redact = yield* Redaction
    const tracing = yield* Tracing
    const clock = yield* Clock.Clock
    const openedAt = Monotonic.millisUnsafe(clock)
    const millis = Duration.toMillis(options.requestTimeout)
    const ended = yield* Deferred.make<never, EndpointError>()
    const subscriptions = new Map<string, (result: unknown) => void>()
    const pendingNotifications: Array<{ readonly subscription: string; readonly result: unknown }> = []
    let end: EndpointError | undefined
    /** Messages and pongs; either shows that the server is alive. */
    let framesReceived = 0
    let polled = options.heads === "poll" || options.capabilities?.announcesHeads === false
    let notifications = 0
    let unsolicited = { since: 0, messages: 0 }

    const failure = (reason: Reason) => new EndpointError({ endpoint: name, reason })

    const endUnsafe = (reason: Reason) => {
      if (end !== undefined) return
      end = failure(reason)
      pending.failAll(Effect.fail(end))
      // Pending requests fail first, so that their callers can record it before the connection's users are interrupted.
      Deferred.doneUnsafe(ended, Effect.fail(end))
    }

    const onUnsolicited = () => {
      const now = Monotonic.millisUnsafe(clock)
      if (now - unsolicited.since >= 1000) unsolicited = { since: now, messages: 0 }
      if (++unsolicited.messages <= mostUnsolicited) return
      endUnsafe(new Malformed({ detail: `more than ${mostUnsolicited} unsolicited messages per second` }))
    }

    const pending = new PendingCalls({
      now: () => Monotonic.millisUnsafe(clock),
      rejected: (method, rpc) => rejected(name, method, rpc, { redact, rateLimiter: options.rateLimiter }),
      onRequest: options.onRequest,
      rateLimiter: options.rateLimiter,
      onUnsolicited,
      onMalformed: (detail) => endUnsafe(new Malformed({ detail: redact(detail) })),
    })

    const onMessage = (message: JsonRpc.Message, length: number): void => {
      switch (message._tag) {
        case "Result":
        case "Failure":
          return pending.settle(message)
        case "Notification": {
          notifications++
          const handler = subscriptions.get(message.subscription)
          if (handler) return handler(message.result)
          if (length <= longestPendingNotification) pendingNotifications.push(message)
          if (pendingNotifications.length > mostPendingNotifications) pendingNotifications.shift()
          return onUnsolicited()
        }
        case "Other":
          return onUnsolicited()
        case "Malformed":
          return endUnsafe(new Malformed({ detail: redact(message.detail) }))
      }
    }

    /** Must not throw: this runs in a callback of the socket, where an exception would end the process. */
    const onText = (text: string) => {
      framesReceived++
      if (end !== undefined) return
      if (text.trim() === "") return onUnsolicited()
      try {
        const messages = JsonRpc.decode(text)
        const answered = JsonRpc.isBatch(text) ? pending.exchangesOf(messages) : undefined
        for (const message of messages) {
          onMessage(message, text.length)
          if (end !== undefined) return
        }
        if (answered !== undefined) pending.rejectUnanswered(answered, messages)
      } catch (defect) {
        endUnsafe(new Defect({ detail: redact(String(defect)) }))
      }
    }

    const link = yield* transport
      .connect(
        { url, timeout: options.requestTimeout, maxPayload: options.wsMaxPayload },
        {
          onText,
          onPong: () => void framesReceived++,
          onOversized: () => endUnsafe(new Oversized({ limit: options.wsMaxPayload })),
          onClosed: (why, code) =>
            endUnsafe(
              new Disconnected({ detail: redact(why), ...(code === undefined ? undefined : { code }) }),
            ),
        },
      )
      .pipe(Effect.mapError((error) => failure(new Disconnected({ detail: redact(error.detail) }))))
    yield* Effect.logDebug("connection open")
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        const seconds = Math.round((Monotonic.millisUnsafe(clock) - openedAt) / 1000)
        yield* Effect.logDebug("connection closed").pipe(
          Effect.annotateLogs({
            seconds,
            requests: pending.sent,
            notifications,
            reason: end?.reason.message ?? "by us",
          }),
        )
        endUnsafe(new Disconnected({ detail: "closed by us" }))
      }),
    )

    /** Sends calls in one frame and waits for all responses. */
    const exchange: RpcClient.Send = (calls) =>
      Effect.callback<ReadonlyArray<Answer>, EndpointError>((resume) => {
        if (end !== undefined) return resume(Effect.fail(end))
        const first = pending.add(calls, resume)
        link.send(JsonRpc.encode(first, calls))
        return Effect.sync(() => pending.cancel(first, calls.length))
      }).pipe(
        Effect.timeoutOrElse({
          duration: options.requestTimeout,
          orElse: () => Effect.fail(failure(new Timeout({ method: RpcClient.nameOf(calls), millis }))),
        }),
      )

    const client = RpcClient.make(name, exchange, { rateLimiter: options.rateLimiter, isTraced: tracing })

    const subscribeTo = Effect.fnUntraced(function* (
      params: ReadonlyArray<unknown>,
      onNotification: (result: unknown) => void,
    ) {
      const { id, raw } = yield* Eth.subscribe(client, params)
      subscriptions.set(id, onNotification)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          subscriptions.delete(id)
          if (end === undefined) link.send(JsonRpc.encode(pending.takeId(), [Eth.unsubscribe(raw)]))
        }),
      )
      const early = pendingNotifications.splice(0)
      for (const notification of early) {
        if (notification.subscription === id) onNotification(notification.result)
        else pendingNotifications.push(notification)
      }
    })

    const endWith = (reason: Reason) => Effect.sync(() => endUnsafe(reason))

    /** Subscribes, or polls heads if `newHeads` is refused; the refusal is remembered across connections. */
    const subscribe: SocketConnection["subscribe"] = (params, onNotification) => {
      if (params[0] !== "newHeads") return subscribeTo(params, onNotification)
      const poll = PolledHeads.subscribe(
        client,
        endWith,
        options.pollInterval ?? defaultPollInterval,
        onNotification,
      )
      if (polled) return poll
      return subscribeTo(params, onNotification).pipe(
        Effect.catchIf(isSubscriptionRefused, (error) => {
          polled = true
          if (options.capabilities) options.capabilities.announcesHeads = false
          return Effect.andThen(
            logEvent("heads_polled", `heads are polled: ${error.reason.message}`, {
              reason: error.reason.message,
            }),
            poll,
          )
        }),
      )
    }

    yield* Effect.gen(function* () {
      const before = framesReceived
      link.ping()
      yield* Effect.sleep(options.requestTimeout)
      if (framesReceived === before) endUnsafe(new Timeout({ method: "a ping", millis }))
    }).pipe(
      Effect.schedule(Schedule.spaced(heartbeat)),
      Effect.catchDefect((defect) => Effect.sync(() => endUnsafe(new Defect({ detail: String(defect) })))),
      Effect.forkScoped,
    )

    const connection: SocketConnection = {
      ...client,
      get polled() {
        return polled
      },
      subscribe,
      end: endWith,
      endUnsafe,
      ended: Deferred.await(ended),
    }

    yield* Eth.confirmChain(client, chain.id)
    return connection
  },
  (effect, _, { name }) => Effect.annotateLogs(effect, { endpoint: name }),
)
