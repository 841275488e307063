/**
 * The limits and refusals observed on one endpoint. They outlive its connections: a block too large for a frame closes
 * the socket, and must not be requested by the same method after the reconnect.
 *
 * Endpoints also improve, so the observations expire: every hour refused methods are tried again and reduced limits grow.
 */
import type { Hex } from "../Domain.ts"
import { AdaptiveSize } from "./AdaptiveSize.ts"

/** Methods that read the logs of one block, cheapest first. */
export type LogMethod = "eth_getLogs" | "eth_getBlockReceipts" | "eth_subscribe" | "eth_getTransactionReceipt"

/** Initial and largest width of a finalized range, in blocks. */
const initialWidth = 500
const maxWidth = 50_000

/** Target number of logs per response. Bounds memory, whatever the provider would accept. */
const targetLogs = 5_000

/** Largest width of an unfinalized range: the number of headers in one batch. */
const maxRecentWidth = 20

/** geth accepts 1 000 addresses per request; others accept fewer and reject the rest. */
const mostAddresses = 1_000

/** Calls per batch. Providers accept 10 to 1 000; nearly all accept more than 20. */
export const mostCalls = 20

/** Upper bound for the remembered oversized blocks. */
const mostOversized = 256

/** The width that yields about `targetLogs` logs, at the density of the given response. */
const idealWidth = (blocks: number, logs: number): number =>
  Math.max(Math.floor((blocks * targetLogs) / Math.max(logs, 1)), 1)

export class Capabilities {
  /** Width of the next finalized range, in blocks. */
  readonly width = new AdaptiveSize(maxWidth, initialWidth)
  /** Width of the next unfinalized range, in blocks. */
  readonly recentWidth = new AdaptiveSize(maxRecentWidth)
  /** Addresses per `eth_getLogs`. */
  readonly addresses = new AdaptiveSize(mostAddresses)
  /** Headers per batch. */
  readonly headers = new AdaptiveSize(mostCalls)
  /** Receipts per batch. */
  readonly receipts = new AdaptiveSize(mostCalls)
  /** Methods that the endpoint refuses for every block. */
  readonly refused = new Set<LogMethod>()
  /** Header origins with computed blooms. Only there does a zero bloom prove that a block has no logs. */
  readonly blooms = { announced: false, fetched: false }
  /** Whether log indexes have gaps, confirmed by the receipts. */
  hasIndexGaps = false
  /** Lowest height from which a complete range was served. Below it the endpoint may have pruned its logs. */
  servedFrom = Infinity
  /** Blocks whose logs and receipts agree with each other but not with the header's bloom. */
  bloomMismatches = 0
  /** Whether the endpoint supports the `finalized` tag. Unsupported, it is still queried from time to time. */
  finalizedTag = true
  /** Whether the endpoint has reported for some time that no block is finalized yet. */
  nothingFinal = false
  /** Whether `eth_getLogs` accepts `blockHash`. */
  byHash = true
  /** Whether `eth_getLogs` accepts ranges of more than one block. */
  ranges = true
  /** Methods refused once since they last worked, with the block or range of that refusal. */
  readonly #firstRefusals = new Map<LogMethod | "blockHash" | "range", string>()
  /** Whether the endpoint supports the `newHeads` subscription; otherwise heads are polled. */
  announcesHeads = true
  readonly #oversized = new Map<Hex, Set<LogMethod>>()

  /** Whether a block may be requested by this method. */
  allows(method: LogMethod, hash: Hex): boolean {
    return !this.refused.has(method) && this.#oversized.get(hash)?.has(method) !== true
  }

  /** Whether a method was refused for at least one block. */
  wasRefused(method: LogMethod): boolean {
    return this.refused.has(method) || this.#firstRefusals.has(method)
  }

  /** Records a refusal. A refusal for a second block, or for an old block, disables the method for every block. */
  refuse(method: LogMethod, hash: Hex, isOld: boolean): void {
    if (this.#isSecondRefusal(method, hash) || isOld) this.refused.add(method)
  }

  /** Records a block that was refused by hash and served by height. */
  refuseHash(hash: Hex): void {
    if (this.#isSecondRefusal("blockHash", hash)) this.byHash = false
  }

  /** Records a refused range; `isOld`: of finalized blocks. Single blocks may still be served. */
  refuseRange(from: number, isOld: boolean): void {
    if (this.#isSecondRefusal("range", String(from)) || isOld) this.ranges = false
  }

  /** Records a success: earlier single refusals no longer count. */
  recordSupported(way: LogMethod | "blockHash" | "range"): void {
    this.#firstRefusals.delete(way)
  }

  #isSecondRefusal(way: LogMethod | "blockHash" | "range", what: string): boolean {
    const first = this.#firstRefusals.get(way) ?? what
    this.#firstRefusals.set(way, first)
    return first !== what
  }

  /** Runs every hour. Range widths are not included: they grow with each success. */
  relax(): void {
    this.refused.clear()
    this.servedFrom = Infinity
    this.#firstRefusals.clear()
    this.byHash = true
    this.ranges = true
    this.finalizedTag = true
    this.announcesHeads = true
    this.addresses.relax()
    this.headers.relax()
    this.receipts.relax()
  }

  /** The observations as JSON, for `/status`. */
  get description() {
    return {
      refused: [...this.refused],
      range: this.width.current,
      recent_range: this.recentWidth.current,
      addresses: this.addresses.current,
      headers_per_batch: this.headers.current,
      receipts_per_batch: this.receipts.current,
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

  /** The deviations from the defaults, as short texts. */
  get limits(): ReadonlyArray<string> {
    const limits = [...this.refused].map((method) => `refuses ${method}`)
    const { width, recentWidth, addresses, headers, receipts } = this
    if (width.current !== initialWidth) limits.push(`history in ranges of ${width.current} blocks`)
    if (recentWidth.isReduced) limits.push(`recent blocks in ranges of ${recentWidth.current}`)
    if (addresses.isReduced) limits.push(`at most ${addresses.current} addresses per request`)
    if (headers.isReduced) limits.push(`${headers.current} headers per batch`)
    if (receipts.isReduced) limits.push(`${receipts.current} receipts per batch`)
    if (!this.byHash) limits.push("refuses eth_getLogs by blockHash")
    if (!this.ranges) limits.push("refuses eth_getLogs of ranges")
    if (!this.finalizedTag) limits.push("no finalized tag")
    if (this.bloomMismatches > 0)
      limits.push(`wrong bloom in ${this.bloomMismatches} blocks: set LOGS_BLOOM=ignore`)
    if (this.nothingFinal) limits.push("nothing is final yet")
    if (!this.announcesHeads) limits.push("heads are polled")
    return limits
  }

  /** Records that a block was too large for one response of this method. */
  markOversized(method: LogMethod, hash: Hex): void {
    const methods = this.#oversized.get(hash) ?? new Set()
    this.#oversized.set(hash, methods.add(method))
    if (this.#oversized.size > mostOversized) this.#oversized.delete(this.#oversized.keys().next().value!)
  }

  /** Records a served finalized range and sizes the next one for about `targetLogs` logs. */
  recordSuccess(blocks: number, logs: number): void {
    const ideal = idealWidth(blocks, logs)
    this.recentWidth.shrink(ideal)
    this.width.adapt(blocks, ideal, Math.min(ideal, Math.ceil(this.width.current * 1.5)))
  }

  /** Records a served unfinalized range or block. The next range grows by one block, up to about `targetLogs` logs. */
  recordRecentSuccess(blocks: number, logs: number): void {
    this.recentWidth.adapt(blocks, idealWidth(blocks, logs), this.recentWidth.current + 1)
  }
}
