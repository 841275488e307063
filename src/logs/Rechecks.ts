/** Errors and answers that may be right a moment later: a block that a node does not have yet, an incomplete answer. */
import { Effect, Schedule } from "effect"
import type { Header, Hex } from "../Domain.ts"
import { EndpointError, errorKind, Rejected } from "../endpoint/EndpointError.ts"
import { isLeftOut } from "../endpoint/RpcClient.ts"

/**
 * While a block was first requested less than this ago (milliseconds), an ambiguous error means that the node does not
 * have the block yet.
 */
const arrivalWindow = 5_000

/** A block this much older than the newest head (milliseconds) exists on every node: a refusal applies to all blocks. */
const oldBlockAge = 60_000

/** Some nodes send milliseconds. A timestamp in seconds reaches 1e11 only in the year 5138. */
const millisOf = (timestamp: number) => (timestamp < 1e11 ? timestamp * 1000 : timestamp)

/** Blocks whose first request time is remembered. */
const mostTracked = 64

/** Retries of a response that fails its integrity checks: after 100, 200 and 400 ms. */
export const recheckPolicy = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 3 }))

/** Whether an error concerns the method, not the block. */
export const isAboutMethod = ({ reason }: EndpointError): boolean =>
  reason._tag !== "Rejected" ||
  reason.refusal.kind === "AddressRequired" ||
  [-32601, 401, 403, 429].includes(reason.code) ||
  /\bmethods?\b|HTTP status 4/i.test(reason.detail)

export const isAmbiguous = (error: EndpointError): boolean => {
  const refusal = errorKind(error)
  return (
    !isAboutMethod(error) &&
    (refusal === "Unavailable" || refusal === "MethodNotSupported" || refusal === "Unauthorized") &&
    !isLeftOut(error)
  )
}

/** The same error, classified as a missing block. */
export const asBlockNotFound = (error: EndpointError): EndpointError =>
  error.reason._tag === "Rejected"
    ? new EndpointError({
        endpoint: error.endpoint,
        reason: new Rejected({ ...error.reason, refusal: { kind: "BlockNotFound" } }),
      })
    : error

/** For a fresh block, any error that does not concern the method means that the block is not available yet. */
export const ambiguousAsNotFound = <A>(
  effect: Effect.Effect<A, EndpointError>,
): Effect.Effect<A, EndpointError> =>
  Effect.mapError(effect, (error) => (isAmbiguous(error) ? asBlockNotFound(error) : error))

/** Retries a missing block and a failed integrity check: a node may have the complete block a moment later. */
export const retryUnverified = <A>(
  effect: Effect.Effect<A, EndpointError>,
): Effect.Effect<A, EndpointError> =>
  Effect.retry(effect, {
    schedule: recheckPolicy,
    while: (error) => error.reason._tag === "Unverified" || errorKind(error) === "BlockNotFound",
  })

/**
 * Whether a block exists on every node.
 *
 * @param newest the timestamp of the newest known head, in the node's own unit
 */
export const isOld = ({ timestamp }: Pick<Header, "timestamp">, newest: number | undefined): boolean =>
  millisOf(newest ?? timestamp) - millisOf(timestamp) >= oldBlockAge

/** @param newest the timestamp of the newest known head, in the node's own unit */
export const makeAgeOf = (newest: () => number | undefined) => {
  /** When blocks were first requested. */
  const firstRequestedAt = new Map<Hex, number>()
  return (header: Header, now: number) => {
    const { hash } = header
    const since = firstRequestedAt.get(hash) ?? now
    firstRequestedAt.set(hash, since)
    if (firstRequestedAt.size > mostTracked) firstRequestedAt.delete(firstRequestedAt.keys().next().value!)
    const isOnEveryNode = isOld(header, newest())
    /** The node may not have the block yet. */
    const isArriving = !isOnEveryNode && now - since < arrivalWindow
    return { isOld: isOnEveryNode, isArriving }
  }
}

/** How old a block is. */
export type Age = ReturnType<ReturnType<typeof makeAgeOf>>
