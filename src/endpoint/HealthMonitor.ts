/**
 * Monitors the endpoint in use, and compares it with the standby endpoints.
 *
 * A silent endpoint is probed: it has stalled if it is at a higher block than it announced, or does not answer. Before that,
 * the others are asked, and the chain fails over if one has a new block, or if the endpoint lags behind them. If all
 * endpoints are silent, the chain has no new blocks. Fails back to a preferred endpoint once it has been connected for a
 * while and does not lag.
 */
import { Clock, Effect, Schedule, identity } from "effect"
import * as Monotonic from "../Monotonic.ts"
import { Stalled } from "./EndpointError.ts"
import * as Eth from "./Eth.ts"
import type { Heads } from "./Heads.ts"
import { recordSuccess, isStable } from "./Endpoint.ts"
import type { Endpoint } from "./Endpoint.ts"

export interface Watched {
  /** The heads of the endpoint in use. */
  readonly heads: Pick<Heads, "last" | "highest" | "blockTime" | "isRegular">
  /** How late heads may arrive (milliseconds): the poll interval, where they are polled. */
  readonly delay: () => number
  /** The other connected endpoints, preferred ones first. */
  readonly others: () => ReadonlyArray<Endpoint>
  /** Switches to another endpoint. */
  readonly use: (endpoint: Endpoint) => Effect.Effect<void>
  /** The shortest silence of irregular blocks after which the endpoint itself is asked for its height (milliseconds). */
  readonly stallTimeout: number
  /** Runs when the endpoint confirms that there is no new block. */
  readonly onIdle: Effect.Effect<void>
}

/** The endpoint itself is probed after this many block times of silence, at the latest after a minute (milliseconds). */
const stallBlockTimes = 3
const maxSilence = 60_000
/**
 * Where block times are regular, it has stalled after these and a moment, and not earlier than this (milliseconds). The moment is
 * for its answer to the probe, and for a head that is on its way.
 */
const moment = 1000
const minRegularSilence = 5000

/** Silence after which the other endpoints are queried: in block times, and at least in milliseconds. */
const silentBlockTimes = 1.5
const minSilence = 2000

/** How long an endpoint may take to report its height (milliseconds). */
const answerTimeout = 2000

/** Interval of comparisons, and longest interval of probes while the chain is silent. */
const interval = 15_000

/** Tolerated lag in blocks and in milliseconds; the larger one applies. */
const blocksBehind = 3
const timeBehind = 6000

/** Time to catch up before a failover: a tenth of a block time, within these limits (milliseconds). */
const minGracePeriod = 100
const maxGracePeriod = 1000

/** The head reported by an endpoint; -1 without a response. */
const headOf = ({ connection }: Endpoint) =>
  Eth.blockNumber(connection).pipe(
    Effect.timeoutOrElse({ duration: answerTimeout, orElse: () => Effect.succeed(-1) }),
    Effect.orElseSucceed(() => -1),
  )

const headsOf = (endpoints: ReadonlyArray<Endpoint>) =>
  Effect.forEach(endpoints, (endpoint) => Effect.map(headOf(endpoint), (head) => ({ endpoint, head })), {
    concurrency: "unbounded",
  })

/** What is known of the endpoint in use, and how its connection ends. */
const monitorOf = (inUse: Endpoint, watched: Watched, clock: Clock.Clock) => {
  const { heads } = watched
  const now = () => Monotonic.millisUnsafe(clock)
  const start = now()
  /** The last announced height. */
  const head = () => heads.last()?.header.number ?? -1

  const stalled = (detail: string) =>
    Effect.suspend(() => {
      const seconds = (now() - (heads.last()?.at ?? start)) / 1000
      return inUse.connection.end(new Stalled({ seconds, detail }))
    })

  return {
    ...watched,
    inUse,
    now,
    head,
    stalled,
    /** The chain is at a higher block than the connection announced. */
    stalledAt: (height: number, announced: number) =>
      stalled(`the chain is at ${height}, the last announced head is ${announced}`),
    gracePeriod: Effect.suspend(() =>
      Effect.sleep(Math.min(Math.max(heads.blockTime() / 10, minGracePeriod), maxGracePeriod)),
    ),
  }
}

type Monitor = ReturnType<typeof monitorOf>

/**
 * Probes after each silence.
 *
 * @param silence how long it takes (milliseconds)
 * @param next the wait after a probe, given the one before it
 * @param shortest how long it takes at least: it may get shorter while heads come
 */
const onSilence = Effect.fnUntraced(function* (
  { heads, now }: Monitor,
  silence: () => number,
  probe: Effect.Effect<void>,
  next: (wait: number) => number,
  shortest = silence,
) {
  let last = heads.last()
  let since = now()
  let afterProbe: number | undefined
  let isNew = true
  for (;;) {
    const wait = afterProbe ?? silence()
    const left = since + wait - now()
    if (left <= 0) {
      yield* probe
      since = now()
      afterProbe = next(wait)
    } else yield* Effect.sleep(Math.max(isNew ? Math.min(left, shortest()) : left, 1))
    const head = heads.last()
    isNew = head !== last
    if (head === undefined || !isNew) continue
    last = head
    since = head.at
    afterProbe = undefined
  }
})

/** Probes the endpoint itself: a chain without new blocks is no stall; a connection that does not announce them is. */
const watchItself = (monitor: Monitor) => {
  const { delay, heads, inUse, onIdle, stalled, stalledAt, stallTimeout } = monitor
  const longest = () => Math.min(stallBlockTimes * heads.blockTime(), maxSilence)
  /** Also between two probes of an idle chain. */
  const irregular = () => Math.max(longest(), stallTimeout)
  const regular = () => Math.max(longest(), Math.min(minRegularSilence, stallTimeout) - moment)
  const silence = () => (heads.isRegular() ? regular() : irregular())
  const probe = Effect.gen(function* () {
    // A subscription that is not made yet ends by the timeout of its request.
    if (heads.last() === undefined) return
    const before = heads.last()
    const isRegular = heads.isRegular()
    const answer = yield* Eth.blockNumber(inUse.connection).pipe(
      isRegular ? Effect.timeout(moment) : identity,
      Effect.result,
    )
    if (answer._tag === "Failure") {
      if (heads.last() !== before) return
      const { failure } = answer
      return yield* failure._tag === "EndpointError" && failure.reason._tag === "Malformed"
        ? inUse.connection.end(failure.reason)
        : stalled("no response to eth_blockNumber either")
    }
    const number = answer.success
    if (number <= heads.highest()) return yield* onIdle
    // A polled head arrives with the next poll.
    yield* Effect.sleep(Math.max(2 * delay(), isRegular ? moment : 0))
    if (number > heads.highest()) yield* stalledAt(number, heads.highest())
  })
  return onSilence(monitor, silence, probe, irregular, regular)
}

/** Probes all endpoints, also the silent one: it may have the block that it does not announce. */
const watchSilence = (monitor: Monitor) => {
  const { delay, gracePeriod, head, heads, inUse, others, stalledAt } = monitor
  const silence = () => Math.max(silentBlockTimes * heads.blockTime(), minSilence) + delay()
  const probe = Effect.gen(function* () {
    if (others().length === 0) return
    const before = head()
    const all = yield* headsOf([inUse, ...others()])
    const highest = Math.max(...all.map(({ head }) => head))
    if (highest <= before) return
    yield* gracePeriod
    if (head() === before) yield* stalledAt(highest, before)
  })
  // A probe costs one call per endpoint, so the interval doubles while the chain is silent.
  return onSilence(monitor, silence, probe, (wait) => Math.max(Math.min(wait * 2, interval), silence()))
}

/** Compares the heads of all endpoints: fails over from one that lags, and back to a preferred one. */
const watchLag = (monitor: Monitor) => {
  const { delay, gracePeriod, head: ownHead, heads, inUse, now, others, stalled, use } = monitor

  const lagThreshold = () => {
    const blockTime = heads.blockTime()
    return Math.max(blocksBehind, blockTime > 0 ? Math.ceil((timeBehind + delay()) / blockTime) : 0)
  }

  const isBehind = Effect.gen(function* () {
    const own = ownHead()
    const all = yield* headsOf(others())
    for (const { endpoint, head } of all)
      if (head >= 0 && head >= own - lagThreshold()) yield* recordSuccess(endpoint)
    return own >= 0 && all.some(({ head }) => head > own + lagThreshold())
  })

  const failBack = Effect.gen(function* () {
    const preferred = others().filter((other) => other.rank < inUse.rank && isStable(other, now()))
    const before = ownHead()
    const best = (yield* headsOf(preferred)).find(({ head }) => head >= before)
    if (best !== undefined) yield* use(best.endpoint)
  })

  const compare = Effect.gen(function* () {
    if (others().length === 0) return
    if (yield* isBehind) {
      yield* gracePeriod
      if (yield* isBehind) return yield* stalled("lags behind the other endpoints")
    }
    yield* failBack
  })

  return Effect.repeat(compare, Schedule.spaced(interval))
}

/** Monitors an endpoint while it is in use. */
export const watch = Effect.fnUntraced(function* (inUse: Endpoint, watched: Watched) {
  const monitor = monitorOf(inUse, watched, yield* Clock.Clock)
  yield* Effect.all([watchItself(monitor), watchSilence(monitor), watchLag(monitor)], {
    concurrency: "unbounded",
    discard: true,
  })
})
