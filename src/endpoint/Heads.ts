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
import type { SocketConnection } from "./Endpoint.ts"
import { EndpointError, Malformed } from "./EndpointError.ts"
import { mostLinks } from "../observability/Tracing.ts"
import type { BlockTraces } from "../observability/Tracing.ts"
import * as Headers from "./Headers.ts"

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
  /** The observed block time (milliseconds; 0 while unknown). */
  readonly blockTime: () => number
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

/** Estimates the block time: a moving average of the time between two heights. */
class BlockTimeEstimator {
  #height = -1
  #at = 0
  #average: number | undefined

  observe({ header, at }: ReceivedHead): void {
    const blocks = header.number - this.#height
    if (this.#height >= 0 && blocks > 0) {
      const millis = (at - this.#at) / blocks
      this.#average = this.#average === undefined ? millis : this.#average * 0.8 + millis * 0.2
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
}

/** The heads of a connection, which ends if one is malformed. */
export const make = Effect.fnUntraced(function* (
  connection: SocketConnection,
  options: HeadsOptions,
): Effect.fn.Return<Heads> {
  const clock = yield* Clock.Clock
  const arrived = yield* Latch.make(false)
  const estimator = new BlockTimeEstimator()
  let highest: ReceivedHead | undefined
  let newest: ReceivedHead | undefined
  let last: ReceivedHead | undefined
  let pending: Array<ReceivedHead> = []
  /** Spans that the next processed head links to. Bounded, because a store outage may stop processing for hours. */
  let coalesced: Array<Tracer.Span> = []
  /** The highest height announced on this connection. */
  let highestAnnounced = -1
  let second = { from: 0, heads: 0 }

  const enqueue = (received: ReceivedHead) => {
    const before = pending
    newest = received
    if (highest === undefined || received.header.number >= highest.header.number) highest = received
    pending = highest === newest ? [newest] : [highest, newest]
    for (const one of before) if (one.trace && !pending.includes(one)) coalesced.push(one.trace)
    if (coalesced.length > mostLinks) options.traces?.coalesced(coalesced.splice(0, 1), undefined)
    arrived.openUnsafe()
  }

  const onNotification = (raw: unknown) => {
    const header = headerOf(raw, "announced")
    if (header instanceof Malformed) return connection.endUnsafe(header)
    const at = Monotonic.millisUnsafe(clock)
    if (at - second.from >= 1000) second = { from: at, heads: 0 }
    // A syncing node may announce any number of heads, each above the last one: these are coalesced.
    if (header.number <= highestAnnounced && ++second.heads > mostPerSecond) {
      return connection.endUnsafe(
        new Malformed({ detail: `more than ${mostPerSecond} heads per second that are not new` }),
      )
    }
    const received = { header, at, trace: options.traces?.announced(header) }
    estimator.observe(received)
    return announce(received)
  }

  const announce = (received: ReceivedHead) => {
    last = received
    highestAnnounced = Math.max(highestAnnounced, received.header.number)
    options.onHead(received, estimator.blockTime)
    enqueue(received)
  }

  const subscribe = Effect.gen(function* () {
    yield* connection.subscribe(["newHeads"], onNotification)
    const latest = yield* Headers.header(connection, "latest")
    if (latest === undefined) {
      const reason = new Malformed({ detail: "there is no latest block" })
      return yield* new EndpointError({ endpoint: connection.name, reason })
    }
    if (last === undefined) announce({ header: latest, at: Monotonic.millisUnsafe(clock) })
  })

  const dequeue = Effect.gen(function* () {
    yield* arrived.await
    arrived.closeUnsafe()
    const taken = pending
    pending = []
    highest = undefined
    options.traces?.coalesced(coalesced, taken.at(-1)?.trace)
    coalesced = []
    return taken
  })

  return {
    subscribe,
    last: () => last,
    blockTime: () => estimator.blockTime,
    stream: Stream.fromIterableEffectRepeat(dequeue),
    replay: Effect.sync(() => {
      if (newest !== undefined) enqueue({ header: newest.header, at: newest.at })
    }),
    inject: (header) =>
      Effect.sync(() => {
        const at = Monotonic.millisUnsafe(clock)
        enqueue({ header, at, trace: options.traces?.announced(header) })
      }),
  }
})
