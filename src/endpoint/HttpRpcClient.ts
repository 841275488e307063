/**
 * One provider over HTTP: requests and batches, for what must not block heads: ranges, receipts, the second look.
 *
 * It behaves as a connection does, so that the same loop keeps it: it begins with the right chain id, and ends once, with
 * one `EndpointError`, when a request gets no answer. Its heads are polled; there is nothing else to
 * subscribe to.
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
import * as JsonRpc from "./JsonRpc.ts"
import * as PolledHeads from "./PolledHeads.ts"
import type { RpcFailure } from "./RpcError.ts"

/** Longest wait that a `Retry-After` header is believed to ask for. */
const maxRetryAfter = 60_000

/** Longest text (characters) of an answer without JSON-RPC that is read. */
const maxGatewayText = 500

/** `Retry-After` in seconds (RFC 9110 §10.2.3), as milliseconds. A date is not used by any provider we know of. */
const retryAfter = (value: string | undefined): { retryAfter?: number } =>
  value !== undefined && /^\d{1,6}$/.test(value)
    ? { retryAfter: Math.min(Number(value) * 1000, maxRetryAfter) }
    : {}

/** What a gateway says beside an HTTP status: a short text, and no page. */
const gatewayText = (text: string): string => {
  const trimmed = text.trim()
  return trimmed === "" || trimmed.length > maxGatewayText || trimmed.startsWith("<") ? "" : `: ${trimmed}`
}

/** The URL without its user and password, which `fetch` refuses to see there. */
const requestTo = (address: string) => {
  const url = new URL(address)
  const [user, password] = [percentDecoded(url.username), percentDecoded(url.password)]
  url.username = url.password = ""
  const request = HttpClientRequest.post(url.href)
  return user === "" && password === "" ? request : HttpClientRequest.basicAuth(request, user, password)
}

/** Makes sure that it is the right chain. What it answers is usable for as long as the scope lives. */
export const connect = Effect.fnUntraced(function* (
  chain: { readonly id: ChainId | undefined },
  { name, url }: EndpointConfig,
  options: EndpointOptions,
) {
  const client = yield* HttpClient.HttpClient
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

  /** The body, as long as it may be. */
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
    client.execute(HttpClientRequest.setBody(target, HttpBody.text(body, "application/json"))).pipe(
      Effect.flatMap(textOf),
      Effect.catchTag("HttpClientError", (error) =>
        Effect.fail(new Disconnected({ detail: redact(detailOf(error)) })),
      ),
      Effect.timeoutOrElse({
        duration: options.requestTimeout,
        orElse: () => Effect.fail(new Timeout({ method: what, millis })),
      }),
      // A URL holds a key, and a span would hold the URL; and nobody there can use our trace.
      Effect.provideService(HttpClient.TracerDisabledWhen, () => true),
      Effect.provideService(HttpClient.TracerPropagationEnabled, false),
    )

  /** The answers in the order of the calls. One that is missing, or a refusal of the whole, is every call's refusal. */
  const answersOf = (
    calls: ReadonlyArray<JsonRpc.Call>,
    firstId: number,
    { response, text }: { readonly response: HttpClientResponse.HttpClientResponse; readonly text: string },
  ): ReadonlyArray<Answer> | Malformed => {
    const messages = JsonRpc.decode(text)
    const http = { status: response.status, ...retryAfter(response.headers["retry-after"]) }
    const answers = Array<Answer | undefined>(calls.length)
    const trimmed = gatewayText(text)
    let batchFailure: RpcFailure | undefined =
      response.status === 200
        ? undefined
        : { code: 0, message: `HTTP status ${response.status}${trimmed}`, ...http }
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
      if (hasEnded) return Effect.fail(failure(new Disconnected({ detail: "given up" })))
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
          // What is too large says nothing about the endpoint; everything else does.
          if (reason._tag !== "Oversized") endUnsafe(reason)
          return failure(reason)
        }),
      )
    })

  const { request, batch } = RpcClient.make(exchange, {
    rateLimiter: options.rateLimiter,
    tracedAs: tracing ? name : undefined,
  })
  yield* RpcClient.confirmChain(name, chain.id, request)
  const base = { name, request, end: (reason: Reason) => Effect.sync(() => endUnsafe(reason)) }
  const noSubscriptions = rejected(
    name,
    "eth_subscribe",
    { code: -32601, message: "there are no subscriptions over HTTP" },
    context,
  )
  return {
    ...base,
    polled: true,
    batch,
    subscribe: (params, onNotification) =>
      params[0] === "newHeads" || noSubscriptions._tag !== "Rejected"
        ? PolledHeads.subscribe(base, options.pollInterval ?? defaultPollInterval, onNotification)
        : Effect.fail(noSubscriptions.error),
    endUnsafe,
    ended: Deferred.await(ended),
  } satisfies SocketConnection as SocketConnection
})

/** Why there is no answer, without the request, which holds the URL. */
const detailOf = ({ reason }: HttpClientError.HttpClientError): string => {
  const cause = "cause" in reason ? reason.cause : undefined
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
  return inner instanceof Error ? inner.message : reason._tag
}
