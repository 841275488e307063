/**
 * One provider over HTTP: requests and batches that must not delay heads, such as ranges, receipts and audits.
 *
 * It implements the same interface as a WebSocket connection, so that the pool maintains both in the same way: it
 * verifies the chain id first, and ends once, with one `EndpointError`, when a request gets no response. Heads are polled;
 * there are no other subscriptions.
 */
import { Effect, Redacted, Stream } from "effect"
import { HttpBody, HttpClient, HttpClientRequest } from "effect/http"
import type { HttpClientError, HttpClientResponse } from "effect/http"
import type { EndpointConfig } from "../config/AppConfig.ts"
import type { ChainId } from "../Domain.ts"
import { percentDecoded } from "../Redactor.ts"
import { makeConnection, makeCore } from "./Connection.ts"
import type { ConnectionOptions, ConnectionCore } from "./Connection.ts"
import { Disconnected, Malformed, Oversized } from "./EndpointError.ts"
import * as JsonRpc from "./JsonRpc.ts"
import * as RpcClient from "./RpcClient.ts"
import type { Answer, Outcome } from "./RpcClient.ts"
import { notAnswered } from "./RpcClient.ts"
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

/** Reads the body; fails above `mostBytes`. */
const textOf = Effect.fnUntraced(function* (
  { stream }: HttpClientResponse.HttpClientResponse,
  mostBytes: number,
) {
  const decoder = new TextDecoder()
  let bytes = 0
  let text = ""
  yield* Stream.runForEach(stream, (chunk) => {
    bytes += chunk.length
    if (bytes > mostBytes) return Effect.fail(new Oversized({ limit: mostBytes }))
    text += decoder.decode(chunk, { stream: true })
    return Effect.void
  })
  return text + decoder.decode()
})

/** The answers in the order of the calls. An error for the whole batch, or else the first one, applies to missing calls. */
const answersOf = (
  { rejected, malformed }: ConnectionCore,
  calls: ReadonlyArray<JsonRpc.Call>,
  firstId: number,
  response: HttpClientResponse.HttpClientResponse,
  text: string,
): ReadonlyArray<Answer> | Malformed => {
  const http = { status: response.status, ...retryAfter(response.headers["retry-after"]) }
  const answers = Array<Answer | undefined>(calls.length)
  let batchFailure: RpcFailure | undefined =
    response.status === 200
      ? undefined
      : { code: 0, message: `HTTP status ${response.status}${gatewayText(text)}`, ...http }
  let firstFailure: RpcFailure | undefined
  let undecoded: string | undefined
  for (const message of JsonRpc.decode(text)) {
    if (message._tag === "Malformed") undecoded = message.detail
    if (message._tag === "Failure") {
      const rpc = { ...message.failure, ...http }
      const call = message.id === undefined ? undefined : calls[message.id - firstId]
      firstFailure ??= rpc
      if (call === undefined || message.id === undefined) batchFailure = rpc
      else answers[message.id - firstId] = rejected(call.method, rpc)
    } else if (message._tag === "Result" && calls[message.id - firstId] !== undefined) {
      answers[message.id - firstId] = message
    }
  }
  if (batchFailure === undefined && undecoded !== undefined) return malformed(undecoded)
  const missing = batchFailure ?? firstFailure ?? { ...notAnswered, ...http }
  return calls.map(({ method }, i) => answers[i] ?? rejected(method, missing))
}

/** Sends calls in one POST request. */
const makeSend = (
  http: HttpClient.HttpClient,
  target: HttpClientRequest.HttpClientRequest,
  core: ConnectionCore,
  { requestTimeout, wsMaxPayload }: ConnectionOptions,
): RpcClient.Send => {
  const { now, redact, failure, timeout, report, endUnsafe, endedWith } = core
  let nextId = 1

  const post = Effect.fnUntraced(
    function* (calls: ReadonlyArray<JsonRpc.Call>, firstId: number) {
      const body = HttpBody.text(JsonRpc.encode(firstId, calls), "application/json")
      const response = yield* http.execute(HttpClientRequest.setBody(target, body))
      const answers = answersOf(core, calls, firstId, response, yield* textOf(response, wsMaxPayload))
      return answers instanceof Malformed ? yield* answers : answers
    },
    (effect, calls) =>
      effect.pipe(
        Effect.catchTag("HttpClientError", (error) =>
          Effect.fail(new Disconnected({ detail: redact(detailOf(error)) })),
        ),
        Effect.timeoutOrElse({
          duration: requestTimeout,
          orElse: () => Effect.fail(timeout(RpcClient.nameOf(calls))),
        }),
        // The client's own span would contain the URL, and with it the key. Providers do not use our trace headers either.
        Effect.provideService(HttpClient.TracerDisabledWhen, () => true),
        Effect.provideService(HttpClient.TracerPropagationEnabled, false),
      ),
  )

  return (calls) =>
    Effect.suspend(() => {
      if (endedWith() !== undefined)
        return Effect.fail(failure(new Disconnected({ detail: "ended by an earlier failure" })))
      const firstId = nextId
      nextId += calls.length
      const sentAt = now()
      const reportAll = (outcomeOf: (i: number) => Outcome) => {
        for (const [i, { method }] of calls.entries()) report(method, outcomeOf(i), sentAt)
      }
      return Effect.mapBoth(post(calls, firstId), {
        onSuccess: (answers) => {
          reportAll((i) => (answers[i]!._tag === "Result" ? "ok" : "refused"))
          return answers
        },
        onFailure: (reason) => {
          reportAll(() => "lost")
          // An oversized response is no fault of the endpoint; every other failure ends the connection.
          if (reason._tag !== "Oversized") endUnsafe(reason)
          return failure(reason)
        },
      })
    })
}

/** Verifies the chain id (`id: undefined`: any chain). The connection lives as long as the scope. */
export const connect = Effect.fnUntraced(function* (
  chain: { readonly id: ChainId | undefined },
  { name, url }: EndpointConfig,
  options: ConnectionOptions,
) {
  const http = yield* HttpClient.HttpClient
  const core = yield* makeCore(name, options, () => {})
  const client = core.client(makeSend(http, requestTo(Redacted.value(url)), core, options))
  const refused = { code: -32601, message: "HTTP endpoints support no subscriptions" }
  const { error: noSubscriptions } = core.rejected("eth_subscribe", refused)
  return yield* makeConnection(chain.id, core, { ...options, heads: "poll" }, client, () =>
    Effect.fail(noSubscriptions),
  )
})

/** The cause of a failed request, without the request itself: its URL may contain a key. */
export const detailOf = ({ reason }: HttpClientError.HttpClientError): string => {
  const cause = "cause" in reason ? reason.cause : undefined
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
  return inner instanceof Error ? inner.message : reason._tag
}
