/**
 * One connection to one provider: requests, batches and subscriptions over a scoped WebSocket.
 *
 * A connection ends once, with one `EndpointError`: because the socket closed, because the other side broke the protocol
 * or went silent, or because whoever uses it has had enough (`end`). What is still waiting for an answer then fails
 * with the same error. Nothing here retries.
 */
import { Clock, Deferred, Duration, Effect, Predicate, Schedule } from "effect"
import type { Scope } from "effect"
import type { EndpointConfig } from "../Config.ts"
import type { ChainId } from "../Domain.ts"
import { Redaction } from "../Redact.ts"
import {
  Defect,
  Disconnected,
  EndpointError,
  Malformed,
  Oversized,
  Rejected,
  Timeout,
  WrongChain,
} from "./EndpointError.ts"
import type { Reason } from "./EndpointError.ts"
import * as JsonRpc from "./JsonRpc.ts"
import { quantity } from "./Decode.ts"
import { classify } from "./Refusal.ts"
import type { RpcFailure } from "./Refusal.ts"
import { Transport } from "./Transport.ts"

/** The answer to one call of a batch. */
export type Answer =
  | { readonly _tag: "Result"; readonly result: unknown }
  | { readonly _tag: "Rejected"; readonly error: EndpointError }

export interface Connection {
  /** The endpoint's public name. */
  readonly name: string
  readonly request: (method: string, params: ReadonlyArray<unknown>) => Effect.Effect<unknown, EndpointError>
  /** Several calls in one frame. The answers are in the order of the calls; each may be a refusal of its own. */
  readonly batch: (calls: ReadonlyArray<JsonRpc.Call>) => Effect.Effect<ReadonlyArray<Answer>, EndpointError>
  /** Calls back for each notification until the scope closes; also for those that overtook the reply. */
  readonly subscribe: (
    params: ReadonlyArray<unknown>,
    onNotification: (result: unknown) => void,
  ) => Effect.Effect<void, EndpointError, Scope.Scope>
  /** Ends the connection for this reason, unless it has ended already. */
  readonly end: (reason: Reason) => Effect.Effect<void>
  /** `end` for callbacks. */
  readonly endUnsafe: (reason: Reason) => void
  /** Fails when the connection ends. */
  readonly ended: Effect.Effect<never, EndpointError>
}

/** How a request ended: answered, refused, or without an answer. */
export type Outcome = "ok" | "refused" | "lost"

export interface EndpointOptions {
  readonly requestTimeout: Duration.Duration
  readonly wsMaxPayload: number
  /** Told about the end of each request, with its duration in milliseconds. */
  readonly onRequest?: (method: string, outcome: Outcome, millis: number) => void
}

/** Providers cut sockets that are idle for 30 s and more. */
const heartbeat = Duration.seconds(20)

/** Notifications kept for a subscription whose reply has not arrived yet. */
const mostUnclaimed = 64

/** Calls that were sent in one frame and are answered together. */
interface Exchange {
  readonly answers: Array<Answer>
  unanswered: number
  readonly sentAt: number
  readonly resume: (answers: Effect.Effect<ReadonlyArray<Answer>, EndpointError>) => void
}

interface Waiting {
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
    const clock = yield* Clock.Clock
    const openedAt = clock.currentTimeMillisUnsafe()
    const millis = Duration.toMillis(options.requestTimeout)
    const ended = yield* Deferred.make<never, EndpointError>()
    const waiting = new Map<number, Waiting>()
    const subscriptions = new Map<string, (result: unknown) => void>()
    const unclaimed: Array<{ readonly subscription: string; readonly result: unknown }> = []
    let end: EndpointError | undefined
    let pongs = 0
    let nextId = 1
    let notifications = 0

    const failure = (reason: Reason) => new EndpointError({ endpoint: name, reason })

    const told = (method: string, outcome: Outcome, { sentAt }: Exchange) =>
      options.onRequest?.(method, outcome, clock.currentTimeMillisUnsafe() - sentAt)

    const endUnsafe = (reason: Reason) => {
      if (end !== undefined) return
      end = failure(reason)
      for (const { exchange, method } of waiting.values()) {
        told(method, "lost", exchange)
        exchange.resume(Effect.fail(end))
      }
      waiting.clear()
      // Whoever asked hears of it first, and may learn from it, before whoever uses the connection is stopped.
      Deferred.doneUnsafe(ended, Effect.fail(end))
    }

    /** An unknown id is the late answer to a request that was given up. */
    const settle = (id: number, answerTo: (method: string) => Answer) => {
      const found = waiting.get(id)
      if (found === undefined) return
      waiting.delete(id)
      const { exchange, method, position } = found
      const answer = answerTo(method)
      told(method, answer._tag === "Result" ? "ok" : "refused", exchange)
      exchange.answers[position] = answer
      exchange.unanswered--
      if (exchange.unanswered === 0) exchange.resume(Effect.succeed(exchange.answers))
    }

    const refused =
      (rpc: RpcFailure) =>
      (method: string): Answer => ({
        _tag: "Rejected",
        error: failure(
          new Rejected({ method, code: rpc.code, detail: redact(rpc.message), refusal: classify(rpc) }),
        ),
      })

    /** A refusal without an id can only be about a batch, or about a frame of ours that was not understood. */
    const refuseOldestBatch = (rpc: RpcFailure) => {
      const oldest = waiting.values().find(({ exchange }) => exchange.answers.length > 1)?.exchange
      if (oldest === undefined) {
        return endUnsafe(new Malformed({ detail: redact(`an error without an id: ${rpc.message}`) }))
      }
      for (const [id, { exchange }] of waiting) if (exchange === oldest) settle(id, refused(rpc))
    }

    const onMessage = (message: JsonRpc.Message): void => {
      switch (message._tag) {
        case "Result":
          return settle(message.id, () => message)
        case "Failure":
          return message.id === undefined
            ? refuseOldestBatch(message.failure)
            : settle(message.id, refused(message.failure))
        case "Notification": {
          notifications++
          const handler = subscriptions.get(message.subscription)
          if (handler) return handler(message.result)
          unclaimed.push(message)
          if (unclaimed.length > mostUnclaimed) unclaimed.shift()
          return
        }
        case "Other":
          return
        case "Malformed":
          return endUnsafe(new Malformed({ detail: redact(message.detail) }))
      }
    }

    const link = yield* transport
      .dial(
        { url, timeout: options.requestTimeout, maxPayload: options.wsMaxPayload },
        {
          onText: (text) => {
            if (end !== undefined) return
            // Called by the socket: what is thrown here would end the process, and with it every other chain.
            try {
              for (const message of JsonRpc.decode(text)) onMessage(message)
            } catch (defect) {
              endUnsafe(new Defect({ detail: redact(String(defect)) }))
            }
          },
          onPong: () => void pongs++,
          onOversized: () => endUnsafe(new Oversized({ limit: options.wsMaxPayload })),
          onClosed: (why) => endUnsafe(new Disconnected({ detail: redact(why) })),
        },
      )
      .pipe(Effect.mapError((error) => failure(new Disconnected({ detail: redact(error.detail) }))))
    yield* Effect.logInfo("connection open")
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        const seconds = Math.round((clock.currentTimeMillisUnsafe() - openedAt) / 1000)
        yield* Effect.logInfo("connection closed").pipe(
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
    const exchange = (
      calls: ReadonlyArray<JsonRpc.Call>,
      encode: (firstId: number) => string,
      what: string,
    ): Effect.Effect<ReadonlyArray<Answer>, EndpointError> =>
      Effect.callback<ReadonlyArray<Answer>, EndpointError>((resume) => {
        if (end !== undefined) return resume(Effect.fail(end))
        const first = nextId
        nextId += calls.length
        const sentAt = clock.currentTimeMillisUnsafe()
        const exchange = { answers: Array<Answer>(calls.length), unanswered: calls.length, sentAt, resume }
        for (const [position, { method }] of calls.entries()) {
          waiting.set(first + position, { method, position, exchange })
        }
        link.send(encode(first))
        return Effect.sync(() => {
          for (let id = first; id < first + calls.length; id++) {
            if (waiting.delete(id)) told(calls[id - first]!.method, "lost", exchange)
          }
        })
      }).pipe(
        Effect.timeoutOrElse({
          duration: options.requestTimeout,
          orElse: () => Effect.fail(failure(new Timeout({ method: what, millis }))),
        }),
      )

    const request = (method: string, params: ReadonlyArray<unknown>) => {
      const call = { method, params }
      return exchange([call], (id) => JsonRpc.encode(id, call), method).pipe(
        Effect.flatMap(([answer]) =>
          answer!._tag === "Result" ? Effect.succeed(answer!.result) : Effect.fail(answer!.error),
        ),
      )
    }

    const batch = (calls: ReadonlyArray<JsonRpc.Call>) =>
      calls.length === 0
        ? Effect.succeed([])
        : exchange(calls, (first) => JsonRpc.encodeBatch(first, calls), `a batch of ${calls[0]!.method}`)

    const subscribe = Effect.fnUntraced(function* (
      params: ReadonlyArray<unknown>,
      onNotification: (result: unknown) => void,
    ) {
      const id = yield* request("eth_subscribe", params)
      if (typeof id !== "string") {
        return yield* failure(new Malformed({ detail: "eth_subscribe was not answered with an id" }))
      }
      subscriptions.set(id, onNotification)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          subscriptions.delete(id)
          const unsubscribe = { method: "eth_unsubscribe", params: [id] }
          if (end === undefined) link.send(JsonRpc.encode(nextId++, unsubscribe))
        }),
      )
      const kept = unclaimed.splice(0)
      for (const notification of kept) {
        if (notification.subscription === id) onNotification(notification.result)
        else unclaimed.push(notification)
      }
    })

    yield* Effect.gen(function* () {
      const before = pongs
      link.ping()
      yield* Effect.sleep(options.requestTimeout)
      if (pongs === before) endUnsafe(new Timeout({ method: "a ping", millis }))
    }).pipe(Effect.schedule(Schedule.spaced(heartbeat)), Effect.forkScoped)

    const connection: Connection = {
      name,
      request,
      batch,
      subscribe,
      end: (reason) => Effect.sync(() => endUnsafe(reason)),
      endUnsafe,
      ended: Deferred.await(ended),
    }

    const answered = yield* request("eth_chainId", [])
    const actual = Predicate.isString(answered) ? quantity(answered) : undefined
    if (actual === undefined) {
      return yield* failure(new Malformed({ detail: "eth_chainId was not answered with a number" }))
    }
    if (chain.id !== undefined && actual !== chain.id)
      return yield* failure(new WrongChain({ expected: chain.id, actual }))
    return connection
  },
  (effect, _, { name }) => Effect.annotateLogs(effect, { endpoint: name }),
)
