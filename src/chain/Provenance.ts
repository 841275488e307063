/** What the audit knows of blocks that are not final yet: which endpoint served them, their digests, and corrections. */
import type { Block, Hex } from "../Domain.ts"

/** Blocks whose digests are kept. For older ones the audit compares only the number of logs, which the store has. */
const mostSums = 50_000

/** Ranges of blocks whose source endpoint is kept; the source of older blocks is then unknown. */
const mostSources = 1000

/** Logs of corrected blocks that are kept until the blocks are rewritten. */
const mostCorrectedLogs = 50_000

/** A digest of a block's logs: equal for the same log indexes of the same block. */
export interface BlockDigest {
  readonly hash: Hex
  readonly count: number
  /** `undefined` if this process has not written the block. */
  readonly sum: number | undefined
}

export const digestOf = ({ hash, logs }: Block): BlockDigest => ({
  hash,
  count: logs.length,
  sum: logs.reduce((sum, { index }) => (Math.imul(sum, 31) + index) | 0, 0),
})

/** Whether two answers have the same logs of a block; `undefined`: none. */
export const isSame = (a: BlockDigest | undefined, b: BlockDigest | undefined): boolean => {
  if (a === undefined || b === undefined) return (a?.count ?? 0) === (b?.count ?? 0)
  if (a.count === 0 && b.count === 0) return true
  return (
    a.hash === b.hash &&
    a.count === b.count &&
    (a.sum === undefined || b.sum === undefined || a.sum === b.sum)
  )
}

/** What this process has written and not audited yet. It outlives the connections of a chain. */
export class Provenance {
  readonly #sums = new Map<Hex, { readonly number: number; readonly sum: number }>()
  /** Which endpoint served the blocks from a height on, up to the height of the next element. */
  readonly #sources: Array<{ readonly from: number; readonly servedBy: string }> = []
  #last: Hex | "" = ""
  readonly #corrections = new Map<number, Block>()
  /** Since when (monotonic milliseconds) audits have failed. */
  failingSince: number | undefined
  /** The height up to which unaudited blocks were counted. */
  unauditedThrough = -1

  /** The journal resumes at this head. If it is not the last one we wrote, another ingestor has written from unknown sources. */
  resume(head: Hex | ""): void {
    if (head !== this.#last) this.invalidate()
  }

  /** Another ingestor has written some of the blocks: these, if it is known which. */
  invalidate(blocks: ReadonlyArray<Pick<Block, "hash">> = []): void {
    this.#sources.length = 0
    for (const { hash } of blocks) this.#sums.delete(hash)
  }

  /** Records a pushed block that is not final yet. */
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

  /** Keeps the audited version of a block that is stored wrong: the endpoint that rewrites it may omit the same logs again. */
  recordCorrection(block: Block): void {
    const kept = [...this.#corrections.values()].reduce((sum, { logs }) => sum + logs.length, 0)
    if (kept + block.logs.length <= mostCorrectedLogs) this.#corrections.set(block.number, block)
  }

  /** The corrections of a range. A corrected block may have been replaced since. */
  corrections(from: number, to: number): ReadonlyArray<Block> {
    return [...this.#corrections.values()].filter(({ number }) => number >= from && number <= to)
  }

  sumOf(hash: Hex): number | undefined {
    return this.#sums.get(hash)?.sum
  }

  /** The endpoints that served these blocks; contains `undefined` if the source of some is unknown. */
  sourcesOf(from: number, to: number): ReadonlySet<string | undefined> {
    const known = this.#sources.filter(
      (source, i) => source.from <= to && (this.#sources[i + 1]?.from ?? Infinity) > from,
    )
    const isComplete = known[0] !== undefined && known[0].from <= from
    return new Set([...known.map(({ servedBy }) => servedBy), ...(isComplete ? [] : [undefined])])
  }

  /** Drops everything up to this height, which is final. */
  forget(through: number): void {
    for (const [hash, { number }] of this.#sums) if (number <= through) this.#sums.delete(hash)
    for (const number of this.#corrections.keys()) if (number <= through) this.#corrections.delete(number)
    while ((this.#sources[1]?.from ?? Infinity) <= through + 1) this.#sources.shift()
  }
}
