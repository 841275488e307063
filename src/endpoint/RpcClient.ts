/** Requests over any transport, single or batched, within the rate limit of the endpoint. */
import { Effect } from "effect"
import type { Redactor } from "../Redactor.ts"
import type { RateLimiter } from "./RateLimiter.ts"
import { EndpointError, errorKind, Rejected } from "./EndpointError.ts"
import type { Call } from "./JsonRpc.ts"
import { traceRequest } from "../Tracing.ts"
import { normalizeRpcError } from "./RpcError.ts"
import type { RpcFailure } from "./RpcError.ts"

/** The answer to one call of a batch. */
export type Answer = { readonly _tag: "Result"; readonly result: unknown } | Rejection

interface Rejection {
  readonly _tag: "Rejected"
  readonly error: EndpointError
}

/** How a request ended: with a result, with an error, or without a response. */
export type Outcome = "ok" | "refused" | "lost"

/** Sends calls in one request; the answers are in the order of the calls. */
export type Send = (calls: ReadonlyArray<Call>) => Effect.Effect<ReadonlyArray<Answer>, EndpointError>

export interface RpcClient {
  /** The endpoint's public name. */
  readonly name: string
  /** Whether its heads are polled. Consecutive responses near the head may then come from different nodes. */
  readonly polled?: boolean
  readonly request: (method: string, params: ReadonlyArray<unknown>) => Effect.Effect<unknown, EndpointError>
  /** Sends several calls in one frame. The answers are in the order of the calls; each call may be rejected by itself. */
  readonly batch: (calls: ReadonlyArray<Call>) => Effect.Effect<ReadonlyArray<Answer>, EndpointError>
}

/** Retries of a throttled request, each at the pace of the rate limiter. */
const retries = 4

const isRateLimited = (error: EndpointError) => errorKind(error) === "RateLimited"

/** The name of a request in an error message. */
export const nameOf = (calls: ReadonlyArray<Call>): string =>
  calls.length === 1 ? calls[0]!.method : `a batch of ${calls[0]!.method}`

/** @param isTraced whether requests are traced as spans */
export const make = (
  name: string,
  send: Send,
  { rateLimiter, isTraced }: { readonly rateLimiter?: RateLimiter | undefined; readonly isTraced: boolean },
): RpcClient => {
  const limited = (calls: ReadonlyArray<Call>) =>
    rateLimiter === undefined ? send(calls) : rateLimiter.withTokens(calls.length)(send(calls))
  const sendTraced = (calls: ReadonlyArray<Call>) =>
    isTraced ? traceRequest(name, calls[0]!.method, calls.length)(limited(calls)) : limited(calls)
  return {
    name,
    request: (method, params) =>
      sendTraced([{ method, params }]).pipe(
        Effect.flatMap(([answer]) =>
          answer!._tag === "Result" ? Effect.succeed(answer!.result) : Effect.fail(answer!.error),
        ),
        Effect.retry({ times: retries, while: isRateLimited }),
      ),
    batch: (calls) => (calls.length === 0 ? Effect.succeed([]) : sendTraced(calls)),
  }
}

/** Turns a provider's error into an answer. A rate limit error throttles the rate limiter. */
export const rejected = (
  endpoint: string,
  method: string,
  rpc: RpcFailure,
  { redact, rateLimiter }: { readonly redact: Redactor; readonly rateLimiter: RateLimiter | undefined },
): Rejection => {
  const refusal = normalizeRpcError(rpc)
  if (refusal.kind === "RateLimited") rateLimiter?.throttled(refusal.retryAfter)
  const reason = new Rejected({ method, code: rpc.code, detail: redact(rpc.message), refusal })
  return { _tag: "Rejected", error: new EndpointError({ endpoint, reason }) }
}

/** The error of a call that the response to its batch leaves out. */
export const notAnswered: RpcFailure = { code: 0, message: "not answered" }

/** Whether the response to a batch left the call out; a smaller batch may be complete. */
export const isLeftOut = ({ reason }: EndpointError): boolean =>
  reason._tag === "Rejected" && reason.detail === notAnswered.message
