/**
 * One connection to one provider: requests, batches and subscriptions over a scoped WebSocket.
 *
 * A connection ends once, with one `EndpointError`: because the socket closed, because the other side broke the protocol
 * or went silent, or because whoever uses it has had enough (`end`). What is still waiting for an answer then fails
 * with the same error. Nothing here retries.
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
import { notAnswered, rejected } from "./RpcClient.ts"
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
import * as JsonRpc from "./JsonRpc.ts"
import type { Capabilities } from "./Capabilities.ts"
import * as PolledHeads from "./PolledHeads.ts"
import { normalizeRpcError } from "./RpcError.ts"
import type { RpcFailure } from "./RpcError.ts"
import { Transport } from "./Socket.ts"

/** An endpoint that can be asked, over a WebSocket or over HTTP. */
export interface Connection extends RpcClient.RpcClient {
  /** The endpoint's public name. */
  readonly name: string
  /** Whether its heads are polled: what it says of the tip may then come from different nodes. */
  readonly polled: boolean
  /** Ends the connection for this reason, unless it has ended already. */
  readonly end: (reason: Reason) => Effect.Effect<void>
  /** `end` for callbacks. */
  readonly endUnsafe: (reason: Reason) => void
  /** Fails when the connection ends. */
  readonly ended: Effect.Effect<never, EndpointError>
}

/** One that also announces things; an HTTP endpoint does so by polling, heads only. */
export interface SocketConnection extends Connection {
  /** Calls back for each notification until the scope closes; also for those that overtook the reply. */
  readonly subscribe: (
    params: ReadonlyArray<unknown>,
    onNotification: (result: unknown) => void,
  ) => Effect.Effect<void, EndpointError, Scope.Scope>
}

export interface EndpointOptions {
  readonly requestTimeout: Duration.Duration
  readonly wsMaxPayload: number
  /** Told about the end of each request, with its duration in milliseconds. */
  readonly onRequest?: (method: string, outcome: Outcome, millis: number) => void
  /** What the endpoint may be asked; without one, anything at any time. */
  readonly rateLimiter?: RateLimiter
  /** Where it is remembered that the endpoint refuses a subscription to heads. */
  readonly capabilities?: Capabilities
  /** `poll`: no subscription to heads is asked for. */
  readonly heads?: "subscribe" | "poll"
  /** How often heads are polled where they are; a second without. */
  readonly pollInterval?: Duration.Duration
}

/** A subscription is refused for what it is; a key or a quota is another matter. */
const isSubscriptionRefused = (error: EndpointError) =>
  isRpcError(error) && errorKind(error) !== "Unauthorized"

/** How often heads are polled where nothing else is said. */
export const defaultPollInterval = Duration.seconds(1)

/** Providers cut sockets that are idle for 30 s and more. */
const heartbeat = Duration.seconds(20)

/** Notifications kept for a subscription whose reply has not arrived yet, and the characters that one may have. */
const mostPendingNotifications = 64
const longestPendingNotification = 64 * 1024

/** Subscription ids are 34 characters and shorter where we have seen any. */
const longestSubscription = 256

/** Messages a second that nobody asked for: late answers, notifications without a subscription. */
const mostUnsolicited = 1000

/** Calls that were sent in one frame and are answered together. */
interface Exchange {
  readonly answers: Array<Answer>
  unanswered: number
  readonly sentAt: number
  readonly resume: (answers: Effect.Effect<ReadonlyArray<Answer>, EndpointError>) => void
}

interface PendingCall {
  readonly method: string
  readonly position: number
  readonly exchange: Exchange
}

/**
 * Connects and makes sure that it is the right chain (`id: undefined`: any chain). The connection lives as long as the
 * scope.
 */
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
    const pendingCalls = new Map<number, PendingCall>()
    const subscriptions = new Map<string, (result: unknown) => void>()
    const pendingNotifications: Array<{ readonly subscription: string; readonly result: unknown }> = []
    let end: EndpointError | undefined
    /** Messages and pongs: any of them shows that the other side is alive. */
    let framesReceived = 0
    let polled = options.heads === "poll" || options.capabilities?.announcesHeads === false
    let nextId = 1
    let notifications = 0
    let unsolicited = { since: 0, messages: 0 }

    const failure = (reason: Reason) => new EndpointError({ endpoint: name, reason })

    const report = (method: string, outcome: Outcome, { sentAt }: Exchange) =>
      options.onRequest?.(method, outcome, Monotonic.millisUnsafe(clock) - sentAt)

    const endUnsafe = (reason: Reason) => {
      if (end !== undefined) return
      end = failure(reason)
      for (const { exchange, method } of pendingCalls.values()) {
        report(method, "lost", exchange)
        exchange.resume(Effect.fail(end))
      }
      pendingCalls.clear()
      // Whoever asked hears of it first, and may learn from it, before whoever uses the connection is stopped.
      Deferred.doneUnsafe(ended, Effect.fail(end))
    }

    const onUnsolicited = () => {
      const now = Monotonic.millisUnsafe(clock)
      if (now - unsolicited.since >= 1000) unsolicited = { since: now, messages: 0 }
      if (++unsolicited.messages <= mostUnsolicited) return
      endUnsafe(
        new Malformed({ detail: `more than ${mostUnsolicited} messages a second that nobody asked for` }),
      )
    }

    /** An unknown id is the late answer to a request that was given up, or of no request at all. */
    const settle = (id: number, answerTo: (method: string) => Answer) => {
      const found = pendingCalls.get(id)
      if (found === undefined) {
        const wasAsked = Number.isInteger(id) && id >= 1 && id < nextId
        return wasAsked
          ? onUnsolicited()
          : endUnsafe(new Malformed({ detail: "an answer to no request of ours" }))
      }
      pendingCalls.delete(id)
      const { exchange, method, position } = found
      const answer = answerTo(method)
      report(method, answer._tag === "Result" ? "ok" : "refused", exchange)
      exchange.answers[position] = answer
      exchange.unanswered--
      if (exchange.unanswered === 0) exchange.resume(Effect.succeed(exchange.answers))
    }

    const rejection = (rpc: RpcFailure) => (method: string) =>
      rejected(name, method, rpc, { redact, rateLimiter: options.rateLimiter })

    /** Refuses what is still waiting of a frame of ours. */
    const rejectPending = (of: Exchange, rpc: RpcFailure) => {
      for (const [id, { exchange }] of pendingCalls) if (exchange === of) settle(id, rejection(rpc))
    }

    /**
     * A refusal without an id: "too many" is about the oldest request; anything else is about a batch first, then about a
     * frame of ours that was not understood.
     */
    const rejectOldest = (rpc: RpcFailure) => {
      const refusal = normalizeRpcError(rpc)
      const isThrottled = refusal.kind === "RateLimited"
      const asked = pendingCalls.values()
      const batch = isThrottled
        ? undefined
        : pendingCalls.values().find(({ exchange }) => exchange.answers.length > 1)?.exchange
      const oldest = batch ?? asked.next().value?.exchange
      if (oldest !== undefined) return rejectPending(oldest, rpc)
      if (!isThrottled)
        return endUnsafe(new Malformed({ detail: redact(`an error without an id: ${rpc.message}`) }))
      options.rateLimiter?.throttled(refusal.retryAfter)
      return onUnsolicited()
    }

    /**
     * A batch is answered in one frame. What is left out is refused as the rest is: geth says "batch too large" to the
     * first call alone.
     */
    const rejectUnanswered = (answered: ReadonlySet<Exchange>, messages: ReadonlyArray<JsonRpc.Message>) => {
      const failure = messages.find(({ _tag }) => _tag === "Failure")
      for (const exchange of answered) {
        if (exchange.unanswered > 0)
          rejectPending(exchange, failure?._tag === "Failure" ? failure.failure : notAnswered)
      }
    }

    const onMessage = (message: JsonRpc.Message, length: number): void => {
      switch (message._tag) {
        case "Result":
          return settle(message.id, () => message)
        case "Failure":
          return message.id === undefined
            ? rejectOldest(message.failure)
            : settle(message.id, rejection(message.failure))
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

    /** Nothing catches what is thrown out of here, and it would end the process. */
    const onText = (text: string) => {
      framesReceived++
      if (end !== undefined) return
      if (text.trim() === "") return onUnsolicited()
      try {
        const messages = JsonRpc.decode(text)
        const answered = new Set<Exchange>()
        const isBatch = JsonRpc.isBatch(text)
        for (const message of messages) {
          if (isBatch && "id" in message && message.id !== undefined) {
            const asked = pendingCalls.get(message.id)
            if (asked !== undefined) answered.add(asked.exchange)
          }
          onMessage(message, text.length)
          if (end !== undefined) return
        }
        rejectUnanswered(answered, messages)
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
            requests: nextId - 1,
            notifications,
            reason: end?.reason.message ?? "by us",
          }),
        )
        endUnsafe(new Disconnected({ detail: "closed by us" }))
      }),
    )

    /** Sends calls in one frame and waits for the answers to all of them. */
    const exchange: RpcClient.Send = (calls) =>
      Effect.callback<ReadonlyArray<Answer>, EndpointError>((resume) => {
        if (end !== undefined) return resume(Effect.fail(end))
        const first = nextId
        nextId += calls.length
        const sentAt = Monotonic.millisUnsafe(clock)
        const exchange = { answers: Array<Answer>(calls.length), unanswered: calls.length, sentAt, resume }
        for (const [position, { method }] of calls.entries()) {
          pendingCalls.set(first + position, { method, position, exchange })
        }
        link.send(JsonRpc.encode(first, calls))
        return Effect.sync(() => {
          for (let id = first; id < first + calls.length; id++) {
            if (pendingCalls.delete(id)) report(calls[id - first]!.method, "lost", exchange)
          }
        })
      }).pipe(
        Effect.timeoutOrElse({
          duration: options.requestTimeout,
          orElse: () => Effect.fail(failure(new Timeout({ method: RpcClient.nameOf(calls), millis }))),
        }),
      )

    const { request, batch } = RpcClient.make(exchange, {
      rateLimiter: options.rateLimiter,
      tracedAs: tracing ? name : undefined,
    })

    const subscribeTo = Effect.fnUntraced(function* (
      params: ReadonlyArray<unknown>,
      onNotification: (result: unknown) => void,
    ) {
      const given = yield* request("eth_subscribe", params)
      const id = JsonRpc.subscriptionOf(given)
      if (id === undefined || id.length > longestSubscription) {
        return yield* failure(new Malformed({ detail: "eth_subscribe was not answered with an id" }))
      }
      subscriptions.set(id, onNotification)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          subscriptions.delete(id)
          const unsubscribe = { method: "eth_unsubscribe", params: [given] }
          if (end === undefined) link.send(JsonRpc.encode(nextId++, [unsubscribe]))
        }),
      )
      const early = pendingNotifications.splice(0)
      for (const notification of early) {
        if (notification.subscription === id) onNotification(notification.result)
        else pendingNotifications.push(notification)
      }
    })

    const base = { name, request, end: (reason: Reason) => Effect.sync(() => endUnsafe(reason)) }

    /** Heads are polled where a subscription to them is refused; that is remembered. */
    const subscribe: SocketConnection["subscribe"] = (params, onNotification) => {
      if (params[0] !== "newHeads") return subscribeTo(params, onNotification)
      const poll = PolledHeads.subscribe(base, options.pollInterval ?? defaultPollInterval, onNotification)
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
      ...base,
      get polled() {
        return polled
      },
      batch,
      subscribe,
      endUnsafe,
      ended: Deferred.await(ended),
    }

    yield* RpcClient.confirmChain(name, chain.id, request)
    return connection
  },
  (effect, _, { name }) => Effect.annotateLogs(effect, { endpoint: name }),
)
