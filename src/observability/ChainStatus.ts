/**
 * The state of a chain and its endpoints: plain numbers that StatusFold.ts updates once per event, references to breakers,
 * capabilities and rate limiters, and what StorePoller and Observer read at intervals. Fields named `since`
 * or `until` are monotonic milliseconds; fields named `at` are unix milliseconds.
 */
import type { Clock } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import { errorTypes } from "../endpoint/EndpointError.ts"
import type { ErrorType } from "../endpoint/EndpointError.ts"
import { stateOf } from "../Retry.ts"
import type { BreakerState } from "../Retry.ts"
import * as Monotonic from "../Monotonic.ts"
import type { Family } from "./MetricFamily.ts"
import { confirmedHeight } from "../chain/Confirmations.ts"
import type { Disagreement } from "../endpoint/FinalityQuorum.ts"
import type { Holder } from "../store/Retention.ts"
import type { StoreBreaker } from "../store/StoreBreaker.ts"
import type { StoreError } from "../store/StoreError.ts"
import { ChainTime } from "./ChainTime.ts"
import type { Timed } from "./ChainTime.ts"
import { Latencies } from "./Latencies.ts"
import { EndpointStatus } from "./EndpointStatus.ts"
import { RecentEntries } from "./RecentEntries.ts"
import { Sparkline } from "./Sparkline.ts"
import type { Stats } from "../store/StoreAdmin.ts"

/**
 * - `elsewhere`: another replica of the fleet follows the chain.
 * - `connecting`: no endpoint is connected.
 * - `catching-up`: more than a few blocks behind the announced head.
 * - `live`: at the head.
 * - `idle`: at the head, and the endpoint confirms that the chain produces no blocks.
 * - `store-unavailable`: connected, but the store accepts no moves.
 * - `paused`: connected, but publishing is paused because a pinned reader is too far behind.
 * - `superseded`: another ingestor continued the journal with another filter.
 * - `halted`: final blocks contradict each other, or a later release wrote the journal; the operator must decide.
 */
export const phases = [
  "elsewhere",
  "connecting",
  "catching-up",
  "live",
  "idle",
  "store-unavailable",
  "paused",
  "superseded",
  "halted",
] as const

export type Phase = (typeof phases)[number]

const mustNotWrite: ReadonlySet<Phase> = new Set(["superseded", "halted"])

/** A chain at most this many blocks behind its target is live. */
export const liveWithin = 3
export interface Failure {
  readonly at: number
  readonly type: ErrorType
  readonly text: string
}

/** Reorgs and failures kept for `/status`, and the maximum length of a failure's text. */
const eventsKept = 10
const longestFailure = 1000

export interface Reorg {
  readonly at: number
  readonly depth: number
  /** The highest block that was reverted. */
  readonly from: number
}

export class ChainStatus {
  readonly name: string
  readonly id: number
  readonly confirmations: ChainConfig["confirmations"]
  readonly endpoints: ReadonlyArray<EndpointStatus>
  /** The breaker between this chain and the store. */
  storeBreaker: Pick<StoreBreaker, "breaker" | "acceptsMoves"> | undefined
  /** Called when this replica begins or ends to follow the chain. */
  onFollowed: (followed: boolean) => void = () => {}
  phase: Phase = "connecting"
  phaseSince: number
  /** The endpoint in use. */
  endpoint: EndpointStatus | undefined
  head: number | undefined
  /** When the last head was announced, or confirmed to be the latest. */
  headSince: number
  /** Observed milliseconds between blocks. */
  blockTime = 0
  /** The finalized height that the endpoint reports. */
  finalSeen: number | undefined
  /** Endpoints whose block at a final height differs from that of the endpoint in use. */
  finalDisagreement: Disagreement | undefined
  /** Until then, blocks that another ingestor replaced are not rewritten: its node is on another fork. */
  standoffUntil: number | undefined
  stored: number | undefined
  final: number | undefined
  reorgs = 0
  deepestReorg = 0
  inFlight = 0
  stats: Stats | undefined
  /** The pinned reader that prevents trimming. */
  holder: Holder | undefined
  readonly errors = Object.fromEntries(errorTypes.map((type) => [type, 0])) as Record<ErrorType, number>
  readonly failures: Array<Failure> = []
  readonly lastReorgs: Array<Reorg> = []
  readonly tail = new RecentEntries()
  readonly history = new Sparkline()
  readonly time = new ChainTime()
  readonly latencies = new Latencies()
  readonly #counts = new Map<Family<"chain">, number>()
  readonly #recorders = new Map<Family<"chain">, (value: number) => void>()
  /** Everything announced up to this time is known to be stored. */
  #completeSince: number
  readonly #clock: Clock.Clock
  #storeFailure: StoreError | undefined

  constructor(
    {
      name,
      id,
      confirmations,
      endpoints,
      rpc,
    }: Pick<ChainConfig, "name" | "id" | "confirmations" | "endpoints" | "rpc">,
    clock: Clock.Clock,
  ) {
    this.name = name
    this.id = id
    this.#clock = clock
    this.confirmations = confirmations
    this.phaseSince = this.headSince = this.#completeSince = Monotonic.millisUnsafe(clock)
    this.endpoints = [...endpoints, ...rpc].map((endpoint) => new EndpointStatus(endpoint.name))
  }

  /** Increases a counter of the metrics. */
  add(counter: Family<"chain">, by = 1): void {
    this.#counts.set(counter, this.count(counter) + by)
  }

  /** The value of a counter. */
  count(counter: Family<"chain">): number {
    return this.#counts.get(counter) ?? 0
  }

  /** Records a value in a histogram of the metrics. */
  observe(histogram: Family<"chain">, value: number): void {
    this.#recorders.get(histogram)?.(value)
  }

  recordWith(histogram: Family<"chain">, recorder: (value: number) => void): void {
    this.#recorders.set(histogram, recorder)
  }

  /** The endpoint of this name. */
  endpointNamed(name: string): EndpointStatus | undefined {
    return this.endpoints.find((endpoint) => endpoint.name === name)
  }

  /** A chain that must not write keeps its phase until the journal is re-read; losing an endpoint does not change that. */
  enter(phase: Phase): void {
    if (phase === this.phase || (phase === "connecting" && mustNotWrite.has(this.phase))) return
    this.phase = phase
    this.phaseSince = Monotonic.millisUnsafe(this.#clock)
  }

  /** Whether this replica follows the chain. What is known of another one is out of date. */
  get followed(): boolean {
    return this.phase !== "elsewhere"
  }

  /** This replica begins or ends to follow the chain. */
  setFollowed(followed: boolean): void {
    if (followed === this.followed) return
    this.phase = followed ? "connecting" : "elsewhere"
    this.phaseSince = this.headSince = this.#completeSince = Monotonic.millisUnsafe(this.#clock)
    this.head = this.finalSeen = this.stored = this.final = undefined
    this.endpoint = this.finalDisagreement = this.standoffUntil = this.stats = this.holder = undefined
    this.onFollowed(followed)
  }

  /** The block that the journal must reach, given the configured confirmations; `undefined` while it is unknown. */
  get target(): number | undefined {
    if (this.head === undefined) return undefined
    const height = confirmedHeight(this.confirmations, this.head, this.finalSeen)
    // While no block has enough confirmations, the journal need not be further than its start.
    return this.confirmations === "finalized" ? height : (height ?? 0)
  }

  /** Blocks not stored yet; 0 while the target is unknown. */
  get blocksBehind(): number {
    return Math.max((this.target ?? 0) - (this.stored ?? -1), 0)
  }

  /** Notes the time if everything is stored. */
  #checkComplete(): void {
    if (this.target !== undefined && this.blocksBehind === 0) this.#completeSince = this.headSince
  }

  /** Enters `live` or `catching-up`, by the distance to the target. */
  updatePhase(): void {
    this.#checkComplete()
    this.enter(this.target === undefined || this.blocksBehind > liveWithin ? "catching-up" : "live")
  }

  /** Sets the pinned reader that prevents trimming now, if any; publishing may be paused for it. */
  setHolder(holder: Holder | undefined): void {
    this.holder = holder
    if (holder?.paused && !mustNotWrite.has(this.phase)) this.enter("paused")
    else if (!holder?.paused && this.phase === "paused") this.updatePhase()
  }

  /** The endpoint confirmed that there is no newer block. */
  confirmedIdle(): void {
    this.headSince = Monotonic.millisUnsafe(this.#clock)
    this.#checkComplete()
    if (this.phase === "live") this.enter("idle")
  }

  /**
   * Milliseconds since the store was last known to be complete: at most one block time in normal operation. 0 while another
   * replica follows the chain.
   *
   * @param now monotonic milliseconds
   */
  lag(now: number): number {
    return this.followed ? Math.max(now - this.#completeSince, 0) : 0
  }

  /** @param since when it was received (monotonic milliseconds) @param blockTime 0 while unknown */
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

  /** Seconds since the last head. */
  get headAge(): number {
    return (Monotonic.millisUnsafe(this.#clock) - this.headSince) / 1000
  }

  /** Seconds from the newest stored block to the target, by their timestamps; without a stored block, from the first head. */
  get lagSeconds(): number {
    return this.target === undefined || this.blocksBehind === 0
      ? 0
      : this.time.between(this.stored, this.target)
  }

  /** Seconds from the highest stored final block to the newest head, by their timestamps; without one, from the first head. */
  get finalAge(): number {
    return this.head === undefined ? 0 : this.time.between(this.final, this.head)
  }

  recordFailure(type: ErrorType, text: string): void {
    this.errors[type]++
    this.failures.unshift({
      at: this.#clock.currentTimeMillisUnsafe(),
      type,
      text: text.slice(0, longestFailure),
    })
    this.failures.length = Math.min(this.failures.length, eventsKept)
  }

  /** Whether the last recorded failure of the store has the same cause, in whichever operation. */
  isLastStoreFailure({ reason, detail }: StoreError): boolean {
    const last = this.#storeFailure
    return last?.reason === reason && last.detail === detail
  }

  recordStoreFailure(error: StoreError): void {
    this.#storeFailure = error
    this.recordFailure("store", error.message)
  }

  recordReorg(reorg: Omit<Reorg, "at">): void {
    this.reorgs++
    this.deepestReorg = Math.max(this.deepestReorg, reorg.depth)
    this.lastReorgs.unshift({ ...reorg, at: this.#clock.currentTimeMillisUnsafe() })
    this.lastReorgs.length = Math.min(this.lastReorgs.length, eventsKept)
  }

  get reconnects(): number {
    return this.endpoints.reduce((sum, { connects }) => sum + Math.max(connects - 1, 0), 0)
  }

  get storeBreakerState(): BreakerState {
    return stateOf(this.storeBreaker?.breaker)
  }

  get breakerState(): BreakerState {
    return (this.endpoint ?? this.endpoints[0])?.breakerState ?? stateOf(undefined)
  }
}
