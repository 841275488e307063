/** What the second look knows of blocks that are not final yet: who told them, which logs, and what was found of them. */
import type { Block, Hex } from "../Domain.ts"

/** Blocks whose sums are kept; of older ones only the number of logs is compared, which the store knows. */
const mostSums = 50_000

/** Changes of the endpoint that tells the blocks that are kept; who told older ones is then not known. */
const mostSources = 1000

/** Logs of blocks that are kept until they are written anew. */
const mostCorrectedLogs = 50_000

/** A block's logs in brief: the same for the same positions of the same block. */
export interface BlockDigest {
  readonly hash: Hex
  readonly count: number
  /** `undefined` where only the store knows the block. */
  readonly sum: number | undefined
}

export const digestOf = ({ hash, logs }: Block): BlockDigest => ({
  hash,
  count: logs.length,
  sum: logs.reduce((sum, { index }) => (Math.imul(sum, 31) + index) | 0, 0),
})

/** What outlives the connections of a chain: what this process has written and not yet looked at again. */
export class Provenance {
  readonly #sums = new Map<Hex, { readonly number: number; readonly sum: number }>()
  /** Who told the blocks from a height on, up to the next one's. */
  readonly #sources: Array<{ readonly from: number; readonly servedBy: string }> = []
  #last: Hex | "" = ""
  readonly #corrections = new Map<number, Block>()
  /** Since when (monotonic milliseconds) there has been no second look. */
  failingSince: number | undefined
  /** The height up to which blocks were counted that nobody looked at. */
  unauditedThrough = -1

  /** A journal is continued at this head. If it is not where we stood, somebody else has written, told by whomever. */
  resume(head: Hex | ""): void {
    if (head !== this.#last) this.invalidate()
  }

  /** Another ingestor has written some of the blocks: these, where it is known which. */
  invalidate(blocks: ReadonlyArray<Pick<Block, "hash">> = []): void {
    this.#sources.length = 0
    for (const { hash } of blocks) this.#sums.delete(hash)
  }

  /** A block was pushed that is not final yet. */
  recordPush(block: Block, servedBy: string): void {
    this.#last = block.hash
    while ((this.#sources.at(-1)?.from ?? -1) >= block.number) this.#sources.pop()
    if (this.#sources.at(-1)?.servedBy !== servedBy) this.#sources.push({ from: block.number, servedBy })
    if (this.#sources.length > mostSources) this.#sources.shift()
    if (block.logs.length > 0) {
      this.#sums.set(block.hash, { number: block.number, sum: digestOf(block).sum! })
      if (this.#sums.size > mostSums) this.#sums.delete(this.#sums.keys().next().value!)
    }
  }

  /** A block was found to be stored wrong: this is what it is believed to be, whoever can be asked when it is written. */
  recordCorrection(block: Block): void {
    const kept = [...this.#corrections.values()].reduce((sum, { logs }) => sum + logs.length, 0)
    if (kept + block.logs.length <= mostCorrectedLogs) this.#corrections.set(block.number, block)
  }

  /** These blocks, of a range, with what was found of them before. */
  applyCorrections(from: number, to: number, blocks: Map<number, Block>): ReadonlyArray<Block> {
    for (const [number, { logs, ...block }] of this.#corrections) {
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
  sourcesOf(from: number, to: number): ReadonlySet<string | undefined> {
    const known = this.#sources.filter(
      (source, i) => source.from <= to && (this.#sources[i + 1]?.from ?? Infinity) > from,
    )
    const isWhole = known[0] !== undefined && known[0].from <= from
    return new Set([...known.map(({ servedBy }) => servedBy), ...(isWhole ? [] : [undefined])])
  }

  /** Everything up to this height is final. */
  forget(through: number): void {
    for (const [hash, { number }] of this.#sums) if (number <= through) this.#sums.delete(hash)
    for (const number of this.#corrections.keys()) if (number <= through) this.#corrections.delete(number)
    while ((this.#sources[1]?.from ?? Infinity) <= through + 1) this.#sources.shift()
  }
}
