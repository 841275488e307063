/**
 * Two ingestors of one chain whose nodes are on different forks undo each other's blocks, each following the longer chain
 * that its own node shows. This keeps that from going on and on: who would write again what another ingestor replaced
 * waits, longer after each time, so that the forks have time to end.
 *
 * An ordinary reorg is never waited for: a block that this process wrote and undid itself, or one that it never wrote,
 * is no change of side. Pure: the time is an argument.
 */
import type { Hex } from "../Domain.ts"

/** Blocks that are remembered as written by this process: more than can be undone. */
const mostWritten = 20_000

/** How long (milliseconds) the first change back waits; each further one waits twice as long. */
const firstWait = 150_000
const longestWait = 10 * 60_000

/** After so long (milliseconds) without a change of side they are forgotten. */
const quietAfter = 60 * 60_000

export class Sides {
  readonly #written = new Set<Hex>()
  #changes = 0
  #changedAt = 0
  /** When it was first seen that ours could be written again. */
  #since: number | undefined

  /** This process wrote these blocks: the store has taken them. */
  wrote(blocks: ReadonlyArray<{ readonly hash: Hex }>): void {
    for (const { hash } of blocks) this.#written.add(hash)
    for (const hash of this.#written) {
      if (this.#written.size <= mostWritten) break
      this.#written.delete(hash)
    }
  }

  /** Whether this process wrote a block once. */
  hasWritten(hash: Hex): boolean {
    return this.#written.has(hash)
  }

  /** How long (milliseconds) what another ingestor replaced is not to be written again. 0: it may be, and counts as done. */
  waitFor(now: number): number {
    if (now - this.#changedAt > quietAfter) this.#changes = 0
    this.#since ??= now
    const wait = Math.min(firstWait * 2 ** this.#changes, longestWait)
    const left = this.#since + wait - now
    if (left > 0) return left
    this.#changes++
    this.#changedAt = now
    this.#since = undefined
    return 0
  }

  /** The store has what the node shows. */
  agree(): void {
    this.#since = undefined
  }
}
