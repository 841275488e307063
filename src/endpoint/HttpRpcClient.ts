/**
 * One provider over HTTP: requests and batches that must not delay heads, such as ranges, receipts and audits.
 *
 * It implements the same interface as a WebSocket connection, so that the pool maintains both in the same way: it
 * verifies the chain id first, and ends once, with one `EndpointError`, when a request gets no response. Heads are polled;
 * there are no other subscriptions.
 */
import { Clock, Deferred, Duration, Effect, Redacted, Stream } from "effect"
import { HttpBody, HttpClient, HttpClientRequest } from "effect/http"
import type { HttpClientError, HttpClientResponse } from "effect/http"
import type { EndpointConfig } from "../config/AppConfig.ts"
import type { ChainId } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { percentDecoded, Redaction } from "../Redactor.ts"
import { Tracing } from "../observability/Tracing.ts"
import * as RpcClient from "./RpcClient.ts"
import { notAnswered, rejected } from "./RpcClient.ts"
import type { Answer, Outcome } from "./RpcClient.ts"
import { defaultPollInterval } from "./Endpoint.ts"
import type { EndpointOptions, SocketConnection } from "./Endpoint.ts"
import { Disconnected, EndpointError, Malformed, Oversized, Timeout } from "./EndpointError.ts"
import type { Reason } from "./EndpointError.ts"
import * as Eth from "./Eth.ts"
import * as JsonRpc from "./JsonRpc.ts"
import * as PolledHeads from "./PolledHeads.ts"
import type { RpcFailure } from "./RpcError.ts"

/** Cap for the delay of a `Retry-After` header (milliseconds). */
const maxRetryAfter = 60_000

/** Longest response without JSON-RPC (characters) that is quoted in an error. */
const maxGatewayText = 500

/** `Retry-After` in seconds (RFC 9110 §10.2.3), as milliseconds. No known provider sends a date. */
const retryAfter = (value: string | undefined): { retryAfter?: number } =>
  value !== undefined && /^\d{1,6}$/.test(value)
    ? { retryAfter: Math.min(Number(value) * 1000, maxRetryAfter) }
    : {}

/** The error text of a gateway beside the HTTP status, unless it is long or an HTML page. */
const gatewayText = (text: string): string => {
  const trimmed = text.trim()
  return trimmed === "" || trimmed.length > maxGatewayText || trimmed.startsWith("<") ? "" : `: ${trimmed}`
}

/** Moves user and password from the URL to a header: `fetch` rejects URLs with credentials. */
const requestTo = (address: string) => {
  const url = new URL(address)
  const [user, password] = [percentDecoded(url.username), percentDecoded(url.password)]
  url.username = url.password = ""
  const request = HttpClientRequest.post(url.href)
  return user === "" && password === "" ? request : HttpClientRequest.basicAuth(request, user, password)
}

/** Verifies the chain id. The connection lives as long as the scope. */
export const connect = Effect.fnUntraced(function* (
  chain: { readonly id: ChainId | undefined },
  { name, url }: EndpointConfig,
  options: EndpointOptions,
) {
  const http = yield* HttpClient.HttpClient
  const redact = yield* Redaction
  const tracing = yield* Tracing
  const clock = yield* Clock.Clock
  const millis = Duration.toMillis(options.requestTimeout)
  const ended = yield* Deferred.make<never, EndpointError>()
  const target = requestTo(Redacted.value(url))
  let nextId = 1

  const failure = (reason: Reason) => new EndpointError({ endpoint: name, reason })
  let hasEnded = false
  const endUnsafe = (reason: Reason) => {
    hasEnded = true
    Deferred.doneUnsafe(ended, Effect.fail(failure(reason)))
  }
  const context = { redact, rateLimiter: options.rateLimiter }

  /** The body; fails above the accepted size. */
  const textOf = (response: HttpClientResponse.HttpClientResponse) => {
    const decoder = new TextDecoder()
    let bytes = 0
    let text = ""
    return Stream.runForEach(response.stream, (chunk) => {
      bytes += chunk.length
      if (bytes > options.wsMaxPayload) return Effect.fail(new Oversized({ limit: options.wsMaxPayload }))
      text += decoder.decode(chunk, { stream: true })
      return Effect.void
    }).pipe(Effect.map(() => ({ response, text: text + decoder.decode() })))
  }

  const post = (body: string, what: string) =>
    http.execute(HttpClientRequest.setBody(target, HttpBody.text(body, "application/json"))).pipe(
      Effect.flatMap(textOf),
      Effect.catchTag("HttpClientError", (error) =>
        Effect.fail(new Disconnected({ detail: redact(detailOf(error)) })),
      ),
      Effect.timeoutOrElse({
        duration: options.requestTimeout,
        orElse: () => Effect.fail(new Timeout({ method: what, millis })),
      }),
      // The client's own span would contain the URL, and with it the key. Providers do not use our trace headers either.
      Effect.provideService(HttpClient.TracerDisabledWhen, () => true),
      Effect.provideService(HttpClient.TracerPropagationEnabled, false),
    )

  /** The answers in the order of the calls. An error for the whole batch, or else the first one, applies to missing calls. */
  const answersOf = (
    calls: ReadonlyArray<JsonRpc.Call>,
    firstId: number,
    { response, text }: { readonly response: HttpClientResponse.HttpClientResponse; readonly text: string },
  ): ReadonlyArray<Answer> | Malformed => {
    const messages = JsonRpc.decode(text)
    const http = { status: response.status, ...retryAfter(response.headers["retry-after"]) }
    const answers = Array<Answer | undefined>(calls.length)
    const detail = gatewayText(text)
    let batchFailure: RpcFailure | undefined =
      response.status === 200
        ? undefined
        : { code: 0, message: `HTTP status ${response.status}${detail}`, ...http }
    let firstFailure: RpcFailure | undefined
    let malformed: string | undefined
    for (const message of messages) {
      if (message._tag === "Malformed") malformed = message.detail
      if (message._tag === "Failure") {
        const rpc = { ...message.failure, ...http }
        const call = message.id === undefined ? undefined : calls[message.id - firstId]
        firstFailure ??= rpc
        if (call === undefined || message.id === undefined) batchFailure = rpc
        else answers[message.id - firstId] = rejected(name, call.method, rpc, context)
      } else if (message._tag === "Result" && calls[message.id - firstId] !== undefined) {
        answers[message.id - firstId] = message
      }
    }
    if (batchFailure === undefined && malformed !== undefined)
      return new Malformed({ detail: redact(malformed) })
    const missing = batchFailure ?? firstFailure ?? { ...notAnswered, ...http }
    return calls.map(({ method }, i) => answers[i] ?? rejected(name, method, missing, context))
  }

  const exchange: RpcClient.Send = (calls) =>
    Effect.suspend(() => {
      if (hasEnded) return Effect.fail(failure(new Disconnected({ detail: "ended by an earlier failure" })))
      const firstId = nextId
      nextId += calls.length
      const sentAt = Monotonic.millisUnsafe(clock)
      const report = (i: number, outcome: Outcome) =>
        options.onRequest?.(calls[i]!.method, outcome, Monotonic.millisUnsafe(clock) - sentAt)
      return post(JsonRpc.encode(firstId, calls), RpcClient.nameOf(calls)).pipe(
        Effect.flatMap((answer) => {
          const answers = answersOf(calls, firstId, answer)
          return answers instanceof Malformed ? Effect.fail(answers) : Effect.succeed(answers)
        }),
        Effect.tap((answers) =>
          Effect.sync(() => {
            for (const [i, { _tag }] of answers.entries()) report(i, _tag === "Result" ? "ok" : "refused")
          }),
        ),
        Effect.mapError((reason: Reason) => {
          for (const i of calls.keys()) report(i, "lost")
          // An oversized response is no fault of the endpoint; every other failure ends the connection.
          if (reason._tag !== "Oversized") endUnsafe(reason)
          return failure(reason)
        }),
      )
    })

  const client = RpcClient.make(name, exchange, { rateLimiter: options.rateLimiter, isTraced: tracing })
  yield* Eth.confirmChain(client, chain.id)
  const end = (reason: Reason) => Effect.sync(() => endUnsafe(reason))
  const noSubscriptions = rejected(
    name,
    "eth_subscribe",
    { code: -32601, message: "HTTP endpoints support no subscriptions" },
    context,
  )
  return {
    ...client,
    polled: true,
    subscribe: (params, onNotification) =>
      params[0] === "newHeads" || noSubscriptions._tag !== "Rejected"
        ? PolledHeads.subscribe(client, end, options.pollInterval ?? defaultPollInterval, onNotification)
        : Effect.fail(noSubscriptions.error),
    end,
    endUnsafe,
    ended: Deferred.await(ended),
  } satisfies SocketConnection as SocketConnection
})

/** The cause of a failed request, without the request itself: its URL may contain a key. */
const detailOf = ({ reason }: HttpClientError.HttpClientError): string => {
  const cause = "cause" in reason ? reason.cause : undefined
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
  return inner instanceof Error ? inner.message : reason._tag
}
