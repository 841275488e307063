/**
 * The heads that a connection announces, and the watchdog that detects when they stop.
 *
 * A head is only a hint, so heads that arrive while another is being processed are coalesced: the highest and the newest
 * are kept. The two differ when heads repeat, arrive out of order, or the chain became shorter.
 */
import { Clock, Duration, Effect, Latch, Stream } from "effect"
import type { Scope, Tracer } from "effect"
import * as Defects from "../Defects.ts"
import type { Header } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { headerOf } from "./Decode.ts"
import type { Connection } from "./Connection.ts"
import { EndpointError, Malformed, Stalled } from "./EndpointError.ts"
import { mostLinks } from "../observability/Tracing.ts"
import type { BlockTraces } from "../observability/Tracing.ts"
import * as Eth from "./Eth.ts"

/** A head, and when it was received (monotonic milliseconds). */
export interface ReceivedHead {
  readonly header: Header
  readonly at: number
  /** The root span of the head, if tracing is enabled. */
  readonly trace?: Tracer.Span | undefined
}

export interface Heads {
  /** Heads to process, one after another; coalesced heads are omitted. */
  readonly stream: Stream.Stream<ReceivedHead>
  /** Emits the newest head again, after something other than the head has changed. */
  readonly replay: Effect.Effect<void>
  /** Emits a head that was not announced. */
  readonly inject: (header: Header) => Effect.Effect<void>
}

export interface HeadsOptions {
  /** Shortest silence after which the connection is probed. */
  readonly stallTimeout: Duration.Duration
  /** Interval of polled heads. */
  readonly pollInterval?: Duration.Duration
  /** Called for each head, with the observed block time (milliseconds; 0 while unknown). */
  readonly onHead: (received: ReceivedHead, blockTime: number) => void
  readonly traces?: BlockTraces
  /** Called with the latest block once subscribed. */
  readonly onLatest?: (header: Header) => Effect.Effect<void>
  /** Runs when the connection confirms that there is no new block. */
  readonly onQuiet: Effect.Effect<void>
}

/** Accepted heads per second that repeat a height or fall below it; more than on any chain. */
const mostPerSecond = 500

/** A connection is probed after this many observed block times of silence, at the latest after a minute (milliseconds). */
const blockTimes = 3
const maxSilence = 60_000

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

/** Subscribes to `newHeads` and fetches the current head. Ends with the scope; a stall ends the connection. */
export const make = Effect.fnUntraced(function* (connection: Connection, options: HeadsOptions) {
  const clock = yield* Clock.Clock
  const arrived = yield* Latch.make(false)
  const estimator = new BlockTimeEstimator()
  let highest: ReceivedHead | undefined
  let newest: ReceivedHead | undefined
  let pending: Array<ReceivedHead> = []
  /** Spans that the next processed head links to. Bounded, because a store outage may stop processing for hours. */
  let coalesced: Array<Tracer.Span> = []
  /** The highest height announced on this connection. */
  let highestAnnounced = -1
  let lastReceivedAt = Monotonic.millisUnsafe(clock)
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
    lastReceivedAt = at
    highestAnnounced = Math.max(highestAnnounced, header.number)
    estimator.observe(received)
    options.onHead(received, estimator.blockTime)
    return enqueue(received)
  }

  yield* connection.subscribe(["newHeads"], onNotification)
  const first = yield* Eth.blockByNumber(connection, "latest")
  if (first === undefined) {
    const reason = new Malformed({ detail: "there is no latest block" })
    return yield* new EndpointError({ endpoint: connection.name, reason })
  }
  yield* options.onLatest?.(first) ?? Effect.void
  if (newest === undefined) {
    const received = { header: first, at: Monotonic.millisUnsafe(clock) }
    highestAnnounced = first.number
    options.onHead(received, 0)
    enqueue(received)
  }

  const stalled = (detail: string) =>
    Effect.suspend(() => {
      const seconds = (Monotonic.millisUnsafe(clock) - lastReceivedAt) / 1000
      return connection.end(new Stalled({ seconds, detail }))
    })

  /** A chain without new blocks is no stall; a connection that does not announce them is. */
  const probeStall = Eth.blockNumber(connection).pipe(
    Effect.matchEffect({
      onFailure: ({ reason }) =>
        reason._tag === "Malformed"
          ? connection.end(reason)
          : stalled("no response to eth_blockNumber either"),
      onSuccess: (number) => {
        const lagging = Effect.suspend(() =>
          number > highestAnnounced
            ? stalled(`the chain is at ${number}, the last announced head is ${highestAnnounced}`)
            : Effect.void,
        )
        if (number <= highestAnnounced) return options.onQuiet
        // A polled head arrives with the next poll.
        return connection.polled && options.pollInterval
          ? Effect.delay(lagging, Duration.times(options.pollInterval, 2))
          : lagging
      },
    }),
  )

  yield* Effect.gen(function* () {
    let since = lastReceivedAt
    for (;;) {
      const silence = Math.min(blockTimes * estimator.blockTime, maxSilence)
      const limit = Math.max(silence, Duration.toMillis(options.stallTimeout))
      yield* Effect.sleep(Math.max(since + limit - Monotonic.millisUnsafe(clock), 1))
      if (lastReceivedAt > since) {
        since = lastReceivedAt
      } else if (Monotonic.millisUnsafe(clock) - since >= limit) {
        yield* probeStall
        since = Math.max(lastReceivedAt, Monotonic.millisUnsafe(clock))
      }
    }
  }).pipe(Defects.toOwner, Effect.forkScoped)

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
    stream: Stream.fromIterableEffectRepeat(dequeue),
    replay: Effect.sync(() => {
      if (newest !== undefined) enqueue({ header: newest.header, at: newest.at })
    }),
    inject: (header: Header) =>
      Effect.sync(() => {
        const at = Monotonic.millisUnsafe(clock)
        enqueue({ header, at, trace: options.traces?.announced(header) })
      }),
  } satisfies Heads as Heads
}) satisfies (
  connection: Connection,
  options: HeadsOptions,
) => Effect.Effect<Heads, EndpointError, Scope.Scope>
