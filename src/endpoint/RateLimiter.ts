/**
 * Limits the requests to one endpoint: calls per second by a token bucket, and requests in flight. Live requests take
 * priority over backfills.
 *
 * When the endpoint throttles, the rate halves; it grows by one call per second after each minute without throttling. A
 * limiter outlives the connections of its endpoint: providers count keys, not sockets.
 */
import { Clock, Context, Effect, Latch } from "effect"
import * as Background from "../Background.ts"
import * as Monotonic from "../Monotonic.ts"

/** `live`: heads and blocks at the tip. `backfill`: finalized ranges and audits. */
export type Priority = "live" | "backfill"

export const Priority = Context.Reference<Priority>("event-ingestor/endpoint/Priority", {
  defaultValue: () => "live",
})

/** Runs the requests of an effect at backfill priority. */
export const lowPriority = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(effect, Priority, "backfill")

/** Calls per second for an endpoint without a key, whose limits are undocumented. */
const keylessRate = 10

/** The configured rate in calls per second; default: 10 without a key, unlimited with one. */
export const limitOf = ({ keyless }: { readonly keyless: boolean }, configured: number | undefined): number =>
  configured ?? (keyless ? keylessRate : Infinity)

/** Largest number of requests in flight, by priority. */
const mostInFlight: Readonly<Record<Priority, number>> = { live: 32, backfill: 8 }

/** Least pause after throttling (milliseconds), if the endpoint names none or a shorter one. */
const minPause = 1000

const recoveryInterval = 60_000

interface Waiter {
  readonly calls: number
  started: boolean
  readonly start: () => void
}

export interface RateLimiter {
  /** Runs a request of this many calls as soon as the limits allow it. */
  readonly withTokens: (calls: number) => <A, E, R>(request: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Records that the endpoint throttles; `retryAfter` in milliseconds, if given. */
  readonly throttled: (retryAfter: number | undefined) => void
  /** The current rate in calls per second; `Infinity` if unlimited. */
  readonly rate: () => number
}

/**
 * A token bucket whose rate adapts to throttling.
 *
 * @param limit calls per second; `Infinity`: unlimited
 * @param now monotonic milliseconds
 */
const makeBucket = (limit: number, now: () => number) => {
  let rate = limit
  let tokens = limit
  let refilledAt = now()
  let changedAt = refilledAt
  let pausedUntil = 0
  /** Calls in this second and in the one before: the observed rate, which is halved where there was no limit. */
  let second = { from: 0, calls: 0, before: 0 }

  const refill = (at: number) => {
    for (; rate < limit && at - changedAt >= recoveryInterval; changedAt += recoveryInterval)
      rate = Math.min(rate + 1, limit)
    // The bucket holds at most one second's worth of tokens.
    tokens =
      rate === Infinity ? Infinity : Math.min(tokens + ((at - refilledAt) / 1000) * rate, Math.max(rate, 1))
    refilledAt = at
  }

  return {
    rate: () => rate,
    /** Milliseconds until a call may be sent. A batch may overdraw the bucket; later calls wait for the refill. */
    delay: (): number => {
      const at = now()
      refill(at)
      return Math.ceil(Math.max(pausedUntil - at, tokens >= 1 ? 0 : ((1 - tokens) / rate) * 1000))
    },
    take: (calls: number) => {
      tokens -= calls
      const at = now()
      const elapsed = at - second.from
      if (elapsed >= 1000) second = { from: at, calls: 0, before: elapsed < 2000 ? second.calls : 0 }
      second.calls += calls
    },
    throttled: (retryAfter: number | undefined) => {
      const at = now()
      // Requests in flight are throttled for the same reason; they count once.
      if (at < pausedUntil) return
      refill(at)
      const observedRate = rate === Infinity ? Math.max(second.calls, second.before) : rate
      rate = Math.min(Math.max(observedRate / 2, 1), limit)
      tokens = Math.min(tokens, rate)
      changedAt = at
      // Pauses even if the endpoint permits an immediate retry: otherwise each response in flight would halve the rate.
      pausedUntil = at + Math.max(retryAfter ?? 0, minPause)
    },
  }
}

/** A limiter of `limit` calls per second (`Infinity`: unlimited). Ends with the scope. */
export const make = Effect.fnUntraced(function* (limit: number) {
  const clock = yield* Clock.Clock
  const bucket = makeBucket(limit, () => Monotonic.millisUnsafe(clock))
  const work = yield* Latch.make(false)
  const waiting: Readonly<Record<Priority, Array<Waiter>>> = { live: [], backfill: [] }
  let inFlight = 0

  const acquire = (waiter: Waiter) => {
    waiter.started = true
    inFlight++
    bucket.take(waiter.calls)
    waiter.start()
  }

  const next = (): Priority | undefined => {
    const priority = waiting.live.length > 0 ? "live" : "backfill"
    return waiting[priority].length > 0 && inFlight < mostInFlight[priority] ? priority : undefined
  }

  yield* Effect.gen(function* () {
    yield* work.await
    const priority = next()
    if (priority === undefined) return work.closeUnsafe()
    const delay = bucket.delay()
    // Chooses again after the delay: a live request that arrives meanwhile goes first.
    if (delay > 0) return yield* Effect.sleep(delay)
    acquire(waiting[priority].shift()!)
  }).pipe(Effect.forever, Background.forkScoped)

  const isFree = (priority: Priority) =>
    waiting.live.length === 0 &&
    (priority === "live" || waiting.backfill.length === 0) &&
    inFlight < mostInFlight[priority] &&
    bucket.delay() === 0

  const withTokens = <A, E, R>(calls: number, priority: Priority, request: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      let waiter: Waiter | undefined
      const granted = Effect.callback<void>((resume) => {
        waiter = { calls, started: false, start: () => resume(Effect.void) }
        if (isFree(priority)) return acquire(waiter)
        waiting[priority].push(waiter)
        work.openUnsafe()
      })
      const release = Effect.sync(() => {
        if (waiter === undefined) return
        if (waiter.started) inFlight--
        else waiting[priority].splice(waiting[priority].indexOf(waiter), 1)
        work.openUnsafe()
      })
      return Effect.ensuring(Effect.andThen(granted, request), release)
    })

  return {
    withTokens: (calls) => (request) =>
      Effect.flatMap(Priority, (priority) => withTokens(calls, priority, request)),
    throttled: bucket.throttled,
    rate: bucket.rate,
  } satisfies RateLimiter as RateLimiter
})
