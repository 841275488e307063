/** When a chain's blocks were made, from the few of which it is known. */

/** A block whose time is known (unix seconds). */
export interface Timed {
  readonly number: number
  readonly timestamp: number
}

/** Some nodes send milliseconds instead of seconds, which no chain reaches before the year 5138. */
const secondsOf = ({ timestamp }: Timed) => (timestamp < 1e11 ? timestamp : timestamp / 1000)

/**
 * When the block at a height was made (unix seconds): exact where it is known, in proportion between two that are known, and at
 * the pace of all of them outside. `undefined` where none is known.
 */
export const timeAt = (number: number, known: ReadonlyArray<Timed | undefined>): number | undefined => {
  const points = known
    .filter((one) => one !== undefined)
    .toSorted((a, b) => a.number - b.number)
    .map((one) => ({ number: one.number, at: secondsOf(one) }))
  const [lowest, highest] = [points[0], points.at(-1)]
  if (lowest === undefined || highest === undefined) return undefined
  const above = points.find((one) => one.number >= number)
  if (above?.number === number) return above.at
  const below = points.findLast((one) => one.number < number)
  const [from, to] = below !== undefined && above !== undefined ? [below, above] : [lowest, highest]
  const pace = from.number === to.number ? 0 : (to.at - from.at) / (to.number - from.number)
  return from.at + (number - from.number) * pace
}

/** The blocks of a chain whose times are kept: the first and the newest head of this process, what is final, what was stored. */
export class ChainTime {
  #firstHead: Timed | undefined
  #head: Timed | undefined
  #final: Timed | undefined
  #stored: Timed | undefined

  head({ number, timestamp }: Timed): void {
    this.#head = { number, timestamp }
    this.#firstHead ??= this.#head
  }

  final({ number, timestamp }: Timed): void {
    this.#final = { number, timestamp }
  }

  stored({ number, timestamp }: Timed): void {
    this.#stored = { number, timestamp }
  }

  /** How much later one block was made than another (seconds). `undefined` for `from`: than the first head of this process. */
  between(from: number | undefined, to: number): number {
    const known = [this.#firstHead, this.#final, this.#stored, this.#head]
    const start = from ?? this.#firstHead?.number
    if (start === undefined) return 0
    return Math.max(timeAt(to, known)! - timeAt(start, known)!, 0)
  }
}
