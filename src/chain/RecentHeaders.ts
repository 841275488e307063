/**
 * The headers of a chain that were seen lately, by hash, whoever told them: how one block hangs on another is known without
 * asking. It outlives connections. Pure.
 */
import type { Hex } from "../Domain.ts"

/** A block and the one it is on top of. */
export interface Linked {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
}

/** Reorgs are at most so deep that the headers of both sides are among these. */
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

  /** How many blocks on top of this one were seen, one on the other. */
  above(hash: Hex): number {
    const heights = new Map([[hash, 0]])
    let most = 0
    for (const block of [...this.#byHash.values()].toSorted((a, b) => a.number - b.number)) {
      const below = heights.get(block.parentHash)
      if (below === undefined || heights.has(block.hash)) continue
      heights.set(block.hash, below + 1)
      most = Math.max(most, below + 1)
    }
    return most
  }
}

/** Where another chain leaves ours. */
export interface ForkPoint {
  /** The lowest of our blocks that it does not have. */
  readonly lowest: number
  /** How many of our blocks it does not have. */
  readonly depth: number
}

/**
 * Follows both chains down to the block that they share.
 *
 * @param ours our head
 * @param theirs a block of the other chain
 * @param parentOf the block below another one; `undefined` where it is not known
 * @returns where it leaves ours, or the block of the other chain whose parent is not known; `undefined` where our own
 *   headers do not reach so far
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
    // The higher one goes down; both where they are level. Ours is then not on the other chain.
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
