/**
 * JSON-RPC 2.0 as Ethereum nodes implement it over a socket (EIP-1474, geth's pub/sub): encodes requests, decodes
 * responses and subscription notifications. Responses are matched by id and arrive in any order; the order of keys is
 * irrelevant.
 */
import { Predicate } from "effect"
import type { RpcFailure } from "./RpcError.ts"

export interface Call {
  readonly method: string
  readonly params: ReadonlyArray<unknown>
}

export type Message =
  | { readonly _tag: "Result"; readonly id: number; readonly result: unknown }
  /** `id` is `undefined` where the node could not attribute the error to a request. */
  | { readonly _tag: "Failure"; readonly id: number | undefined; readonly failure: RpcFailure }
  | { readonly _tag: "Notification"; readonly subscription: string; readonly result: unknown }
  /** A well-formed message of another kind, which is ignored. */
  | { readonly _tag: "Other" }
  | { readonly _tag: "Malformed"; readonly detail: string }

const envelope = (id: number, { method, params }: Call) => ({ jsonrpc: "2.0", id, method, params })

/** Encodes calls as one frame; several calls form a batch. Ids count up from `firstId`. */
export const encode = (firstId: number, calls: ReadonlyArray<Call>): string =>
  JSON.stringify(
    calls.length === 1 ? envelope(firstId, calls[0]!) : calls.map((call, i) => envelope(firstId + i, call)),
  )

/** Only primitives are converted to text: `String` of an object may throw, or recurse as deep as the value is nested. */
const isPrimitive = (value: unknown) => typeof value !== "object"

const codeOf = (value: unknown): number => {
  const code = isPrimitive(value) ? Number(value) : 0
  return Number.isFinite(code) ? code : 0
}

const failureOf = (error: unknown): RpcFailure => {
  if (!Predicate.isObject(error)) return { code: 0, message: isPrimitive(error) ? String(error) : "" }
  const { code, message, data } = error as { code?: unknown; message?: unknown; data?: unknown }
  return {
    code: codeOf(code),
    message: typeof message === "string" ? message : "",
    ...(data === undefined ? undefined : { data }),
  }
}

/** A request id, as a number or as a string of digits. */
const idOf = (value: unknown): number | undefined => {
  if (typeof value === "number") return value
  return typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}

/** A subscription id as text; some nodes send a number. */
export const subscriptionOf = (value: unknown): string | undefined =>
  typeof value === "string" ? value : Number.isSafeInteger(value) ? String(value) : undefined

const messageOf = (value: unknown): Message => {
  if (!Predicate.isObject(value)) return { _tag: "Malformed", detail: "message is not an object" }
  const { id: given, method, params, result, error } = value as Record<string, unknown>
  const id = idOf(given)
  if (error !== undefined && error !== null) {
    return { _tag: "Failure", id, failure: failureOf(error) }
  }
  if (id !== undefined) {
    return "result" in value
      ? { _tag: "Result", id, result }
      : { _tag: "Malformed", detail: "response without result and error" }
  }
  if (method === "eth_subscription" && Predicate.isObject(params)) {
    const { result, ...rest } = params as Record<string, unknown>
    const subscription = subscriptionOf(rest["subscription"])
    if (subscription !== undefined) return { _tag: "Notification", subscription, result }
  }
  return typeof method === "string" && method !== "eth_subscription"
    ? { _tag: "Other" }
    : { _tag: "Malformed", detail: "neither a response nor a notification" }
}

/**
 * Guards against frames that expand in memory: a megabyte of brackets becomes thirty megabytes of objects. Frames above
 * `uncheckedLength` characters must be mostly text: expected responses have at least some 27 characters per value.
 */
const uncheckedLength = 1024 * 1024
const minCharactersPerValue = 16

const isMostlyPunctuation = (frame: string): boolean => {
  if (frame.length <= uncheckedLength) return false
  let marksAllowed = frame.length / minCharactersPerValue
  for (const mark of [",", "[", "{"]) {
    for (let at = frame.indexOf(mark); at !== -1; at = frame.indexOf(mark, at + 1)) {
      if (--marksAllowed < 0) return true
    }
  }
  return false
}

/** Whether a frame is an array, that is, the response to a batch. */
export const isBatch = (frame: string): boolean => /^\s*\[/.test(frame)

/** Decodes a text frame into its messages: one, or those of a batch. */
export const decode = (frame: string): ReadonlyArray<Message> => {
  if (isMostlyPunctuation(frame)) {
    return [
      { _tag: "Malformed", detail: `${frame.length} characters, nearly all of them brackets and commas` },
    ]
  }
  let value: unknown
  try {
    value = JSON.parse(frame)
  } catch {
    return [{ _tag: "Malformed", detail: `${frame.length} characters that are not JSON` }]
  }
  return Array.isArray(value) ? value.map(messageOf) : [messageOf(value)]
}
