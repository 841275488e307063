/**
 * The heads that a connection announces.
 *
 * A head is only a hint, so heads that arrive while another is being processed are coalesced: the highest and the newest
 * are kept. The two differ when heads repeat, arrive out of order, or the chain became shorter.
 */
import { Clock, Effect, Latch, Stream } from "effect"
import type { Scope, Tracer } from "effect"
import type { Header } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { headerOf } from "./Decode.ts"
import type { Connection } from "./Connection.ts"
import { EndpointError, Malformed } from "./EndpointError.ts"
import { mostLinks } from "../Tracing.ts"
import type { BlockTraces } from "../Tracing.ts"
import * as Eth from "./Eth.ts"

/** A head, and when it was received (monotonic milliseconds). */
export interface ReceivedHead {
  readonly header: Header
  readonly at: number
  /** The root span of the head, if tracing is enabled. */
  readonly trace?: Tracer.Span | undefined
}

export interface Heads {
  /** Subscribes to `newHeads` for as long as the scope, and fetches the current head. */
  readonly subscribe: Effect.Effect<void, EndpointError, Scope.Scope>
  /** The last announced head, or the current one while none was announced. */
  readonly last: () => ReceivedHead | undefined
  /** The highest announced height; -1 before the first. */
  readonly highest: () => number
  /** The observed block time (milliseconds; 0 while unknown). */
  readonly blockTime: () => number
  /** Whether blocks have come at about the same intervals, so that a longer silence means something. */
  readonly isRegular: () => boolean
  /** Heads to process, one after another; coalesced heads are omitted. */
  readonly stream: Stream.Stream<ReceivedHead>
  /** Emits the newest head again, after something other than the head has changed. */
  readonly replay: Effect.Effect<void>
  /** Emits a head that was not announced. */
  readonly inject: (header: Header) => Effect.Effect<void>
}

export interface HeadsOptions {
  /** Called for each head, with the observed block time (milliseconds; 0 while unknown). */
  readonly onHead: (received: ReceivedHead, blockTime: number) => void
  readonly traces?: BlockTraces | undefined
}

/** Accepted heads per second that repeat a height or fall below it; more than on any chain. */
const mostPerSecond = 500

/** Heads come regularly if none of so many was later than this multiple of the block time. Some nodes leave heads out. */
const samples = 16
const longestRegular = 1.5

/** Estimates the block time: a moving average of the time between two heights. */
class BlockTimeEstimator {
  #height = -1
  #at = 0
  #average: number | undefined
  /** The last times between two announced heights (milliseconds). */
  readonly #times: Array<number> = []

  observe({ header, at }: ReceivedHead): void {
    const blocks = header.number - this.#height
    if (this.#height >= 0 && blocks > 0) {
      const millis = (at - this.#at) / blocks
      this.#average = this.#average === undefined ? millis : this.#average * 0.8 + millis * 0.2
      this.#times.push(at - this.#at)
      if (this.#times.length > samples) this.#times.shift()
    }
    if (blocks > 0) {
      this.#height = header.number
      this.#at = at
    }
  }

  /** Milliseconds; 0 while unknown. */
  get blockTime(): number {
    return this.#average ?? 0
  }

  get isRegular(): boolean {
    return this.#times.length === samples && Math.max(...this.#times) <= longestRegular * this.blockTime
  }
}

/** The heads to process. While one is being processed, the others are coalesced. */
class HeadQueue {
  readonly #traces: BlockTraces | undefined
  readonly #arrived = Latch.makeUnsafe(false)
  #highest: ReceivedHead | undefined
  #newest: ReceivedHead | undefined
  #pending: ReadonlyArray<ReceivedHead> = []
  /** Spans that the next processed head links to. Bounded, because a store outage may stop processing for hours. */
  #coalesced: Array<Tracer.Span> = []

  constructor(traces: BlockTraces | undefined) {
    this.#traces = traces
  }

  get newest(): ReceivedHead | undefined {
    return this.#newest
  }

  offer(received: ReceivedHead): void {
    const before = this.#pending
    this.#newest = received
    if (this.#highest === undefined || received.header.number >= this.#highest.header.number)
      this.#highest = received
    this.#pending = this.#highest === received ? [received] : [this.#highest, received]
    for (const one of before) if (one.trace && !this.#pending.includes(one)) this.#coalesced.push(one.trace)
    if (this.#coalesced.length > mostLinks) this.#traces?.coalesced(this.#coalesced.splice(0, 1), undefined)
    this.#arrived.openUnsafe()
  }

  /** Waits for a head. */
  readonly take = Effect.map(
    Effect.suspend(() => this.#arrived.await),
    () => {
      this.#arrived.closeUnsafe()
      const taken = this.#pending
      this.#pending = []
      this.#highest = undefined
      this.#traces?.coalesced(this.#coalesced, taken.at(-1)?.trace)
      this.#coalesced = []
      return taken
    },
  )
}

/** The heads of a connection, which ends if one is malformed. */
export const make = Effect.fnUntraced(function* (
  connection: Connection,
  { onHead, traces }: HeadsOptions,
): Effect.fn.Return<Heads> {
  const clock = yield* Clock.Clock
  const estimator = new BlockTimeEstimator()
  const queue = new HeadQueue(traces)
  let last: ReceivedHead | undefined
  let highest = -1
  let second = { from: 0, heads: 0 }

  const announce = (received: ReceivedHead) => {
    last = received
    highest = Math.max(highest, received.header.number)
    onHead(received, estimator.blockTime)
    queue.offer(received)
  }

  const onNotification = (raw: unknown) => {
    const header = headerOf(raw, "announced")
    if (header instanceof Malformed) return connection.endUnsafe(header)
    const at = Monotonic.millisUnsafe(clock)
    if (at - second.from >= 1000) second = { from: at, heads: 0 }
    // A syncing node may announce any number of heads, each above the last one: these are coalesced.
    if (header.number <= highest && ++second.heads > mostPerSecond) {
      const detail = `more than ${mostPerSecond} heads per second that are not new`
      return connection.endUnsafe(new Malformed({ detail }))
    }
    const received = { header, at, trace: traces?.announced(header) }
    estimator.observe(received)
    return announce(received)
  }

  const subscribe = Effect.gen(function* () {
    yield* connection.subscribe(["newHeads"], onNotification)
    const latest = yield* Eth.blockByNumber(connection, "latest")
    if (latest === undefined) {
      const reason = new Malformed({ detail: "there is no latest block" })
      return yield* new EndpointError({ endpoint: connection.name, reason })
    }
    if (last === undefined) announce({ header: latest, at: Monotonic.millisUnsafe(clock) })
  })

  return {
    subscribe,
    last: () => last,
    highest: () => highest,
    blockTime: () => estimator.blockTime,
    isRegular: () => estimator.isRegular,
    stream: Stream.fromIterableEffectRepeat(queue.take),
    replay: Effect.sync(() => {
      const { newest } = queue
      if (newest !== undefined) queue.offer({ header: newest.header, at: newest.at })
    }),
    inject: (header) =>
      Effect.sync(() =>
        queue.offer({ header, at: Monotonic.millisUnsafe(clock), trace: traces?.announced(header) }),
      ),
  }
})
