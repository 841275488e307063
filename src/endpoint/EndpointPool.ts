/**
 * The endpoints of one chain behind one interface: a stream of the endpoint to use.
 *
 * A retry loop per endpoint keeps it connected, with its own breaker and rate limiter. One endpoint is in use until its
 * connection ends or the health monitor fails over; the others are on standby and serve audits and cross-checks.
 */
import { Deferred, Duration, Effect, Redacted, Schedule, Stream, SubscriptionRef } from "effect"
import type { Scope } from "effect"
import type { HttpClient } from "effect/http"
import * as Background from "../Background.ts"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig, EndpointConfig } from "../config/AppConfig.ts"
import type { Header } from "../Domain.ts"
import type { BlockTraces } from "../Tracing.ts"
import { Redaction } from "../Redactor.ts"
import { backoff, circuitBreaking, makeBreaker, withOnClosed } from "../Retry.ts"
import type { Wait } from "../Retry.ts"
import { Capabilities } from "./Capabilities.ts"
import * as WebSocketConnection from "./WebSocketConnection.ts"
import type { Connection } from "./Connection.ts"
import { Defect, EndpointError } from "./EndpointError.ts"
import type { EndpointEvent, SilentEndpointEvent } from "./EndpointEvent.ts"
import * as FastReconnect from "./FastReconnect.ts"
import * as Heads from "./Heads.ts"
import * as HealthMonitor from "./HealthMonitor.ts"
import * as HttpConnection from "./HttpConnection.ts"
import type { Endpoint } from "./Endpoint.ts"
import * as RateLimiter from "./RateLimiter.ts"
import type { Transport } from "./Socket.ts"

export interface EndpointPool {
  /** The endpoint to use; a new element replaces the previous one. Never ends. */
  readonly active: Stream.Stream<Endpoint>
  /** All open connections. */
  readonly connected: Effect.Effect<ReadonlyArray<Connection>>
  /** Waits until each endpoint has connected or failed once, at most 3 s. */
  readonly firstAttempts: Effect.Effect<void>
  /** The preferred connected HTTP endpoint, for requests that must not delay heads. */
  readonly http: () => Endpoint | undefined
  /** Connections for finalized ranges, in this order: HTTP endpoints, the endpoint in use, the standby endpoints. */
  readonly sources: () => ReadonlyArray<Endpoint>
}

export interface EndpointPoolOptions {
  readonly events: {
    readonly publish: (event: EndpointEvent) => Effect.Effect<void>
    readonly record: (event: SilentEndpointEvent) => void
  }
  /** The traces of announced heads. */
  readonly traces: BlockTraces
  /** Called with each head that the endpoint in use announces. */
  readonly onHead: (header: Header) => void
}

type Chain = Pick<ChainConfig, "id" | "endpoints" | "rpc" | "heads" | "pollInterval">

type Members = SubscriptionRef.SubscriptionRef<ReadonlyArray<Endpoint>>

const now = SubscriptionRef.getUnsafe

/** Least delay after a wrong chain id: a configuration error, which an early retry does not fix. */
const wrongChainDelay = Duration.minutes(1)

const reconnectPolicy = Schedule.setInputType<EndpointError>()(backoff).pipe(
  Schedule.modifyDelay(({ input, duration }) =>
    Effect.succeed(input.reason._tag === "WrongChain" ? Duration.max(duration, wrongChainDelay) : duration),
  ),
)

export const isHttp = ({ url }: EndpointConfig): boolean => /^https?:/.test(Redacted.value(url))

/** How long a chain has no socket before its heads are polled over HTTP. Most cut sockets reconnect sooner. */
const httpFallbackDelay = Duration.seconds(3)

/** Longest wait for the first attempts of all endpoints. */
const firstAttemptsTimeout = Duration.seconds(3)

/** Counts the endpoints that have connected or failed once. */
const makeFirstAttempts = Effect.fnUntraced(function* (endpoints: number) {
  const pending = new Set(Array.from({ length: endpoints }, (_, rank) => rank))
  const done = yield* Deferred.make<void>()
  return {
    attempted: (rank: number) =>
      Effect.suspend(() => {
        pending.delete(rank)
        return pending.size === 0 ? Deferred.succeed(done, undefined) : Effect.void
      }),
    all: Effect.asVoid(Effect.timeoutOption(Deferred.await(done), firstAttemptsTimeout)),
  }
})

interface Maintained {
  readonly chain: Chain
  readonly config: EndpointConfig
  readonly rank: number
  readonly events: EndpointPoolOptions["events"]
  /** Lists it while it is connected. */
  readonly list: Members
  readonly attempted: (rank: number) => Effect.Effect<unknown>
  readonly onEnd: (endpoint: Endpoint, error: EndpointError) => void
  readonly heads: (endpoint: Endpoint) => Endpoint["heads"]
}

/** Keeps an endpoint connected, with a breaker, capabilities and a rate limiter that outlive its connections. */
const maintain = Effect.fnUntraced(function* (
  { chain, config, rank, events, list, attempted, onEnd, heads }: Maintained,
  connect: typeof WebSocketConnection.connect | typeof HttpConnection.connect,
) {
  const { name } = config
  const { publish, record } = events
  const { requestTimeout, rpcRate, wsMaxPayload } = yield* AppConfig
  const redact = yield* Redaction
  const fastReconnect = FastReconnect.make(
    withOnClosed(yield* makeBreaker, (failures) =>
      publish({ _tag: "EndpointRecovered", endpoint: name, failures }),
    ),
  )
  const { breaker } = fastReconnect
  const capabilities = new Capabilities()
  yield* Effect.sync(() => capabilities.relax()).pipe(
    Effect.delay("1 hour"),
    Effect.forever,
    Background.forkScoped,
  )
  const rateLimiter = yield* RateLimiter.make(RateLimiter.limitOf(config, rpcRate))
  record({ _tag: "EndpointMaintained", endpoint: name, breaker, capabilities, rateLimiter })

  const retrying = (error: EndpointError, wait: Wait) =>
    publish({ _tag: "EndpointRetrying", endpoint: name, error, wait })

  /** Until the connection ends. */
  const connected = Effect.gen(function* () {
    const connection: Connection = yield* connect(chain, config, {
      requestTimeout,
      wsMaxPayload,
      heads: chain.heads,
      pollInterval: chain.pollInterval,
      rateLimiter,
      capabilities,
      onRequest: (method, outcome, millis) =>
        record({ _tag: "RequestEnded", endpoint: name, method, outcome, millis }),
      onHeadsPolled: (reason) => publish({ _tag: "HeadsPolled", endpoint: name, reason }),
    })
    yield* publish({ _tag: "EndpointConnected", endpoint: name, connection })
    const since = yield* fastReconnect.connected
    const endpoint: Endpoint = {
      connection,
      breaker,
      capabilities,
      rank,
      since,
      heads: Effect.suspend(() => heads(endpoint)),
    }
    yield* Effect.acquireRelease(
      SubscriptionRef.update(list, (all) => [...all, endpoint].sort((a, b) => a.rank - b.rank)),
      () => SubscriptionRef.update(list, (all) => all.filter((other) => other !== endpoint)),
    )
    yield* attempted(rank)
    return yield* Effect.tapError(connection.ended, (error) => Effect.sync(() => onEnd(endpoint, error)))
  })

  return yield* Effect.scoped(connected).pipe(
    Effect.catchDefect((defect) =>
      Effect.andThen(
        publish({ _tag: "DefectCaught", during: `in the connection to ${name}`, defect }),
        new EndpointError({ endpoint: name, reason: new Defect({ detail: redact(String(defect)) }) }),
      ),
    ),
    Effect.tapError((error) => publish({ _tag: "EndpointFailed", endpoint: name, error })),
    Effect.tapError(() => attempted(rank)),
    Effect.retry({
      while: (error) =>
        Effect.tap(fastReconnect.applies(error), (applies) =>
          applies ? retrying(error, { failures: 0, seconds: 0, opened: false }) : Effect.void,
        ),
      schedule: fastReconnect.delay,
    }),
    Effect.retry(circuitBreaking(breaker, retrying)(reconnectPolicy)),
  )
})

/** Selects the endpoint in use from those that are connected. */
const makeSelection = Effect.fnUntraced(function* (
  sockets: Members,
  http: Members,
  onSwitch: (endpoint: Endpoint, from: string | undefined, reason: string | undefined) => Effect.Effect<void>,
) {
  const inUse = yield* SubscriptionRef.make<Endpoint | undefined>(undefined)
  let previous: Endpoint | undefined
  /** Why connections ended. */
  const reasons = new WeakMap<Endpoint, string>()

  const use = (endpoint: Endpoint | undefined) =>
    Effect.suspend(() => {
      const used = SubscriptionRef.set(inUse, endpoint)
      if (endpoint === undefined) return used
      const from = previous
      previous = endpoint
      return Effect.andThen(onSwitch(endpoint, from?.connection.name, from && reasons.get(from)), used)
    })

  /**
   * The endpoint in use stays in use while it is connected; then the first connected one in order of preference replaces
   * it. While none is connected, heads are polled over an HTTP endpoint that is configured for backfills.
   */
  const select = Effect.gen(function* () {
    const current = now(inUse)
    const all = now(sockets)
    if (current !== undefined && all.includes(current)) return
    if (all.length > 0) return yield* use(all[0])
    if (current !== undefined && now(http).includes(current)) return
    if (current !== undefined) yield* use(undefined)
    yield* Effect.sleep(httpFallbackDelay)
    const [first] = now(http)
    if (first !== undefined) yield* use(first)
  })
  yield* Stream.merge(SubscriptionRef.changes(sockets), SubscriptionRef.changes(http)).pipe(
    Stream.switchMap(() => Stream.fromEffectDrain(select)),
    Stream.runDrain,
    Background.forkScoped,
  )

  return {
    inUse,
    /** Fails back to a preferred endpoint, unless its connection has ended meanwhile. */
    failBack: (to: Endpoint) => Effect.suspend(() => (now(sockets).includes(to) ? use(to) : Effect.void)),
    onEnd: (endpoint: Endpoint, error: EndpointError) => void reasons.set(endpoint, error.reason.message),
  }
})

/** Keeps every endpoint of a chain connected for as long as the scope lives. */
export const make = Effect.fnUntraced(function* (
  chain: Chain,
  { events, traces, onHead }: EndpointPoolOptions,
): Effect.fn.Return<EndpointPool, never, AppConfig | Transport | HttpClient.HttpClient | Scope.Scope> {
  const { publish, record } = events
  const { stallTimeout } = yield* AppConfig
  const sockets = yield* SubscriptionRef.make<ReadonlyArray<Endpoint>>([])
  const http = yield* SubscriptionRef.make<ReadonlyArray<Endpoint>>([])
  const endpoints = [...chain.endpoints, ...chain.rpc]
  const { attempted, all: firstAttempts } = yield* makeFirstAttempts(endpoints.length)

  const { inUse, failBack, onEnd } = yield* makeSelection(sockets, http, (endpoint, from, reason) => {
    const { name } = endpoint.connection
    if (endpoints.length === 1 || from === name) return Effect.void
    const polled = now(http).includes(endpoint)
    return publish({ _tag: "EndpointSwitched", endpoint: name, polled, from, reason })
  })

  const others = (than: Endpoint) => now(sockets).filter((other) => other !== than)

  const heads = Effect.fnUntraced(function* (endpoint: Endpoint) {
    const { connection, breaker } = endpoint
    const heads = yield* Heads.make(connection, {
      traces,
      onHead: (head, blockTime) => {
        onHead(head.header)
        record({ _tag: "HeadAnnounced", head, blockTime })
      },
    })
    const monitoring = HealthMonitor.watch(endpoint, {
      heads,
      delay: () => (connection.polled ? Duration.toMillis(chain.pollInterval) : 0),
      others: () => others(endpoint),
      use: failBack,
      stallTimeout: Duration.toMillis(stallTimeout),
      onIdle: Effect.andThen(
        breaker.succeed,
        Effect.sync(() => record({ _tag: "ChainIdle" })),
      ),
    })
    yield* Background.forkScoped(monitoring)
    yield* heads.subscribe
    return heads
  })

  for (const [rank, config] of endpoints.entries()) {
    const isBackfillOnly = rank >= chain.endpoints.length
    const list = isBackfillOnly ? http : sockets
    const connect = isBackfillOnly || isHttp(config) ? HttpConnection.connect : WebSocketConnection.connect
    yield* maintain({ chain, config, rank, events, list, attempted, onEnd, heads }, connect).pipe(
      Background.forkScoped,
    )
  }

  return {
    active: SubscriptionRef.changes(inUse).pipe(Stream.filter((endpoint) => endpoint !== undefined)),
    connected: Effect.sync(() => [...now(sockets), ...now(http)].map(({ connection }) => connection)),
    firstAttempts,
    http: () => now(http)[0],
    sources: () => {
      const current = now(inUse)
      const active = current !== undefined && now(sockets).includes(current) ? [current] : []
      return [...now(http), ...active, ...now(sockets).filter((endpoint) => endpoint !== current)]
    },
  }
})
