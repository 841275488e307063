/**
 * What a chain and its endpoints are doing, as plain numbers: written once per head, block or failure. What is called
 * `since` or `until` is in monotonic milliseconds, and what is called `at` is when it was, in unix milliseconds.
 */
import type { Clock } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { RateLimiter } from "../endpoint/RateLimiter.ts"
import type { Outcome } from "../endpoint/RpcClient.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import { errorTypes } from "../endpoint/EndpointError.ts"
import type { ErrorType } from "../endpoint/EndpointError.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { stateOf } from "../Retry.ts"
import type { Breaker, BreakerState } from "../Retry.ts"
import * as Metrics from "./Metrics.ts"
import * as Monotonic from "../Monotonic.ts"
import type { Registry } from "./Metrics.ts"
import type { Disagreement } from "../chain/Finality.ts"
import type { Holder } from "../store/Retention.ts"
import type { Stats } from "../store/Store.ts"
import { ChainTime } from "./ChainTime.ts"
import type { Timed } from "./ChainTime.ts"
import { Sparkline } from "./Sparkline.ts"
import { RecentEntries } from "../http/RecentEntries.ts"

/**
 * - `connecting`: no endpoint is connected.
 * - `catching-up`: more than a few blocks behind the announced head.
 * - `live`: at the head.
 * - `idle`: at the head, and the endpoint confirms that the chain makes no blocks.
 * - `store-unavailable`: connected, but the store does not take moves.
 * - `paused`: connected, but a pinned reader is so far behind that nothing is published.
 * - `superseded`: another ingestor continued the journal with another filter.
 * - `halted`: final blocks contradict each other, or a later release wrote the journal; somebody must decide.
 */
export type Phase =
  | "connecting"
  | "catching-up"
  | "live"
  | "idle"
  | "store-unavailable"
  | "paused"
  | "superseded"
  | "halted"

const mustNotWrite: ReadonlySet<Phase> = new Set(["superseded", "halted"])

/** Blocks behind the target up to which a chain counts as live. */
export const liveWithin = 3

/** Latencies that are kept to tell the median and the 99th percentile. */
const latenciesKept = 1000

export interface Failure {
  readonly at: number
  readonly type: ErrorType
  readonly text: string
}

/** The last reorgs and failures that are kept to be shown, and the characters of one. */
const remembered = 10
const longestFailure = 1000

export interface Reorg {
  readonly at: number
  readonly depth: number
  /** The height that was undone first. */
  readonly from: number
}

/** The requests we make; the `method` label of the metrics has no other values. */
export const methods = [
  "eth_chainId",
  "eth_blockNumber",
  "eth_syncing",
  "eth_subscribe",
  "eth_getBlockByNumber",
  "eth_getLogs",
  "eth_getBlockReceipts",
  "eth_getBlockByHash",
  "eth_getTransactionReceipt",
] as const

export class EndpointStatus {
  readonly name: string
  breaker: Breaker | undefined
  capabilities: Capabilities | undefined
  rateLimiter: RateLimiter | undefined
  /** The last connection. */
  connection: Pick<Connection, "polled"> | undefined
  connectedSince: number | undefined
  /** Connections so far. */
  connects = 0
  /** Answers that were not the ones that are believed. */
  contradicted = 0
  readonly requests = new Map<string, Record<Outcome, number>>(
    methods.map((method) => [method, { ok: 0, refused: 0, lost: 0 }]),
  )
  /** Told how long each answer took, in seconds. */
  readonly answered: (seconds: number) => void

  constructor(chain: string, name: string, registry: Registry) {
    this.name = name
    this.answered = Metrics.rpcRequestDuration.record({ chain, endpoint: name }, registry)
  }

  requested(method: string, outcome: Outcome, millis: number): void {
    const counts = this.requests.get(method)
    if (counts === undefined) return
    counts[outcome]++
    if (outcome !== "lost") this.answered(millis / 1000)
  }

  /** How heads come from this endpoint when it is in use; unknown while it is not connected. */
  get heads(): "subscribed" | "polled" | undefined {
    if (this.connectedSince === undefined || this.connection === undefined) return undefined
    return this.connection.polled ? "polled" : "subscribed"
  }

  get breakerState(): BreakerState {
    return stateOf(this.breaker)
  }
}

export class ChainStatus {
  readonly name: string
  readonly id: number
  readonly confirmations: ChainConfig["confirmations"]
  readonly endpoints: ReadonlyArray<EndpointStatus>
  /** Whether the store takes moves of this chain. */
  storeBreaker: Breaker | undefined
  phase: Phase = "connecting"
  phaseSince: number
  /** The endpoint in use. */
  endpoint: EndpointStatus | undefined
  head: number | undefined
  /** Since when a head has been announced, or confirmed to be the last. */
  headSince: number
  /** Milliseconds between blocks, as observed. */
  blockTime = 0
  /** What the endpoint says is final. */
  finalSeen: number | undefined
  /** Endpoints that show another block at a final height than the endpoint in use. */
  finalDisagreement: Disagreement | undefined
  /** Until when blocks that another ingestor replaced are not written again; its node is on another fork. */
  standoffUntil: number | undefined
  stored: number | undefined
  final: number | undefined
  received = 0
  published = 0
  deduplicated = 0
  removed = 0
  removedIncomplete = 0
  /** Logs that the second look found missing, and too many; both are put right. */
  auditedMissing = 0
  auditedExtra = 0
  /** Final blocks that were not looked at again. */
  unaudited = 0
  /** How often the store was found to have lost entries that it had acknowledged. */
  storeRegressions = 0
  reorgs = 0
  deepestReorg = 0
  inFlight = 0
  stats: Stats | undefined
  /** The pinned reader that holds trimming back. */
  holder: Holder | undefined
  readonly errors = Object.fromEntries(errorTypes.map((type) => [type, 0])) as Record<ErrorType, number>
  readonly failures: Array<Failure> = []
  readonly lastReorgs: Array<Reorg> = []
  readonly tail = new RecentEntries()
  readonly history = new Sparkline()
  readonly time = new ChainTime()
  readonly eventLatency: (seconds: number) => void
  readonly batchSize: (logs: number) => void
  readonly #publishLatency: (seconds: number) => void
  readonly #reorgDepth: (blocks: number) => void
  /** Since when everything that was announced until then has been known to be stored. */
  #completeSince: number
  readonly #clock: Clock.Clock
  readonly #latencies: Array<number> = []
  #nextLatency = 0

  constructor(
    {
      name,
      id,
      confirmations,
      endpoints,
      rpc,
    }: Pick<ChainConfig, "name" | "id" | "confirmations" | "endpoints" | "rpc">,
    clock: Clock.Clock,
    registry: Registry,
  ) {
    this.name = name
    this.id = id
    this.#clock = clock
    this.confirmations = confirmations
    this.phaseSince = Monotonic.millisUnsafe(clock)
    this.headSince = this.phaseSince
    this.#completeSince = this.phaseSince
    this.endpoints = [...endpoints, ...rpc].map(
      (endpoint) => new EndpointStatus(name, endpoint.name, registry),
    )
    this.eventLatency = Metrics.eventLatency.record({ chain: name }, registry)
    this.batchSize = Metrics.publishBatchSize.record({ chain: name }, registry)
    this.#publishLatency = Metrics.publishLatency.record({ chain: name }, registry)
    this.#reorgDepth = Metrics.reorgDepth.record({ chain: name }, registry)
  }

  /** A chain that must not write stays so until it has been looked at again, whatever becomes of its endpoints. */
  enter(phase: Phase): void {
    if (phase === this.phase || (phase === "connecting" && mustNotWrite.has(this.phase))) return
    this.phase = phase
    this.phaseSince = Monotonic.millisUnsafe(this.#clock)
  }

  /** The block that the journal is to reach, given the confirmations that are asked for. */
  get target(): number | undefined {
    if (this.confirmations === "finalized") return this.finalSeen
    return this.head === undefined ? undefined : Math.max(this.head - this.confirmations, 0)
  }

  /** Blocks that are still to be stored. */
  get blocksBehind(): number {
    return Math.max((this.target ?? 0) - (this.stored ?? -1), 0)
  }

  /** Live or catching up, by the distance to the target. */
  updatePhase(): void {
    if (this.head !== undefined && this.blocksBehind === 0) this.#completeSince = this.headSince
    this.enter(this.blocksBehind > liveWithin ? "catching-up" : "live")
  }

  /** Which pinned reader holds trimming back now, if any; publishing may be paused for it. */
  setHolder(holder: Holder | undefined): void {
    this.holder = holder
    if (holder?.paused && !mustNotWrite.has(this.phase)) this.enter("paused")
    else if (!holder?.paused && this.phase === "paused") this.updatePhase()
  }

  /** The endpoint confirms that there is nothing new. */
  confirmedIdle(): void {
    this.headSince = Monotonic.millisUnsafe(this.#clock)
    if (this.head !== undefined && this.blocksBehind === 0) this.#completeSince = this.headSince
    if (this.phase === "live") this.enter("idle")
  }

  /**
   * Milliseconds since the store was last known to have everything: up to a block time when all is well.
   *
   * @param now monotonic milliseconds
   */
  lag(now: number): number {
    return Math.max(now - this.#completeSince, 0)
  }

  headAnnounced(block: Timed, since: number, blockTime: number): void {
    this.head = block.number
    this.time.head(block)
    this.headSince = since
    this.blockTime = blockTime
  }

  finalAnnounced(block: Timed): void {
    this.finalSeen = block.number
    this.time.final(block)
  }

  /** How much older the newest stored block is than the target (seconds). Before the first one, the time since then. */
  get lagSeconds(): number {
    return this.target === undefined || this.blocksBehind === 0
      ? 0
      : this.time.between(this.stored, this.target)
  }

  /** How much older the highest stored final block is than the newest head (seconds). Before the first one, the time since then. */
  get finalAge(): number {
    return this.head === undefined ? 0 : this.time.between(this.final, this.head)
  }

  recordLatency(millis: number): void {
    this.#publishLatency(millis / 1000)
    this.#latencies[this.#nextLatency] = millis
    this.#nextLatency = (this.#nextLatency + 1) % latenciesKept
  }

  /** The latency in milliseconds, from head received to acknowledged, that this share of the last heads stayed below. */
  latency(share: number): number | undefined {
    const sorted = this.#latencies.toSorted((a, b) => a - b)
    return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)]
  }

  contradicted(endpoint: string): void {
    const found = this.endpoints.find(({ name }) => name === endpoint)
    if (found) found.contradicted++
  }

  recordFailure(type: ErrorType, text: string): void {
    this.errors[type]++
    this.failures.unshift({
      at: this.#clock.currentTimeMillisUnsafe(),
      type,
      text: text.slice(0, longestFailure),
    })
    this.failures.length = Math.min(this.failures.length, remembered)
  }

  recordReorg(reorg: Omit<Reorg, "at">): void {
    this.reorgs++
    this.deepestReorg = Math.max(this.deepestReorg, reorg.depth)
    this.#reorgDepth(reorg.depth)
    this.lastReorgs.unshift({ ...reorg, at: this.#clock.currentTimeMillisUnsafe() })
    this.lastReorgs.length = Math.min(this.lastReorgs.length, remembered)
  }

  get reconnects(): number {
    return this.endpoints.reduce((sum, { connects }) => sum + Math.max(connects - 1, 0), 0)
  }

  get storeBreakerState(): BreakerState {
    return stateOf(this.storeBreaker)
  }

  get breakerState(): BreakerState {
    return (this.endpoint ?? this.endpoints[0])?.breakerState ?? stateOf(undefined)
  }
}
