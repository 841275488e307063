/**
 * One provider over a scoped WebSocket: requests, batches and subscriptions.
 *
 * The connection ends when the socket closes, when the server violates the protocol or goes silent, or when the caller ends
 * it. Pending requests then fail with the same error.
 */
import { Duration, Effect, Schedule } from "effect"
import type { EndpointConfig } from "../config/AppConfig.ts"
import type { ChainId } from "../Domain.ts"
import { makeConnection, makeCore } from "./Connection.ts"
import type { Connection, ConnectionOptions, ConnectionCore } from "./Connection.ts"
import { Defect, Disconnected, Oversized } from "./EndpointError.ts"
import type { EndpointError } from "./EndpointError.ts"
import * as Eth from "./Eth.ts"
import * as JsonRpc from "./JsonRpc.ts"
import { PendingCalls } from "./PendingCalls.ts"
import * as RpcClient from "./RpcClient.ts"
import type { Answer } from "./RpcClient.ts"
import { Transport } from "./Socket.ts"
import type { Link } from "./Socket.ts"

/** Interval of pings. Providers close sockets that are idle for 30 s or longer. */
const heartbeat = Duration.seconds(20)

/** Notifications kept for subscriptions whose response has not arrived yet, and their largest size in characters. */
const mostPendingNotifications = 64
const longestPendingNotification = 64 * 1024

/** Accepted unsolicited messages per second: late responses, notifications without a subscription. */
const mostUnsolicited = 1000

type Notification = Extract<JsonRpc.Message, { readonly _tag: "Notification" }>
type OnNotification = (result: unknown) => void

/** The subscriptions of a connection, and notifications that arrive before the response to `eth_subscribe`. */
class Subscriptions {
  readonly #handlers = new Map<string, OnNotification>()
  readonly #pending: Array<Notification> = []
  /** How many notifications were received. */
  received = 0

  add(id: string, onNotification: OnNotification): void {
    this.#handlers.set(id, onNotification)
    for (const notification of this.#pending.splice(0)) {
      if (notification.subscription === id) onNotification(notification.result)
      else this.#pending.push(notification)
    }
  }

  delete(id: string): void {
    this.#handlers.delete(id)
  }

  /**
   * Passes a notification on. Returns whether there is a subscription for it.
   *
   * @param length of its frame, in characters
   */
  deliver(notification: Notification, length: number): boolean {
    this.received++
    const handler = this.#handlers.get(notification.subscription)
    handler?.(notification.result)
    if (handler === undefined && length <= longestPendingNotification) this.#pending.push(notification)
    if (this.#pending.length > mostPendingNotifications) this.#pending.shift()
    return handler !== undefined
  }
}

/** Receives frames: the responses to pending calls, and notifications. */
const makeReceiver = (core: ConnectionCore) => {
  const { now, redact, malformed, endUnsafe, endedWith } = core
  let unsolicited = { since: 0, messages: 0 }

  /** Counts a message that belongs to no request and no subscription. Too many of them end the connection. */
  const onUnsolicited = () => {
    if (now() - unsolicited.since >= 1000) unsolicited = { since: now(), messages: 0 }
    if (++unsolicited.messages > mostUnsolicited)
      endUnsafe(malformed(`more than ${mostUnsolicited} unsolicited messages per second`))
  }

  const pending = new PendingCalls(core, onUnsolicited)
  const subscriptions = new Subscriptions()

  const onMessage = (message: JsonRpc.Message, length: number): void => {
    switch (message._tag) {
      case "Result":
      case "Failure":
        return pending.settle(message)
      case "Notification":
        return subscriptions.deliver(message, length) ? undefined : onUnsolicited()
      case "Other":
        return onUnsolicited()
      case "Malformed":
        return endUnsafe(malformed(message.detail))
    }
  }

  /** Must not throw: this runs in a callback of the socket, where an exception would end the process. */
  const onText = (text: string) => {
    if (endedWith() !== undefined) return
    if (text.trim() === "") return onUnsolicited()
    try {
      const messages = JsonRpc.decode(text)
      const answered = JsonRpc.isBatch(text) ? pending.exchangesOf(messages) : undefined
      for (const message of messages) {
        onMessage(message, text.length)
        if (endedWith() !== undefined) return
      }
      if (answered !== undefined) pending.rejectUnanswered(answered, messages)
    } catch (defect) {
      endUnsafe(new Defect({ detail: redact(String(defect)) }))
    }
  }

  return { pending, subscriptions, onText }
}

/** Sends calls in one frame and waits for all responses, at most for the timeout. */
const makeSend =
  (
    { endedWith, failure, timeout }: ConnectionCore,
    link: Link,
    pending: PendingCalls,
    requestTimeout: Duration.Duration,
  ): RpcClient.Send =>
  (calls) =>
    Effect.callback<ReadonlyArray<Answer>, EndpointError>((resume) => {
      const end = endedWith()
      if (end !== undefined) return resume(Effect.fail(end))
      const first = pending.add(calls, resume)
      link.send(JsonRpc.encode(first, calls))
      return Effect.sync(() => pending.cancel(first, calls.length))
    }).pipe(
      Effect.timeoutOrElse({
        duration: requestTimeout,
        orElse: () => Effect.fail(failure(timeout(RpcClient.nameOf(calls)))),
      }),
    )

/** Pings the server, and ends the connection if neither a pong nor a message arrives in time. */
const keepAlive = (
  { endUnsafe, timeout }: ConnectionCore,
  link: Link,
  framesReceived: () => number,
  requestTimeout: Duration.Duration,
) =>
  Effect.gen(function* () {
    const before = framesReceived()
    link.ping()
    yield* Effect.sleep(requestTimeout)
    if (framesReceived() === before) endUnsafe(timeout("a ping"))
  }).pipe(
    Effect.schedule(Schedule.spaced(heartbeat)),
    Effect.catchDefect((defect) => Effect.sync(() => endUnsafe(new Defect({ detail: String(defect) })))),
  )

/** Connects and verifies the chain id (`id: undefined`: any chain). The connection lives as long as the scope. */
export const connect = Effect.fnUntraced(
  function* (
    chain: { readonly id: ChainId | undefined },
    { name, url }: EndpointConfig,
    options: ConnectionOptions,
  ) {
    const { requestTimeout, wsMaxPayload } = options
    const transport = yield* Transport
    const core = yield* makeCore(name, options, (end) => pending.failAll(Effect.fail(end)))
    const { now, redact, failure, endUnsafe, endedWith } = core
    const openedAt = now()
    const { pending, subscriptions, onText } = makeReceiver(core)
    /** Messages and pongs; either shows that the server is alive. */
    let framesReceived = 0

    const link = yield* transport
      .connect(
        { url, timeout: requestTimeout, maxPayload: wsMaxPayload },
        {
          onText: (text) => {
            framesReceived++
            onText(text)
          },
          onPong: () => void framesReceived++,
          onOversized: () => endUnsafe(new Oversized({ limit: wsMaxPayload })),
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
        const seconds = Math.round((now() - openedAt) / 1000)
        const { sent: requests } = pending
        const reason = endedWith()?.reason.message ?? "by us"
        yield* Effect.logDebug("connection closed").pipe(
          Effect.annotateLogs({ seconds, requests, notifications: subscriptions.received, reason }),
        )
        endUnsafe(new Disconnected({ detail: "closed by us" }))
      }),
    )

    yield* Effect.forkScoped(keepAlive(core, link, () => framesReceived, requestTimeout))

    const client = core.client(makeSend(core, link, pending, requestTimeout))
    const subscribeTo = Effect.fnUntraced(function* (
      params: ReadonlyArray<unknown>,
      onNotification: OnNotification,
    ) {
      const { id, raw } = yield* Eth.subscribe(client, params)
      subscriptions.add(id, onNotification)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          subscriptions.delete(id)
          if (endedWith() === undefined) link.send(JsonRpc.encode(pending.takeId(), [Eth.unsubscribe(raw)]))
        }),
      )
    }) satisfies Connection["subscribe"]

    return yield* makeConnection(chain.id, core, options, client, subscribeTo)
  },
  (effect, _, { name }) => Effect.annotateLogs(effect, { endpoint: name }),
)
