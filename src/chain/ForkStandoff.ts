/**
 * Two ingestors of one chain whose nodes are on different forks undo each other's blocks, each following the longer chain
 * that its own node shows. This keeps that from going on and on: an ingestor that would write its side again waits, longer
 * after each time, so that the forks have time to end.
 *
 * Another ingestor replaced our side if the node still shows what it and the store agreed on, and the store has blocks
 * instead that the node never showed. Everything else is an ordinary reorg, which never waits: the node itself has left
 * the blocks, whoever wrote them, or the store was set back to an earlier state.
 *
 * Pure: the time is an argument.
 */
import type { Hex } from "../Domain.ts"
import type { Journal, BlockRecord } from "../store/Journal.ts"

/** Blocks that are remembered as agreed on: more than can be undone. */
const mostKnown = 20_000

/** How long (milliseconds) the first change back waits; each further one waits twice as long. */
const firstWait = 150_000
const longestWait = 10 * 60_000

/** After so long (milliseconds) without a change of side they are forgotten. */
const quietAfter = 60 * 60_000

export class ForkStandoff {
  /** What was recorded when the node and the store agreed last. */
  #agreed: ReadonlyArray<BlockRecord> = []
  /** What was recorded whenever they agreed. */
  readonly #known = new Set<Hex>()
  #changes = 0
  #changedAt = -Infinity
  /** Since when our side is to be written again. */
  #since: number | undefined
  /** Whether it has waited for long enough, and has not been begun. */
  #isDue = false

  /** The store has taken what the node shows: everything that the journal has is agreed. */
  recordPush({ window }: Pick<Journal, "window">): void {
    this.#agree(window)
  }

  /**
   * The node shows this block of the journal.
   *
   * @returns whether that says that they agree. A block that both sides have says nothing: a late replica shows it as well.
   */
  confirm({ window }: Pick<Journal, "window">, hash: Hex): boolean {
    const top = window.findLastIndex((record) => record.hash === hash)
    if (top < 0) return false
    if (top < window.length - 1 && this.#agreed.some((record) => record.hash === hash)) return false
    this.#agree(window.slice(0, top + 1))
    return true
  }

  /** The store has undone a block: if it was one of the other side, the side has changed. */
  recordPop(now: number): void {
    if (!this.#isDue) return
    this.#changes++
    this.#changedAt = now
    this.#since = undefined
    this.#isDue = false
  }

  /**
   * What another ingestor may have replaced, if everything in the journal above a height is to be undone: the lowest block
   * with logs above it that was agreed on. It has replaced it if the node still shows that block.
   */
  replacedBy({ window }: Pick<Journal, "window">, height: number): BlockRecord | undefined {
    const isForeign = window.some(({ number, hash }) => number > height && !this.#known.has(hash))
    return isForeign ? this.#agreed.find(({ number, count }) => number > height && count > 0) : undefined
  }

  /** How long (milliseconds) what another ingestor replaced is not to be written again; 0: it may be. */
  waitFor(now: number): number {
    if (this.#since === undefined) {
      this.#since = now
      if (now - this.#changedAt > quietAfter) this.#changes = 0
    }
    const left = this.#since + Math.min(firstWait * 2 ** this.#changes, longestWait) - now
    this.#isDue = left <= 0
    return Math.max(left, 0)
  }

  /** Whether our side is to be written again, later. */
  get isWaiting(): boolean {
    return this.#since !== undefined
  }

  #agree(window: ReadonlyArray<BlockRecord>): void {
    this.#agreed = window
    // What is below a known block is known.
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
