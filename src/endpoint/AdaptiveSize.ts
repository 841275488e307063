/** How large the requests to an endpoint may be: learned from refusals, and recovered over time. */
import { Effect } from "effect"
import type { EndpointError } from "./EndpointError.ts"
import { endsConnection } from "./EndpointError.ts"

/** A size between 1 and a largest value. */
export class AdaptiveSize {
  readonly #most: number
  #current: number

  /**
   * @param most the largest value
   * @param initial the first value; default: the largest
   */
  constructor(most: number, initial = most) {
    this.#most = most
    this.#current = initial
  }

  get current(): number {
    return this.#current
  }

  /** Whether it is below its largest value. */
  get isReduced(): boolean {
    return this.#current < this.#most
  }

  /** Reduces it to this size; never enlarges it. */
  shrink(to: number): void {
    this.#current = Math.max(Math.min(this.#current, to), 1)
  }

  /** Doubles it. */
  relax(): void {
    this.#current = Math.min(this.#current * 2, this.#most)
  }

  /**
   * Follows a served request of `served`: reduces it to the `ideal` size, or else enlarges it to `next` if the request was
   * not smaller than it.
   */
  adapt(served: number, ideal: number, next: number): void {
    if (ideal < this.#current) this.#current = ideal
    else if (served >= this.#current) this.#current = Math.min(next, this.#most)
  }
}

/** Items in parts of the current size, which may shrink between two parts. */
export function* partsOf<A>(items: ReadonlyArray<A>, size: AdaptiveSize): Generator<ReadonlyArray<A>> {
  for (let next = 0; next < items.length;) {
    const part = items.slice(next, next + size.current)
    next += part.length
    yield part
  }
}

/**
 * Sends items in one request. A request that is too large halves the size, and its items are sent again in parts. If it
 * closed the connection, only the size is halved: the next connection sends less.
 *
 * @param isTooLarge whether an error shows that the request had too many items
 */
export const halving = <A, B>(
  size: AdaptiveSize,
  isTooLarge: (error: EndpointError) => boolean,
  send: (items: ReadonlyArray<A>) => Effect.Effect<ReadonlyArray<B>, EndpointError>,
) => {
  const sendParts = Effect.fnUntraced(function* (items: ReadonlyArray<A>) {
    const answers: Array<B> = []
    for (const part of partsOf(items, size))
      for (const answer of yield* sendOrHalve(part)) answers.push(answer)
    return answers
  })
  const sendOrHalve: typeof send = (items) =>
    Effect.catch(send(items), (error) => {
      if (items.length <= 1 || !isTooLarge(error)) return Effect.fail(error)
      size.shrink(Math.ceil(items.length / 2))
      return endsConnection(error) ? Effect.fail(error) : sendParts(items)
    })
  return sendOrHalve
}
