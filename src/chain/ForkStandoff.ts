/**
 * Two ingestors of one chain whose nodes are on different forks retract each other's blocks, each following the longer
 * chain of its own node. This limits the loop: an ingestor that would write its side again waits first, twice as long
 * after each change of side, so that the forks have time to resolve.
 *
 * Another ingestor replaced our side if the node still serves the blocks that it and the store agreed on, and the store
 * has other blocks instead that the node never served. Everything else is an ordinary reorg, which never waits: the node
 * itself has reorganised, or the store was restored to an earlier state.
 *
 * Pure: the time is an argument.
 */
import type { Hex } from "../Domain.ts"
import type { Journal, BlockRecord } from "../store/Journal.ts"

/** The most agreed blocks to remember. A reorg replaces fewer. */
const mostKnown = 20_000

/** How long (milliseconds) the first change back waits; each further one waits twice as long, up to the maximum. */
const firstWait = 150_000
const longestWait = 10 * 60_000

/** After this time (milliseconds) without a change of side the wait starts from the first one again. */
const resetAfter = 60 * 60_000

export class ForkStandoff {
  /** The records of the last time the node and the store agreed. */
  #agreed: ReadonlyArray<BlockRecord> = []
  /** Every block on which they ever agreed. */
  readonly #known = new Set<Hex>()
  #changes = 0
  #changedAt = -Infinity
  /** When the current wait began. */
  #since: number | undefined
  /** Whether the wait is over and no block of the other side has been popped yet. */
  #isDue = false

  /** The store has accepted a push: the node and the store agree on the whole journal. */
  recordPush({ window }: Pick<Journal, "window">): void {
    this.#agree(window)
  }

  /**
   * The node serves this block of the journal.
   *
   * @returns whether that proves that they agree. A block that both sides have proves nothing: a lagging replica serves it
   *   as well.
   */
  confirm({ window }: Pick<Journal, "window">, hash: Hex): boolean {
    const top = window.findLastIndex((record) => record.hash === hash)
    if (top < 0) return false
    if (top < window.length - 1 && this.#agreed.some((record) => record.hash === hash)) return false
    this.#agree(window.slice(0, top + 1))
    return true
  }

  /** The store has popped a block: if the wait was over, the side has changed. */
  recordPop(now: number): void {
    if (!this.#isDue) return
    this.#changes++
    this.#changedAt = now
    this.#since = undefined
    this.#isDue = false
  }

  /**
   * What another ingestor may have replaced, if everything in the journal above a height is to be popped: the lowest
   * agreed block with logs above that height. It was replaced if the node still serves that block.
   */
  replacedBy({ window }: Pick<Journal, "window">, height: number): BlockRecord | undefined {
    const isForeign = window.some(({ number, hash }) => number > height && !this.#known.has(hash))
    return isForeign ? this.#agreed.find(({ number, count }) => number > height && count > 0) : undefined
  }

  /** How long (milliseconds) to wait before writing our side again; 0: now. */
  waitFor(now: number): number {
    if (this.#since === undefined) {
      this.#since = now
      if (now - this.#changedAt > resetAfter) this.#changes = 0
    }
    const left = this.#since + Math.min(firstWait * 2 ** this.#changes, longestWait) - now
    this.#isDue = left <= 0
    return Math.max(left, 0)
  }

  /** Whether a wait is in progress. */
  get isWaiting(): boolean {
    return this.#since !== undefined
  }

  #agree(window: ReadonlyArray<BlockRecord>): void {
    this.#agreed = window
    // Everything below a known block is known.
    const known = window.findLastIndex(({ hash }) => this.#known.has(hash))
    for (const { hash } of window.slice(known + 1)) this.#known.add(hash)
    for (const hash of this.#known) {
      if (this.#known.size <= mostKnown) break
      this.#known.delete(hash)
    }
    this.#since = undefined
    this.#isDue = false
  }
}
