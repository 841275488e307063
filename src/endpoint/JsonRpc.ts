/**
 * JSON-RPC 2.0 as Ethereum nodes speak it over a socket (EIP-1474, geth's pub/sub): requests out, answers and
 * subscription notifications in. Answers are matched by id and come in any order; the order of an object's keys means
 * nothing.
 */
import { Predicate } from "effect"
import type { RpcFailure } from "./RpcError.ts"

export interface Call {
  readonly method: string
  readonly params: ReadonlyArray<unknown>
}

export type Message =
  | { readonly _tag: "Result"; readonly id: number; readonly result: unknown }
  /** `id` is `undefined` where the node could not tell which request it refuses. */
  | { readonly _tag: "Failure"; readonly id: number | undefined; readonly failure: RpcFailure }
  | { readonly _tag: "Notification"; readonly subscription: string; readonly result: unknown }
  /** Well formed and none of our business. */
  | { readonly _tag: "Other" }
  | { readonly _tag: "Malformed"; readonly detail: string }

const envelope = (id: number, { method, params }: Call) => ({ jsonrpc: "2.0", id, method, params })

/** A frame with these calls; several make a batch. Their ids count up from `firstId`. */
export const encode = (firstId: number, calls: ReadonlyArray<Call>): string =>
  JSON.stringify(
    calls.length === 1 ? envelope(firstId, calls[0]!) : calls.map((call, i) => envelope(firstId + i, call)),
  )

/** Only what is no object has a text of its own: `String` of anything else may throw, or run as deep as the value is. */
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

/** An id of ours, as a number or as a text of digits. */
const idOf = (value: unknown): number | undefined => {
  if (typeof value === "number") return value
  return typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}

/** A subscription's id as text; some nodes number them. */
export const subscriptionOf = (value: unknown): string | undefined =>
  typeof value === "string" ? value : Number.isSafeInteger(value) ? String(value) : undefined

const messageOf = (value: unknown): Message => {
  if (!Predicate.isObject(value)) return { _tag: "Malformed", detail: "a message that is no object" }
  const { id: given, method, params, result, error } = value as Record<string, unknown>
  const id = idOf(given)
  if (error !== undefined && error !== null) {
    return { _tag: "Failure", id, failure: failureOf(error) }
  }
  if (id !== undefined) {
    return "result" in value
      ? { _tag: "Result", id, result }
      : { _tag: "Malformed", detail: "an answer without result and error" }
  }
  if (method === "eth_subscription" && Predicate.isObject(params)) {
    const { result, ...rest } = params as Record<string, unknown>
    const subscription = subscriptionOf(rest["subscription"])
    if (subscription !== undefined) return { _tag: "Notification", subscription, result }
  }
  return typeof method === "string" && method !== "eth_subscription"
    ? { _tag: "Other" }
    : { _tag: "Malformed", detail: "neither an answer nor a notification" }
}

/**
 * A megabyte of brackets becomes thirty of objects. Above `freely` characters a frame must be mostly text: the answers
 * we ask for have a value in some 27 characters at the least.
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

/** Whether a frame is an array: the answer to a batch. */
export const isBatch = (frame: string): boolean => /^\s*\[/.test(frame)

/** The messages of one text frame: one, or those of a batch. */
export const decode = (frame: string): ReadonlyArray<Message> => {
  if (isMostlyPunctuation(frame)) {
    return [
      { _tag: "Malformed", detail: `${frame.length} characters of hardly anything but brackets and commas` },
    ]
  }
  let value: unknown
  try {
    value = JSON.parse(frame)
  } catch {
    return [{ _tag: "Malformed", detail: `${frame.length} characters that are no JSON` }]
  }
  return Array.isArray(value) ? value.map(messageOf) : [messageOf(value)]
}
