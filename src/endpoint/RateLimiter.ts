/**
 * How much one endpoint is asked: calls a second by a token bucket, and requests in flight. What is urgent goes first.
 *
 * An endpoint that says "too many" is asked half as often from then on, and one call a second more after each quiet
 * minute. One budget outlives the connections of its endpoint: a provider counts keys, not sockets.
 */
import { Clock, Context, Effect, Latch } from "effect"
import type { Scope } from "effect"
import * as Defects from "../Defects.ts"
import * as Monotonic from "../Monotonic.ts"

/** Heads and blocks at the tip are wanted now; history and the second look can wait. */
export type Priority = "live" | "backfill"

export const Priority = Context.Reference<Priority>("event-ingestor/endpoint/Priority", {
  defaultValue: () => "live",
})

/** Marks requests that let all others go first. */
export const lowPriority = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(effect, Priority, "backfill")

/** Calls a second for an endpoint without a key, whose limits nobody tells. */
const keylessRate = 10

/** Calls a second that an endpoint may be asked: as configured, else 10 without a key and no limit with one. */
export const limitOf = ({ keyless }: { readonly keyless: boolean }, configured: number | undefined): number =>
  configured ?? (keyless ? keylessRate : Infinity)

/** Requests without an answer up to which the next one is sent, by its urgency. */
const mostInFlight: Readonly<Record<Priority, number>> = { live: 32, backfill: 8 }

/** How long (milliseconds) nothing is asked after a refusal that does not say it, or says less. */
const minPause = 1000

const recoveryInterval = 60_000

interface Waiter {
  readonly calls: number
  started: boolean
  readonly start: () => void
}

export interface RateLimiter {
  /** Runs a request of so many calls as soon as the budget allows it. */
  readonly withTokens: (calls: number) => <A, E, R>(request: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** The endpoint says "too many": `retryAfter` in milliseconds, where it says so. */
  readonly throttled: (retryAfter: number | undefined) => void
  /** Calls a second just now; `Infinity` without a limit. */
  readonly rate: () => number
}

/** A budget of `limit` calls a second (`Infinity`: as many as there are). Ends with the scope. */
export const make = (limit: number): Effect.Effect<RateLimiter, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const work = yield* Latch.make(false)
    const waiting: Readonly<Record<Priority, Array<Waiter>>> = { live: [], backfill: [] }
    let inFlight = 0
    let rate = limit
    let tokens = limit
    let refilledAt = Monotonic.millisUnsafe(clock)
    let changedAt = refilledAt
    let pausedUntil = 0
    /** Calls of this second and of the one before, to know what "half" is where there was no limit. */
    let second = { from: 0, calls: 0, before: 0 }

    const refill = (now: number) => {
      for (; rate < limit && now - changedAt >= recoveryInterval; changedAt += recoveryInterval)
        rate = Math.min(rate + 1, limit)
      // A second's worth may be saved up.
      tokens =
        rate === Infinity
          ? Infinity
          : Math.min(tokens + ((now - refilledAt) / 1000) * rate, Math.max(rate, 1))
      refilledAt = now
    }

    /** Milliseconds until a call may be sent. A batch may overdraw; what follows waits for it. */
    const delay = (): number => {
      const now = Monotonic.millisUnsafe(clock)
      refill(now)
      return Math.ceil(Math.max(pausedUntil - now, tokens >= 1 ? 0 : ((1 - tokens) / rate) * 1000))
    }

    const acquire = (waiter: Waiter) => {
      waiter.started = true
      tokens -= waiter.calls
      inFlight++
      const now = Monotonic.millisUnsafe(clock)
      const elapsed = now - second.from
      if (elapsed >= 1000) second = { from: now, calls: 0, before: elapsed < 2000 ? second.calls : 0 }
      second.calls += waiter.calls
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
      const millis = delay()
      // Whoever comes meanwhile and is more urgent goes first.
      if (millis > 0) return yield* Effect.sleep(millis)
      acquire(waiting[priority].shift()!)
    }).pipe(Effect.forever, Defects.toOwner, Effect.forkScoped)

    const isFree = (priority: Priority) =>
      waiting.live.length === 0 &&
      (priority === "live" || waiting.backfill.length === 0) &&
      inFlight < mostInFlight[priority] &&
      delay() === 0

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
      throttled: (retryAfter) => {
        const now = Monotonic.millisUnsafe(clock)
        // Answers to what was sent at the same time say the same thing again.
        if (now < pausedUntil) return
        refill(now)
        const observedRate = rate === Infinity ? Math.max(second.calls, second.before) : rate
        rate = Math.min(Math.max(observedRate / 2, 1), limit)
        tokens = Math.min(tokens, rate)
        changedAt = now
        // Not at once, whatever it says: the answers that are on their way would each halve the rate.
        pausedUntil = now + Math.max(retryAfter ?? 0, minPause)
      },
      rate: () => rate,
    } satisfies RateLimiter as RateLimiter
  })
