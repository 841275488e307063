/**
 * Injects faults into one node of the simulation, for a number of requests or for a time.
 *
 * It distinguishes wrong responses that the integrity checks must detect from those that only the audit can detect. The
 * latter are limited to blocks that are not finalized yet, so that the audit receives correct responses.
 */
import type { Hex } from "../../src/Domain.ts"
import { hex } from "../../src/endpoint/Decode.ts"
import { hash } from "./blocks.ts"
import type { FakeBlock } from "./FakeChain.ts"
import { Refused, silence } from "./FakeNode.ts"
import type { FakeNode, WireHeader } from "./FakeNode.ts"

/** Faults that last for a time. */
export type TimedFault =
  | "silent"
  | "frozen"
  | "down"
  | "behind"
  | "RangeTooLarge"
  | "blooms"
  | "replicas"
  | "early"
  | "receipts"

/** Faults that happen a number of times. */
type CountedFault =
  | "empty"
  | "unknown"
  | "mixed"
  | "first"
  | "half"
  | "refuse"
  | "words"
  | "blockHash"
  | "blockTimestamp"

type Logs = ReadonlyArray<{
  readonly blockNumber: string
  readonly blockHash: string
  readonly blockTimestamp?: string
}>

const noFaults = (): Record<CountedFault, number> => ({
  empty: 0,
  unknown: 0,
  mixed: 0,
  first: 0,
  half: 0,
  refuse: 0,
  words: 0,
  blockHash: 0,
  blockTimestamp: 0,
})

const requests = new Set(["eth_getLogs", "eth_getBlockByNumber", "eth_getBlockReceipts", "eth_subscribe"])

/** How long a header whose bloom proves nothing may be in use (milliseconds). */
const headerInUse = 90_000

/** With more logs than this a block's bloom may match a filter by chance. */
const maxConclusiveLogs = 100

/** Blooms that prove nothing. */
const uninformative = { zero: `0x${"0".repeat(512)}`, full: `0x${"f".repeat(512)}`, missing: undefined }

export interface BloomFault {
  readonly are: keyof typeof uninformative
  readonly where: "announced" | "fetched" | "everywhere"
}

export class Saboteur {
  readonly node: FakeNode
  /** Remaining occurrences of each fault. */
  times = noFaults()
  words = ""
  drop: "before" | "during" | "after" | undefined
  blooms: BloomFault | undefined
  /** Lag in blocks of every second request. */
  replicas = 0
  /** How long a block has no logs after its first request (milliseconds). */
  early = 0
  receipts = true
  /** Whether it omits the first log of each block, under a filter. */
  omitsFirst: boolean
  /** Blocks with a wrong response that no integrity check can detect. */
  readonly undetected = new Set<Hex>()
  readonly #stale: Map<number, FakeBlock>
  readonly #isFiltered: boolean
  readonly #now: () => number
  readonly #asked = new Map<string, number>()
  /** Until then, headers whose blooms prove nothing may be in use (clock milliseconds). */
  #blindUntil = 0
  /** Whether receipts were refused; then they are not requested for an hour. */
  #refusedReceipts = false
  #turn = 0
  /** Active timed faults, and when they end (clock milliseconds). */
  readonly #timedFaults = new Map<TimedFault, { readonly at: number; readonly end: () => void }>()

  /**
   * @param stale blocks that were canonical once, by height
   * @param options the permanent faults, and the clock in milliseconds
   */
  constructor(
    node: FakeNode,
    stale: Map<number, FakeBlock>,
    options: {
      readonly isFiltered: boolean
      readonly announcesZeros: boolean
      readonly omitsFirst: boolean
      readonly now: () => number
    },
  ) {
    this.node = node
    this.#stale = stale
    this.#isFiltered = options.isFiltered
    this.omitsFirst = options.omitsFirst && options.isFiltered
    this.#now = options.now
    if (options.announcesZeros) this.#blindUntil = Infinity
    node.announced = (header) =>
      options.announcesZeros
        ? { ...header, logsBloom: uninformative.zero, gasUsed: "0x0" }
        : this.#withBloom("announced", header)
    node.intercept = (method, params, proceed) => this.#answerOfReplica(method, params, proceed)
  }

  /** Starts or extends a timed fault. */
  startTimed(what: TimedFault, until: number, end: () => void): void {
    this.#timedFaults.set(what, { at: Math.max(until, this.#timedFaults.get(what)?.at ?? 0), end })
  }

  /** Ends expired faults. */
  endExpired(now: number): void {
    for (const [what, { at }] of this.#timedFaults) if (at <= now) this.end(what)
  }

  end(what: TimedFault): void {
    this.#timedFaults.get(what)?.end()
    this.#timedFaults.delete(what)
  }

  heal(): void {
    this.times = noFaults()
    this.drop = undefined
    for (const what of this.#timedFaults.keys()) this.end(what)
  }

  #withBloom(origin: "announced" | "fetched", header: WireHeader): unknown {
    if (this.blooms === undefined || (this.blooms.where !== "everywhere" && this.blooms.where !== origin))
      return header
    this.#blindUntil = Math.max(this.#blindUntil, this.#now() + headerInUse)
    return { ...header, logsBloom: uninformative[this.blooms.are] }
  }

  #answerOfReplica(method: string, params: ReadonlyArray<unknown>, proceed: () => unknown): unknown {
    const behind = this.#turn++ % 2 === 0 ? this.replicas : 0
    this.node.lag += behind
    try {
      return this.#answer(method, params, proceed)
    } finally {
      this.node.lag -= behind
    }
  }

  #answer(method: string, params: ReadonlyArray<unknown>, proceed: () => unknown): unknown {
    if (this.drop !== undefined && requests.has(method)) {
      const when = this.drop
      this.drop = undefined
      if (when === "before") {
        this.node.drop()
        return silence
      }
      const answer = proceed()
      // The response is lost in transit, or is the last one that arrives.
      if (when === "during") this.node.drop()
      else queueMicrotask(() => this.node.drop(1001))
      return answer
    }
    if (method !== "eth_subscribe" && requests.has(method) && this.#takes("words"))
      throw new Refused(-32000, this.words)
    if (method === "eth_getBlockReceipts" && !this.receipts) {
      this.#refusedReceipts = true
      throw new Refused(-32601, "the method does not exist")
    }
    if (method === "eth_getLogs") return this.#logs(params[0] as never, proceed)
    const answer = proceed()
    return method.startsWith("eth_getBlockBy") && answer !== null
      ? this.#withBloom("fetched", answer as WireHeader)
      : answer
  }

  #takes(what: CountedFault): boolean {
    if (this.times[what] === 0) return false
    this.times[what]--
    return true
  }

  /** Whether a wrong response is allowed for a block: only if the integrity checks or the audit can detect it. */
  #mayCorrupt(block: FakeBlock | undefined, isDetectable: boolean): boolean {
    if (isDetectable) return true
    if (block === undefined || block.header.number <= this.node.chain.final.number) return false
    this.undetected.add(block.header.hash)
    return true
  }

  #logs(
    filter: { readonly blockHash?: Hex; readonly fromBlock?: string; readonly toBlock?: string },
    proceed: () => unknown,
  ): unknown {
    const isRange = filter.blockHash === undefined
    if (isRange && this.#takes("refuse")) throw new Refused(-32005, "query returned more than 10000 results")
    if (!isRange && this.#takes("unknown")) throw new Refused(-32000, "unknown block")
    const correct = proceed() as Logs
    if (correct.length === 0) return correct
    const answer = this.#takes("blockTimestamp")
      ? correct.map((log, i) => ({
          ...log,
          blockTimestamp: i % 2 === 0 ? "0x0" : hex(Number(log.blockTimestamp) - 5),
        }))
      : correct
    // No header is fetched for finalized blocks: only an audit with another provider detects omitted logs there.
    if (isRange && Number(filter.toBlock) <= this.node.chain.final.number) return answer
    if (this.#takes("blockHash"))
      return answer.map((log) => ({ ...log, blockHash: hash("wrong", log.blockHash) }))
    if (isRange) return this.#range(answer, Number(filter.fromBlock), Number(filter.toBlock))

    const block = this.node.chain.byHash(filter.blockHash)
    const isBlind = this.#now() < this.#blindUntil
    const isUnfounded =
      this.#isFiltered && (!this.receipts || this.#refusedReceipts || block!.logs.length > maxConclusiveLogs)
    const isEmpty = this.#isEarly(filter.blockHash) || this.#takes("empty")
    if (isEmpty && this.#mayCorrupt(block, !isBlind && !isUnfounded)) return []
    return this.#shortened(answer, block, isBlind)
  }

  #isEarly(block: Hex): boolean {
    const since = this.#asked.get(block) ?? this.#now()
    this.#asked.set(block, since)
    return this.#now() - since < this.early
  }

  /**
   * Omits logs of the first block: without the first log there is an index gap, without half of them the bloom differs.
   * A filter hides both.
   */
  #shortened(answer: Logs, block: FakeBlock | undefined, isBlind: boolean): Logs {
    const logs = answer.findLastIndex((log) => log.blockHash === answer[0]!.blockHash) + 1
    if (logs < 2) return answer
    if (this.omitsFirst && this.#mayCorrupt(block, false)) return answer.slice(1)
    if (this.times.first > 0 && this.#mayCorrupt(block, !this.#isFiltered)) {
      this.times.first--
      return answer.slice(1)
    }
    if (this.times.half > 0 && this.#mayCorrupt(block, !this.#isFiltered && !isBlind)) {
      this.times.half--
      return answer.toSpliced(logs >> 1, logs - (logs >> 1))
    }
    return answer
  }

  /** Blocks without logs in a range are requested again by hash, so an empty range is always detected. */
  #range(answer: Logs, from: number, to: number): Logs {
    if (this.#takes("empty")) return []
    const isBlind = this.#now() < this.#blindUntil
    const first = this.node.chain.byHash(answer[0]!.blockHash as Hex)
    const short = this.#shortened(answer, first, isBlind)
    if (short !== answer) return short
    if (this.times.mixed === 0) return answer
    const heights = Array.from({ length: to - from + 1 }, (_, i) => from + i)
    const isStale = (height: number) => {
      const block = this.#stale.get(height)
      return block !== undefined && !this.node.chain.isCanonical(block)
    }
    if (!heights.some(isStale)) return answer
    this.times.mixed--
    return heights.flatMap((height) =>
      isStale(height)
        ? (this.node.logsOf(this.#stale.get(height)!) as Logs)
        : answer.filter((log) => Number(log.blockNumber) === height),
    )
  }
}
