/**
 * What one endpoint was found to bear and to refuse. It outlives the connections: a block that was too large for a frame
 * costs the socket, and must not be asked for in the same way again.
 *
 * Endpoints change for the better too, so that it fades: every hour what was refused is tried once more, and what was
 * made smaller grows again.
 */
import type { Hex } from "../Domain.ts"

/** Ways to ask for the logs of one block, cheapest first. */
export type LogMethod = "eth_getLogs" | "eth_getBlockReceipts" | "eth_subscribe" | "eth_getTransactionReceipt"

/** Blocks of a piece of history, at first and at most. */
const initialWidth = 500
const maxWidth = 50_000

/** Logs that one answer is to hold: what bounds memory, whatever the provider would bear. */
const targetLogs = 5_000

/** Blocks of a recent range: as many as headers go into one batch. */
const maxRecentWidth = 20

/** geth takes 1 000 addresses a request; others take fewer and say so. */
const mostAddresses = 1_000

/** Calls in one request. Providers accept 10 to 1 000; 20 is below what nearly all of them accept. */
const mostCalls = 20

/** Blocks that were too large are remembered up to this number. */
const mostOversized = 256

/** How many blocks hold about `logsPerAnswer` logs, where so many blocks held so many logs. */
const idealWidth = (blocks: number, logs: number): number =>
  Math.max(Math.floor((blocks * targetLogs) / Math.max(logs, 1)), 1)

export class Capabilities {
  /** Blocks of the next piece of history. */
  width = initialWidth
  /** Blocks of the next recent range. */
  recentWidth = maxRecentWidth
  addresses = mostAddresses
  /** Headers in one batch. */
  headers = mostCalls
  /** Receipts in one batch. */
  receipts = mostCalls
  /** Rungs that the endpoint refuses, whatever the block. */
  readonly refused = new Set<LogMethod>()
  /** Where headers were seen with a computed bloom: only there zeros prove that a block has no logs. */
  readonly blooms = { announced: false, fetched: false }
  /** Its log indexes have holes, as its receipts confirm. */
  hasIndexGaps = false
  /** From this height on a range was found to be served whole: below it, the endpoint may have pruned its logs. */
  servedFrom = Infinity
  /** Blocks whose logs and receipts agree against the header's bloom. */
  bloomMismatches = 0
  /** Whether the `finalized` tag is known. Where it is not, it is asked for all the same. */
  finalizedTag = true
  /** Whether it says, for some time now, that nothing is final yet. */
  nothingFinal = false
  /** Whether it takes `blockHash` in `eth_getLogs`. */
  byHash = true
  /** Whether it answers `eth_getLogs` for more than one block at a time. */
  ranges = true
  /** Ways of asking that were refused once, and for which block or range, since they last worked. */
  readonly #firstRefusals = new Map<LogMethod | "blockHash" | "range", string>()
  /** Whether heads can be subscribed to; otherwise they are polled. */
  announcesHeads = true
  readonly #oversized = new Map<Hex, Set<LogMethod>>()

  /** Whether a block may be asked for in this way. */
  allows(method: LogMethod, hash: Hex): boolean {
    return !this.refused.has(method) && this.#oversized.get(hash)?.has(method) !== true
  }

  /** Whether a way of asking was refused, for one block at least. */
  wasRefused(method: LogMethod): boolean {
    return this.refused.has(method) || this.#firstRefusals.has(method)
  }

  /** A way of asking is refused for this block; for a second one, or for one that is old, whatever the block. */
  refuse(method: LogMethod, hash: Hex, isOld: boolean): void {
    if (this.#isSecondRefusal(method, hash) || isOld) this.refused.add(method)
  }

  /** A block was refused by its hash, and answered by its height. */
  refuseHash(hash: Hex): void {
    if (this.#isSecondRefusal("blockHash", hash)) this.byHash = false
  }

  /** A range of blocks was refused; `isOld`: of blocks that are final. Single blocks may be answered all the same. */
  refuseRange(from: number, isOld: boolean): void {
    if (this.#isSecondRefusal("range", String(from)) || isOld) this.ranges = false
  }

  /** What was refused once works. */
  recordSupported(way: LogMethod | "blockHash" | "range"): void {
    this.#firstRefusals.delete(way)
  }

  #isSecondRefusal(way: LogMethod | "blockHash" | "range", what: string): boolean {
    const first = this.#firstRefusals.get(way) ?? what
    this.#firstRefusals.set(way, first)
    return first !== what
  }

  /** An hour has passed. Widths grow with every answer and need no help. */
  relax(): void {
    this.refused.clear()
    this.servedFrom = Infinity
    this.#firstRefusals.clear()
    this.byHash = true
    this.ranges = true
    this.finalizedTag = true
    this.announcesHeads = true
    this.addresses = Math.min(this.addresses * 2, mostAddresses)
    this.headers = Math.min(this.headers * 2, mostCalls)
    this.receipts = Math.min(this.receipts * 2, mostCalls)
  }

  /** What is known, as JSON for people. */
  get description() {
    return {
      refused: [...this.refused],
      range: this.width,
      recent_range: this.recentWidth,
      addresses: this.addresses,
      headers_per_batch: this.headers,
      receipts_per_batch: this.receipts,
      finalized_tag: this.finalizedTag,
      computes_blooms: this.blooms.announced || this.blooms.fetched,
      bloom_mismatches: this.bloomMismatches,
      nothing_final: this.nothingFinal,
      logs_by_hash: this.byHash,
      logs_of_ranges: this.ranges,
      announces_heads: this.announcesHeads,
      oversized_blocks: this.#oversized.size,
    }
  }

  /** The same in short sentences: where it differs from what every endpoint is first believed to bear. */
  get limits(): ReadonlyArray<string> {
    const limits = [...this.refused].map((method) => `refuses ${method}`)
    if (this.width !== initialWidth) limits.push(`history in pieces of ${this.width} blocks`)
    if (this.recentWidth < maxRecentWidth) limits.push(`recent blocks ${this.recentWidth} at a time`)
    if (this.addresses < mostAddresses) limits.push(`at most ${this.addresses} addresses a request`)
    if (this.headers < mostCalls) limits.push(`${this.headers} headers in a batch`)
    if (this.receipts < mostCalls) limits.push(`${this.receipts} receipts in a batch`)
    if (!this.byHash) limits.push("refuses eth_getLogs by blockHash")
    if (!this.ranges) limits.push("refuses eth_getLogs of ranges")
    if (!this.finalizedTag) limits.push("no finalized tag")
    if (this.bloomMismatches > 0)
      limits.push(`wrong bloom in ${this.bloomMismatches} blocks: set LOGS_BLOOM=ignore`)
    if (this.nothingFinal) limits.push("nothing is final yet")
    if (!this.announcesHeads) limits.push("heads are polled")
    return limits
  }

  /** A block was too large for one answer. */
  markOversized(method: LogMethod, hash: Hex): void {
    const methods = this.#oversized.get(hash) ?? new Set()
    this.#oversized.set(hash, methods.add(method))
    if (this.#oversized.size > mostOversized) this.#oversized.delete(this.#oversized.keys().next().value!)
  }

  /** A piece of history was answered: the next one is as wide as about `logsPerAnswer` logs are. */
  recordSuccess(blocks: number, logs: number): void {
    const ideal = idealWidth(blocks, logs)
    this.recentWidth = Math.min(this.recentWidth, ideal)
    if (ideal < this.width) this.width = ideal
    else if (blocks >= this.width) this.width = Math.min(ideal, Math.ceil(this.width * 1.5), maxWidth)
  }

  /** A piece of history was refused; `blocks` is what may be accepted. */
  shrink(blocks: number): void {
    this.width = Math.max(Math.min(this.width, blocks), 1)
  }

  /** A recent range was too much. It grows back slowly, by one block for each range that is answered. */
  shrinkRecent(blocks: number): void {
    this.recentWidth = Math.max(Math.floor(blocks / 2), 1)
  }

  /** A recent range, or a block, was answered: the next range is no wider than about `logsPerAnswer` logs are. */
  recordRecentSuccess(blocks: number, logs: number): void {
    const ideal = idealWidth(blocks, logs)
    if (ideal < this.recentWidth) this.recentWidth = ideal
    else if (blocks >= this.recentWidth) this.recentWidth = Math.min(this.recentWidth + 1, maxRecentWidth)
  }
}
