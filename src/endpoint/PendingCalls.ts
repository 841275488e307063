/**
 * The calls of one connection that wait for their responses.
 *
 * Synchronous, because it runs in callbacks of the socket. It decides which calls an error concerns that names none.
 */
import { Effect } from "effect"
import type { ConnectionCore } from "./Connection.ts"
import type { EndpointError } from "./EndpointError.ts"
import type * as JsonRpc from "./JsonRpc.ts"
import { normalizeRpcError } from "./RpcError.ts"
import type { RpcFailure } from "./RpcError.ts"
import { notAnswered } from "./RpcClient.ts"
import type { Answer, Outcome } from "./RpcClient.ts"

/** Resumes the caller with the responses to all its calls, in their order. */
type Resume = (answers: Effect.Effect<ReadonlyArray<Answer>, EndpointError>) => void

/** Calls sent in one frame, whose responses are delivered together. */
interface Exchange {
  readonly answers: Array<Answer>
  unanswered: number
  readonly sentAt: number
  readonly resume: Resume
}

interface PendingCall {
  readonly method: string
  readonly position: number
  readonly exchange: Exchange
}

export class PendingCalls {
  readonly #core: ConnectionCore
  readonly #onUnsolicited: () => void
  readonly #calls = new Map<number, PendingCall>()
  #nextId = 1

  /** @param onUnsolicited called for a message that belongs to no call */
  constructor(core: ConnectionCore, onUnsolicited: () => void) {
    this.#core = core
    this.#onUnsolicited = onUnsolicited
  }

  /** How many ids were used. */
  get sent(): number {
    return this.#nextId - 1
  }

  /** The id of a call whose response is of no interest. */
  takeId(): number {
    return this.#nextId++
  }

  /** Adds calls that are sent in one frame, and returns the id of the first; the others follow. */
  add(calls: ReadonlyArray<JsonRpc.Call>, resume: Resume): number {
    const first = this.#nextId
    this.#nextId += calls.length
    const answers = Array<Answer>(calls.length)
    const exchange = { answers, unanswered: calls.length, sentAt: this.#core.now(), resume }
    for (const [position, { method }] of calls.entries()) {
      this.#calls.set(first + position, { method, position, exchange })
    }
    return first
  }

  /** Removes calls whose caller no longer waits. */
  cancel(first: number, count: number): void {
    for (let id = first; id < first + count; id++) {
      const call = this.#calls.get(id)
      if (call === undefined) continue
      this.#calls.delete(id)
      this.#report(call, "lost")
    }
  }

  /** Ends every call, because the connection has ended. */
  failAll(failure: Effect.Effect<never, EndpointError>): void {
    for (const call of this.#calls.values()) {
      this.#report(call, "lost")
      call.exchange.resume(failure)
    }
    this.#calls.clear()
  }

  /** Handles a result, or an error with or without an id. */
  settle(message: Extract<JsonRpc.Message, { readonly _tag: "Result" | "Failure" }>): void {
    if (message._tag === "Result") this.#settle(message.id, () => message)
    else if (message.id === undefined) this.#rejectOldest(message.failure)
    else this.#reject(message.id, message.failure)
  }

  /** The exchanges that these messages answer. */
  exchangesOf(messages: ReadonlyArray<JsonRpc.Message>): ReadonlySet<Exchange> {
    const answered = new Set<Exchange>()
    for (const message of messages) {
      const id = "id" in message ? message.id : undefined
      const call = id === undefined ? undefined : this.#calls.get(id)
      if (call !== undefined) answered.add(call.exchange)
    }
    return answered
  }

  /**
   * The response to a batch arrives in one frame. Calls missing from it are rejected with its first error: geth sends
   * "batch too large" for the first call only.
   */
  rejectUnanswered(answered: ReadonlySet<Exchange>, messages: ReadonlyArray<JsonRpc.Message>): void {
    const failure = messages.find(({ _tag }) => _tag === "Failure")
    for (const exchange of answered) {
      if (exchange.unanswered > 0)
        this.#rejectAll(exchange, failure?._tag === "Failure" ? failure.failure : notAnswered)
    }
  }

  #report({ exchange, method }: PendingCall, outcome: Outcome): void {
    this.#core.report(method, outcome, exchange.sentAt)
  }

  #onMalformed(detail: string): void {
    this.#core.endUnsafe(this.#core.malformed(detail))
  }

  /** An unknown id belongs to a call that timed out (a late response), or to no call at all. */
  #settle(id: number, answerTo: (method: string) => Answer): void {
    const call = this.#calls.get(id)
    if (call === undefined) {
      const isLate = Number.isInteger(id) && id >= 1 && id < this.#nextId
      return isLate ? this.#onUnsolicited() : this.#onMalformed("a response to an unknown request id")
    }
    this.#calls.delete(id)
    const { exchange, method, position } = call
    const answer = answerTo(method)
    this.#report(call, answer._tag === "Result" ? "ok" : "refused")
    exchange.answers[position] = answer
    exchange.unanswered--
    if (exchange.unanswered === 0) exchange.resume(Effect.succeed(exchange.answers))
  }

  #reject(id: number, rpc: RpcFailure): void {
    this.#settle(id, (method) => this.#core.rejected(method, rpc))
  }

  /** Rejects the pending calls of one frame. */
  #rejectAll(of: Exchange, rpc: RpcFailure): void {
    for (const [id, { exchange }] of this.#calls) if (exchange === of) this.#reject(id, rpc)
  }

  /**
   * Handles an error without an id: a rate limit concerns the oldest request; any other error concerns the oldest batch
   * or, without one, a frame that the server did not understand.
   */
  #rejectOldest(rpc: RpcFailure): void {
    const refusal = normalizeRpcError(rpc)
    const isThrottled = refusal.kind === "RateLimited"
    const batch = isThrottled
      ? undefined
      : this.#calls.values().find(({ exchange }) => exchange.answers.length > 1)?.exchange
    const oldest = batch ?? this.#calls.values().next().value?.exchange
    if (oldest !== undefined) return this.#rejectAll(oldest, rpc)
    if (!isThrottled) return this.#onMalformed(`an error without an id: ${rpc.message}`)
    this.#core.rateLimiter?.throttled(refusal.retryAfter)
    return this.#onUnsolicited()
  }
}
