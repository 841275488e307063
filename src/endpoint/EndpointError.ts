/**
 * Every way in which an endpoint can fail us. A connection ends with exactly one of these; a request may fail with one
 * while the connection goes on.
 */
import { Effect, Schema } from "effect"
import type { ErrorInfo } from "./RpcError.ts"

const declared = <A>() => Schema.declare((value: unknown): value is A => value !== undefined)

/** The close code by which the other side says that a frame of ours is too large (RFC 6455 §7.4.1). */
const messageTooBig = 1009

/** The socket could not be opened, or it closed. */
export class Disconnected extends Schema.TaggedError<Disconnected>()("Disconnected", {
  detail: Schema.String,
  /** The close code that the other side gave. */
  code: Schema.optionalKey(Schema.Finite),
}) {
  override get message() {
    return `connection lost: ${this.detail}`
  }
}

/** No answer in time. */
export class Timeout extends Schema.TaggedError<Timeout>()("Timeout", {
  method: Schema.String,
  millis: Schema.Finite,
}) {
  override get message() {
    return `no answer to ${this.method} within ${this.millis} ms`
  }
}

/** The socket is open, but heads stopped while the chain went on. */
export class Stalled extends Schema.TaggedError<Stalled>()("Stalled", {
  seconds: Schema.Finite,
  detail: Schema.String,
}) {
  override get message() {
    return `no head for ${Math.round(this.seconds)} s: ${this.detail}`
  }
}

/** Something that is not what the protocol says. */
export class Malformed extends Schema.TaggedError<Malformed>()("Malformed", { detail: Schema.String }) {
  override get message() {
    return `malformed: ${this.detail}`
  }
}

/** A frame larger than we accept. The socket is lost with it; what was asked must be asked in smaller pieces. */
export class Oversized extends Schema.TaggedError<Oversized>()("Oversized", { limit: Schema.Finite }) {
  override get message() {
    return `a frame of more than ${this.limit} bytes`
  }
}

/** A JSON-RPC error. `refusal` says what it means for the next request. */
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

/** An answer that contradicts itself or its block header, so that it cannot be complete. */
export class IntegrityError extends Schema.TaggedError<IntegrityError>()("Unverified", {
  detail: Schema.String,
}) {
  override get message() {
    return `integrity check failed: ${this.detail}`
  }
}

/** The endpoint serves another chain than the one it is configured for. */
export class WrongChain extends Schema.TaggedError<WrongChain>()("WrongChain", {
  expected: Schema.Int,
  actual: Schema.Int,
}) {
  override get message() {
    return `serves chain ${this.actual}, not ${this.expected}`
  }
}

/** A mistake of ours while this endpoint was in use. */
export class Defect extends Schema.TaggedError<Defect>()("Defect", { detail: Schema.String }) {
  override get message() {
    return `defect: ${this.detail}`
  }
}

export type Reason =
  | Disconnected
  | Timeout
  | Stalled
  | Malformed
  | Oversized
  | Rejected
  | IntegrityError
  | WrongChain
  | Defect

export class EndpointError extends Schema.TaggedError<EndpointError>()("EndpointError", {
  endpoint: Schema.String,
  reason: Schema.Union([
    Disconnected,
    Timeout,
    Stalled,
    Malformed,
    Oversized,
    Rejected,
    IntegrityError,
    WrongChain,
    Defect,
  ]),
}) {
  override get message() {
    return `${this.endpoint}: ${this.reason.message}`
  }
}

/** An answer of this endpoint cannot be believed. */
export const integrityError = (endpoint: string, detail: string): EndpointError =>
  new EndpointError({ endpoint, reason: new IntegrityError({ detail }) })

/** A block that is below an announced head is not there yet: a replica that is behind answered. */
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

/** What was made of an endpoint's answer, or a failure where nothing could be made of it. */
export const orMalformed = <A>(endpoint: string, decoded: A | Malformed): Effect.Effect<A, EndpointError> =>
  decoded instanceof Malformed
    ? Effect.fail(new EndpointError({ endpoint, reason: decoded }))
    : Effect.succeed(decoded)

/** The other side left because a request was too large for it: lost is what was asked, and the connection. */
const isTooLargeToSend = (reason: Reason): boolean =>
  reason._tag === "Disconnected" && reason.code === messageTooBig

/** The connection is gone with the answer: what is learned of it is for the next one. */
export const endsConnection = ({ reason }: EndpointError): boolean =>
  reason._tag === "Oversized" || isTooLargeToSend(reason)

/** What an error says about the question that was asked, if anything. */
export const errorKind = ({ reason }: EndpointError): ErrorInfo["kind"] | undefined => {
  if (reason._tag === "Rejected") return reason.refusal.kind
  if (isTooLargeToSend(reason)) return "TooManyAddresses"
  // Too much to answer in time, or in one frame.
  return reason._tag === "Timeout" || reason._tag === "Oversized" ? "RangeTooLarge" : undefined
}

/** The node does not want to answer this question. "Too many requests" says nothing about the question. */
export const isRpcError = ({ reason }: EndpointError): boolean =>
  reason._tag === "Rejected" && reason.refusal.kind !== "RateLimited"

/** What the `error_type` label of the metrics may say. */
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

/** The label for a reason. */
export const errorType = (reason: Reason): ErrorType => {
  switch (reason._tag) {
    case "Disconnected":
      return "connection"
    case "Timeout":
      return "timeout"
    case "Stalled":
      return "stalled"
    case "Malformed":
    case "Oversized":
      return "malformed"
    case "Rejected":
      return reason.refusal.kind === "RateLimited" ? "rate_limited" : "rejected"
    case "Unverified":
      return "unverified"
    case "WrongChain":
      return "wrong_chain"
    case "Defect":
      return "defect"
  }
}
