/**
 * The recent headers of a chain by hash, from any endpoint: parent links are known without requests. It outlives
 * connections. Pure.
 */
import type { Hex } from "../Domain.ts"

/** A block and its parent. */
export interface Linked {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
}

/** The most headers to keep: enough for both sides of any realistic reorg. */
const mostKept = 1024

export class RecentHeaders {
  readonly #byHash = new Map<Hex, Linked>()

  add({ number, hash, parentHash }: Linked): void {
    this.#byHash.delete(hash)
    this.#byHash.set(hash, { number, hash, parentHash })
    if (this.#byHash.size > mostKept) this.#byHash.delete(this.#byHash.keys().next().value!)
  }

  get(hash: Hex): Linked | undefined {
    return this.#byHash.get(hash)
  }

  /** The length of the longest known branch on top of this block. */
  above(hash: Hex): number {
    const heights = new Map([[hash, 0]])
    let highest = 0
    for (const block of [...this.#byHash.values()].toSorted((a, b) => a.number - b.number)) {
      const below = heights.get(block.parentHash)
      if (below === undefined || heights.has(block.hash)) continue
      heights.set(block.hash, below + 1)
      highest = Math.max(highest, below + 1)
    }
    return highest
  }
}

/** Where another chain forks off ours. */
export interface ForkPoint {
  /** The lowest of our blocks that it does not have. */
  readonly lowest: number
  /** How many of our blocks it does not have. */
  readonly depth: number
}

/**
 * Follows both chains down to their common ancestor.
 *
 * @param ours our head
 * @param theirs a block of the other chain
 * @param parentOf the parent of a block; `undefined` if it is not known
 * @returns the fork point, or the block of the other chain whose parent is not known; `undefined` if our own headers do
 *   not reach that far
 */
export const forkPoint = (
  ours: Linked,
  theirs: Linked,
  parentOf: (block: Linked) => Linked | undefined,
): ForkPoint | { readonly missing: Linked } | undefined => {
  let [own, other] = [ours, theirs]
  let [lowest, depth] = [ours.number + 1, 0]
  for (;;) {
    if (own.hash === other.hash) return { lowest, depth }
    if (own.parentHash === other.parentHash) return { lowest: own.number, depth: depth + 1 }
    // The higher one steps down; both do if they are level. Our block is then not on the other chain.
    const level = own.number - other.number
    if (level <= 0) {
      const below = parentOf(other)
      if (below === undefined) return { missing: other }
      other = below
    }
    if (level >= 0) {
      const below = parentOf(own)
      if (below === undefined) return undefined
      lowest = own.number
      depth++
      own = below
    }
  }
}
