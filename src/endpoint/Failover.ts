/**
 * Several endpoints of one chain behaving as one: a stream of the connection to use.
 *
 * Each endpoint is kept connected by a loop of its own, with its own breaker. The first connected one in order of
 * preference is in use until its connection ends; the others stand by and are witnesses.
 */
import { Duration, Effect, Schedule, Stream, SubscriptionRef } from "effect"
import type { ChainConfig, EndpointConfig } from "../Config.ts"
import * as Endpoint from "./Endpoint.ts"
import type { Connection, EndpointOptions } from "./Endpoint.ts"
import { Defect, EndpointError } from "./EndpointError.ts"
import { Learned } from "./Learned.ts"
import { backoff, circuitBreaking, makeBreaker } from "./RetryPolicy.ts"
import type { Breaker } from "./RetryPolicy.ts"

export interface Live {
  readonly connection: Connection
  readonly breaker: Breaker
  /** What the endpoint was found to bear; the same object for all its connections. */
  readonly learned: Learned
  /** The place in the order of preference, 0 first. */
  readonly rank: number
}

export interface Watcher {
  readonly onRequest: NonNullable<EndpointOptions["onRequest"]>
  readonly onConnected: Effect.Effect<void>
  readonly onFailure: (error: EndpointError) => Effect.Effect<void>
}

export interface Failover {
  /** The connection to use; a new element takes the place of the one before. Never ends. */
  readonly active: Stream.Stream<Live>
  /** All that are connected now. */
  readonly connected: Effect.Effect<ReadonlyArray<Connection>>
}

/** An endpoint of another chain is a mistake of the configuration: asking again soon is no use. */
const wrongChainDelay = Duration.minutes(1)

const redial = Schedule.setInputType<EndpointError>()(backoff).pipe(
  Schedule.modifyDelay(({ input, duration }) =>
    Effect.succeed(input.reason._tag === "WrongChain" ? Duration.max(duration, wrongChainDelay) : duration),
  ),
)

/** The one in use stays in use as long as it is connected. */
const choose = (live: ReadonlyArray<Live>, current: Live | undefined): Live | undefined =>
  live.find((one) => one === current) ?? live.toSorted((a, b) => a.rank - b.rank)[0]

export const make = Effect.fnUntraced(function* (
  chain: Pick<ChainConfig, "id" | "endpoints">,
  options: Omit<EndpointOptions, "onRequest"> & {
    /** Told about each connection of the endpoint at this rank, its requests and its end. */
    readonly watch: (rank: number, breaker: Breaker) => Watcher
  },
) {
  const live = yield* SubscriptionRef.make<ReadonlyArray<Live>>([])

  const keep = Effect.fnUntraced(function* (endpoint: EndpointConfig, rank: number) {
    const breaker = yield* makeBreaker
    const learned = new Learned()
    const { onRequest, onConnected, onFailure } = options.watch(rank, breaker)
    const connect = Effect.gen(function* () {
      const connection = yield* Endpoint.connect(chain, endpoint, { ...options, onRequest })
      yield* onConnected
      const one: Live = { connection, breaker, learned, rank }
      yield* Effect.acquireRelease(
        SubscriptionRef.update(live, (all) => [...all, one]),
        () => SubscriptionRef.update(live, (all) => all.filter((other) => other !== one)),
      )
      return yield* connection.ended
    })
    return yield* Effect.scoped(connect).pipe(
      Effect.catchDefect((defect) =>
        Effect.logError("a defect in a connection", defect).pipe(
          Effect.andThen(
            new EndpointError({ endpoint: endpoint.name, reason: new Defect({ detail: String(defect) }) }),
          ),
        ),
      ),
      Effect.tapError(onFailure),
      Effect.retry(circuitBreaking(breaker)(redial)),
    )
  })

  yield* Effect.forEach(chain.endpoints, (endpoint, rank) => Effect.forkScoped(keep(endpoint, rank)))

  return {
    active: SubscriptionRef.changes(live).pipe(
      Stream.mapAccum(
        () => undefined as Live | undefined,
        (current, all) => {
          const next = choose(all, current)
          return [next, next === undefined || next === current ? [] : [next]]
        },
      ),
    ),
    connected: Effect.map(SubscriptionRef.get(live), (all) => all.map(({ connection }) => connection)),
  } satisfies Failover as Failover
})
