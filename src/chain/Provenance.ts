/** What the second look knows of blocks that are not final yet: who told them, which logs, and what was found of them. */
import type { Block, Hex } from "../Domain.ts"

/** Blocks whose sums are kept; of older ones only the number of logs is compared, which the store knows. */
const mostSums = 50_000

/** Changes of the endpoint that tells the blocks that are kept; who told older ones is then not known. */
const mostTellers = 1000

/** Logs of blocks that are kept until they are written anew. */
const mostFound = 50_000

/** A block's logs in brief: the same for the same positions of the same block. */
export interface Brief {
  readonly hash: Hex
  readonly count: number
  /** `undefined` where only the store knows the block. */
  readonly sum: number | undefined
}

export const briefOf = ({ hash, logs }: Block): Brief => ({
  hash,
  count: logs.length,
  sum: logs.reduce((sum, { index }) => (Math.imul(sum, 31) + index) | 0, 0),
})

/** What outlives the connections of a chain: what this process has written and not yet looked at again. */
export class Memory {
  readonly #sums = new Map<Hex, { readonly number: number; readonly sum: number }>()
  /** Who told the blocks from a height on, up to the next one's. */
  readonly #tellers: Array<{ readonly from: number; readonly by: string }> = []
  #last: Hex | "" = ""
  readonly #found = new Map<number, Block>()
  /** Since when (monotonic milliseconds) there has been no second look. */
  failingSince: number | undefined
  /** The height up to which blocks were counted that nobody looked at. */
  unauditedThrough = -1

  /** A journal is continued at this head. If it is not where we stood, somebody else has written, told by whomever. */
  resume(head: Hex | ""): void {
    if (head !== this.#last) this.othersWrote()
  }

  /** Another ingestor has written some of the blocks: these, where it is known which. */
  othersWrote(blocks: ReadonlyArray<Pick<Block, "hash">> = []): void {
    this.#tellers.length = 0
    for (const { hash } of blocks) this.#sums.delete(hash)
  }

  /** A block was pushed that is not final yet. */
  wrote(block: Block, by: string): void {
    this.#last = block.hash
    while ((this.#tellers.at(-1)?.from ?? -1) >= block.number) this.#tellers.pop()
    if (this.#tellers.at(-1)?.by !== by) this.#tellers.push({ from: block.number, by })
    if (this.#tellers.length > mostTellers) this.#tellers.shift()
    if (block.logs.length > 0) {
      this.#sums.set(block.hash, { number: block.number, sum: briefOf(block).sum! })
      if (this.#sums.size > mostSums) this.#sums.delete(this.#sums.keys().next().value!)
    }
  }

  /** A block was found to be stored wrong: this is what it is believed to be, whoever can be asked when it is written. */
  found(block: Block): void {
    const kept = [...this.#found.values()].reduce((sum, { logs }) => sum + logs.length, 0)
    if (kept + block.logs.length <= mostFound) this.#found.set(block.number, block)
  }

  /** These blocks, of a range, with what was found of them before. */
  completed(from: number, to: number, blocks: Map<number, Block>): ReadonlyArray<Block> {
    for (const [number, { logs, ...block }] of this.#found) {
      const isShorter = (blocks.get(number)?.logs.length ?? 0) < logs.length
      // A copy: the logs of what is pushed are let go.
      if (number >= from && number <= to && isShorter) blocks.set(number, { ...block, logs: [...logs] })
    }
    return [...blocks.values()].sort((a, b) => a.number - b.number)
  }

  sumOf(hash: Hex): number | undefined {
    return this.#sums.get(hash)?.sum
  }

  /** Who told these blocks; `undefined` among them if that is not known of all. */
  tellersOf(from: number, to: number): ReadonlySet<string | undefined> {
    const known = this.#tellers.filter(
      (teller, i) => teller.from <= to && (this.#tellers[i + 1]?.from ?? Infinity) > from,
    )
    const isWhole = known[0] !== undefined && known[0].from <= from
    return new Set([...known.map(({ by }) => by), ...(isWhole ? [] : [undefined])])
  }

  /** Everything up to this height is final. */
  forget(through: number): void {
    for (const [hash, { number }] of this.#sums) if (number <= through) this.#sums.delete(hash)
    for (const number of this.#found.keys()) if (number <= through) this.#found.delete(number)
    while ((this.#tellers[1]?.from ?? Infinity) <= through + 1) this.#tellers.shift()
  }
}
