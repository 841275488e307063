/** Estimates the time of a chain's blocks from the few blocks whose timestamps are known. */

/** A block with its timestamp (unix seconds). */
export interface Timed {
  readonly number: number
  readonly timestamp: number
}

/** Some nodes send milliseconds instead of seconds, which no chain reaches before the year 5138. */
const secondsOf = ({ timestamp }: Timed) => (timestamp < 1e11 ? timestamp : timestamp / 1000)

/**
 * The time of the block at a height (unix seconds): exact if known, interpolated between two known blocks, and extrapolated
 * at their average rate outside. `undefined` if no block is known.
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

/** Keeps the timestamps of a chain's first and latest head in this process, its final block and its stored block. */
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

  /** The seconds between two blocks. @param from the earlier block; `undefined`: the first head of this process */
  between(from: number | undefined, to: number): number {
    const known = [this.#firstHead, this.#final, this.#stored, this.#head]
    const start = from ?? this.#firstHead?.number
    if (start === undefined) return 0
    return Math.max(timeAt(to, known)! - timeAt(start, known)!, 0)
  }
}
