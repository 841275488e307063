/**
 * The failures of an endpoint. A connection ends with exactly one of them; a request may fail with one while the
 * connection stays open.
 */
import { Effect, Schema } from "effect"
import type { ErrorInfo } from "./RpcError.ts"

const declared = <A>() => Schema.declare((value: unknown): value is A => value !== undefined)

/** The close code for a frame that is too large for the server (RFC 6455 §7.4.1). */
const messageTooBig = 1009

/** The socket could not be opened, or it was closed. */
export class Disconnected extends Schema.TaggedError<Disconnected>()("Disconnected", {
  detail: Schema.String,
  /** The close code sent by the server. */
  code: Schema.optionalKey(Schema.Finite),
}) {
  override get message() {
    return `connection lost: ${this.detail}`
  }
}

/** No response in time. */
export class Timeout extends Schema.TaggedError<Timeout>()("Timeout", {
  method: Schema.String,
  millis: Schema.Finite,
}) {
  override get message() {
    return `no response to ${this.method} within ${this.millis} ms`
  }
}

/** The socket is open, but heads stopped while the chain advanced. */
export class Stalled extends Schema.TaggedError<Stalled>()("Stalled", {
  seconds: Schema.Finite,
  detail: Schema.String,
}) {
  override get message() {
    return `no head for ${Math.round(this.seconds)} s: ${this.detail}`
  }
}

/** A protocol violation. */
export class Malformed extends Schema.TaggedError<Malformed>()("Malformed", { detail: Schema.String }) {
  override get message() {
    return `malformed: ${this.detail}`
  }
}

/** A frame above the accepted size. It closes the socket; the request must be split. */
export class Oversized extends Schema.TaggedError<Oversized>()("Oversized", { limit: Schema.Finite }) {
  override get message() {
    return `frame larger than ${this.limit} bytes`
  }
}

/** A JSON-RPC error. `refusal` classifies it for the next request. */
export class Rejected extends Schema.TaggedError<Rejected>()("Rejected", {
  method: Schema.String,
  code: Schema.Finite,
  detail: Schema.String,
  refusal: declared<ErrorInfo>(),
}) {
  override get message() {
    return `${this.method} was refused (${this.code}): ${this.detail}`
  }
}

/** A response that contradicts itself or its block header, and therefore cannot be complete. */
export class IntegrityError extends Schema.TaggedError<IntegrityError>()("Unverified", {
  detail: Schema.String,
}) {
  override get message() {
    return `integrity check failed: ${this.detail}`
  }
}

/** The endpoint serves a chain other than the configured one. */
export class WrongChain extends Schema.TaggedError<WrongChain>()("WrongChain", {
  expected: Schema.Int,
  actual: Schema.Int,
}) {
  override get message() {
    return `serves chain ${this.actual}, not ${this.expected}`
  }
}

/** A bug in this program while the endpoint was in use. */
export class Defect extends Schema.TaggedError<Defect>()("Defect", { detail: Schema.String }) {
  override get message() {
    return `defect: ${this.detail}`
  }
}

/** Why a request or a connection failed. */
const Reason = Schema.Union([
  Disconnected,
  Timeout,
  Stalled,
  Malformed,
  Oversized,
  Rejected,
  IntegrityError,
  WrongChain,
  Defect,
])

export type Reason = typeof Reason.Type

export class EndpointError extends Schema.TaggedError<EndpointError>()("EndpointError", {
  endpoint: Schema.String,
  reason: Reason,
}) {
  override get message() {
    return `${this.endpoint}: ${this.reason.message}`
  }
}

/** The failure for a response of this endpoint that fails its integrity checks. */
export const integrityError = (endpoint: string, detail: string): EndpointError =>
  new EndpointError({ endpoint, reason: new IntegrityError({ detail }) })

/** The failure for a missing block below an announced head: a lagging replica responded. */
export const blockNotFound = (endpoint: string, number: number): EndpointError =>
  new EndpointError({
    endpoint,
    reason: new Rejected({
      method: "eth_getBlockByNumber",
      code: 0,
      detail: `block ${number} is not available yet`,
      refusal: { kind: "BlockNotFound" },
    }),
  })

/** Lifts a decoded response into an Effect that fails where it is invalid. */
export const orInvalid = <A>(
  endpoint: string,
  decoded: A | Malformed | IntegrityError,
): Effect.Effect<A, EndpointError> =>
  decoded instanceof Malformed || decoded instanceof IntegrityError
    ? Effect.fail(new EndpointError({ endpoint, reason: decoded }))
    : Effect.succeed(decoded)

/** The server closed the connection because a request was too large for it. */
const isTooLargeToSend = (reason: Reason): boolean =>
  reason._tag === "Disconnected" && reason.code === messageTooBig

/** Whether the failure also ended the connection. What it reveals about limits applies to the next connection. */
export const endsConnection = ({ reason }: EndpointError): boolean =>
  reason._tag === "Oversized" || isTooLargeToSend(reason)

/** What a failure says about the request, if anything. */
export const errorKind = ({ reason }: EndpointError): ErrorInfo["kind"] | undefined => {
  if (reason._tag === "Rejected") return reason.refusal.kind
  if (isTooLargeToSend(reason)) return "TooManyAddresses"
  // The range holds too much to serve in time or in one frame.
  return reason._tag === "Timeout" || reason._tag === "Oversized" ? "RangeTooLarge" : undefined
}

/** Whether the node rejected this particular request. A rate limit says nothing about the request. */
export const isRpcError = ({ reason }: EndpointError): boolean =>
  reason._tag === "Rejected" && reason.refusal.kind !== "RateLimited"

/** The values of the `error_type` label of the metrics. */
export const errorTypes = [
  "connection",
  "timeout",
  "stalled",
  "malformed",
  "rejected",
  "rate_limited",
  "unverified",
  "wrong_chain",
  "store",
  "defect",
] as const

export type ErrorType = (typeof errorTypes)[number]

const typeByTag: Readonly<Record<Exclude<Reason["_tag"], "Rejected">, ErrorType>> = {
  Disconnected: "connection",
  Timeout: "timeout",
  Stalled: "stalled",
  Malformed: "malformed",
  Oversized: "malformed",
  Unverified: "unverified",
  WrongChain: "wrong_chain",
  Defect: "defect",
}

/** The `error_type` label of a reason. */
export const errorType = (reason: Reason): ErrorType => {
  if (reason._tag !== "Rejected") return typeByTag[reason._tag]
  return reason.refusal.kind === "RateLimited" ? "rate_limited" : "rejected"
}
