/**
 * The endpoints of one chain behind one interface: a stream of the connection to use.
 *
 * A retry loop per endpoint keeps it connected, with its own breaker and rate limiter. One endpoint is in use until its
 * connection ends or the health monitor fails over; the others are on standby and serve audits and cross-checks.
 */
import { Deferred, Duration, Effect, Redacted, Schedule, Stream, SubscriptionRef } from "effect"
import type { Scope } from "effect"
import type { HttpClient } from "effect/http"
import type { ChainConfig, EndpointConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import * as Monotonic from "../Monotonic.ts"
import { logEvent } from "../observability/LogEvents.ts"
import { Redaction } from "../Redactor.ts"
import * as RateLimiter from "./RateLimiter.ts"
import * as Endpoint from "./Endpoint.ts"
import type { Connection, EndpointOptions } from "./Connection.ts"
import { Defect, EndpointError } from "./EndpointError.ts"
import * as HttpRpcClient from "./HttpRpcClient.ts"
import { Capabilities } from "./Capabilities.ts"
import type { PoolMember } from "./PoolMember.ts"
import * as HealthMonitor from "./HealthMonitor.ts"
import type { Announced } from "./HealthMonitor.ts"
import { backoff, circuitBreaking, makeBreaker, watched } from "../Retry.ts"
import type { Breaker, Wait } from "../Retry.ts"
import type { Transport } from "./Socket.ts"

/** Observes one endpoint across its connections. */
export interface Watcher {
  readonly onRequest: NonNullable<EndpointOptions["onRequest"]>
  readonly onConnected: (connection: Connection) => Effect.Effect<void>
  readonly onFailure: (error: EndpointError) => Effect.Effect<void>
  /** Called after a failure, with the delay before the next attempt. */
  readonly onWait: (error: EndpointError, wait: Wait) => Effect.Effect<void>
  /** Called when the endpoint's breaker closes, with the number of failures before it. */
  readonly onClosed: (failures: number) => Effect.Effect<void>
}

export interface EndpointPool {
  /** The connection to use; a new element replaces the previous one. Never ends. */
  readonly active: Stream.Stream<PoolMember>
  /** Reports a head announced by the endpoint in use. */
  readonly headAnnounced: (announced: Announced) => void
  /** All open connections. */
  readonly connected: Effect.Effect<ReadonlyArray<Connection>>
  /** Waits until each endpoint has connected or failed once, at most 3 s. */
  readonly firstAttempts: Effect.Effect<void>
  /** The preferred connected HTTP endpoint, for requests that must not delay heads. */
  readonly http: () => PoolMember<Connection> | undefined
  /** Connections for finalized ranges, in this order: HTTP endpoints, the endpoint in use, the standby endpoints. */
  readonly sources: () => ReadonlyArray<PoolMember<Connection>>
}

export interface EndpointPoolOptions extends Omit<EndpointOptions, "onRequest" | "rateLimiter"> {
  /** Calls per second and endpoint; `undefined`: 10 for endpoints without a key, unlimited for the others. */
  readonly rpcRate: number | undefined
  /** Creates the observer of the endpoint at this rank: its connections, requests and failures. */
  readonly watch: (
    rank: number,
    known: { breaker: Breaker; capabilities: Capabilities; rateLimiter: RateLimiter.RateLimiter },
  ) => Watcher
}

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

/** Keeps every endpoint of a chain connected for as long as the scope lives. */
export const make = Effect.fnUntraced(function* (
  chain: Pick<ChainConfig, "id" | "endpoints" | "rpc" | "heads" | "pollInterval">,
  options: EndpointPoolOptions,
) {
  const redact = yield* Redaction
  const connectedSockets = yield* SubscriptionRef.make<ReadonlyArray<PoolMember>>([])
  const http = yield* SubscriptionRef.make<ReadonlyArray<PoolMember>>([])
  const inUse = yield* SubscriptionRef.make<PoolMember | undefined>(undefined)
  let announced: Announced | undefined
  let lastInUse: PoolMember | undefined
  /** Why connections ended. */
  const failoverReason = new WeakMap<PoolMember, string>()
  const unattempted = new Set(
    Array.from({ length: chain.endpoints.length + chain.rpc.length }, (_, rank) => rank),
  )
  const allAttempted = yield* Deferred.make<void>()

  /** Records that an endpoint has connected or failed for the first time. */
  const attempted = (rank: number) =>
    Effect.suspend(() => {
      unattempted.delete(rank)
      return unattempted.size === 0 ? Deferred.succeed(allAttempted, undefined) : Effect.void
    })

  /** Keeps an endpoint connected, and lists it while it is. */
  const maintain = <R>(
    endpoint: EndpointConfig,
    rank: number,
    list: SubscriptionRef.SubscriptionRef<ReadonlyArray<PoolMember>>,
    connect: (options: EndpointOptions) => Effect.Effect<Connection, EndpointError, R>,
  ) =>
    Effect.gen(function* () {
      const closed: { on: (failures: number) => Effect.Effect<void> } = { on: () => Effect.void }
      const breaker = watched(yield* makeBreaker, (failures) => closed.on(failures))
      const capabilities = new Capabilities()
      yield* Effect.sync(() => capabilities.relax()).pipe(
        Effect.delay("1 hour"),
        Effect.forever,
        Defects.toOwner,
        Effect.forkScoped,
      )
      const limit = RateLimiter.limitOf(endpoint, options.rpcRate)
      const rateLimiter = yield* RateLimiter.make(limit)
      const { onRequest, onConnected, onFailure, onWait, onClosed } = options.watch(rank, {
        breaker,
        capabilities,
        rateLimiter,
      })
      closed.on = onClosed
      const connected = Effect.gen(function* () {
        const connection = yield* connect({
          ...options,
          heads: chain.heads,
          pollInterval: chain.pollInterval,
          onRequest,
          rateLimiter,
          capabilities,
        })
        yield* onConnected(connection)
        const member = { connection, breaker, capabilities, rank, since: yield* Monotonic.millis }
        yield* Effect.acquireRelease(
          SubscriptionRef.update(list, (all) => [...all, member].sort((a, b) => a.rank - b.rank)),
          () => SubscriptionRef.update(list, (all) => all.filter((other) => other !== member)),
        )
        yield* attempted(rank)
        return yield* Effect.tapError(connection.ended, (error) =>
          Effect.sync(() => void failoverReason.set(member, error.reason.message)),
        )
      })
      return yield* Effect.scoped(connected).pipe(
        Effect.catchDefect((defect) =>
          logEvent("defect", `defect in the connection to ${endpoint.name}`, {}, defect).pipe(
            Effect.andThen(
              new EndpointError({
                endpoint: endpoint.name,
                reason: new Defect({ detail: redact(String(defect)) }),
              }),
            ),
          ),
        ),
        Effect.tapError(onFailure),
        Effect.tapError(() => attempted(rank)),
        Effect.retry(circuitBreaking(breaker, onWait)(reconnectPolicy)),
      )
    })

  for (const [rank, endpoint] of chain.endpoints.entries()) {
    const connect = (
      to: EndpointOptions,
    ): Effect.Effect<Connection, EndpointError, Transport | HttpClient.HttpClient | Scope.Scope> =>
      isHttp(endpoint) ? HttpRpcClient.connect(chain, endpoint, to) : Endpoint.connect(chain, endpoint, to)
    yield* maintain(endpoint, rank, connectedSockets, connect).pipe(Defects.toOwner, Effect.forkScoped)
  }
  for (const [i, endpoint] of chain.rpc.entries()) {
    const connect = (to: EndpointOptions) => HttpRpcClient.connect(chain, endpoint, to)
    yield* maintain(endpoint, chain.endpoints.length + i, http, connect).pipe(
      Defects.toOwner,
      Effect.forkScoped,
    )
  }

  const hasOthers = chain.endpoints.length + chain.rpc.length > 1

  /** Logs which endpoint is now in use, if it changed. */
  const reportSwitch = (member: PoolMember) =>
    Effect.suspend(() => {
      const to = member.connection.name
      const from = lastInUse?.connection.name
      const reason = lastInUse && failoverReason.get(lastInUse)
      lastInUse = member
      if (!hasOthers || from === to) return Effect.void
      const how = SubscriptionRef.getUnsafe(http).includes(member) ? ", polled over HTTP" : ""
      if (from === undefined) {
        return Effect.annotateLogs(logEvent("in_use", `using endpoint ${to}${how}`, {}), { endpoint: to })
      }
      return reason === undefined
        ? logEvent("failback", `failed back from ${from} to ${to}, which is preferred`, { from, to })
        : logEvent("failover", `failed over from ${from} to ${to}${how}: ${reason}`, { from, to, reason })
    })

  const use = (member: PoolMember | undefined) => {
    announced = undefined
    const used = SubscriptionRef.set(inUse, member)
    return member === undefined ? used : Effect.andThen(reportSwitch(member), used)
  }

  /**
   * The endpoint in use stays in use while it is connected; then the first connected one in order of preference replaces
   * it. While none is connected, heads are polled over an HTTP endpoint that is configured for backfills.
   */
  const selectInUse = Effect.gen(function* () {
    const current = SubscriptionRef.getUnsafe(inUse)
    const all = SubscriptionRef.getUnsafe(connectedSockets)
    if (current !== undefined && all.includes(current)) return
    if (all.length > 0) return yield* use(all[0])
    if (current !== undefined && SubscriptionRef.getUnsafe(http).includes(current)) return
    if (current !== undefined) yield* use(undefined)
    yield* Effect.sleep(httpFallbackDelay)
    const [first] = SubscriptionRef.getUnsafe(http)
    if (first !== undefined) yield* use(first)
  })
  yield* Stream.merge(SubscriptionRef.changes(connectedSockets), SubscriptionRef.changes(http)).pipe(
    Stream.switchMap(() => Stream.fromEffectDrain(selectInUse)),
    Stream.runDrain,
    Defects.toOwner,
    Effect.forkScoped,
  )

  yield* SubscriptionRef.changes(inUse).pipe(
    Stream.switchMap((member) => {
      if (member === undefined) return Stream.empty
      const others = () => SubscriptionRef.getUnsafe(connectedSockets).filter((other) => other !== member)
      // The preferred connection may have ended while the health monitor queried it.
      const failBack = (to: PoolMember) =>
        Effect.suspend(() =>
          SubscriptionRef.getUnsafe(connectedSockets).includes(to) ? use(to) : Effect.void,
        )
      return Stream.fromEffectDrain(
        HealthMonitor.watch(member, { others, announced: () => announced, use: failBack }),
      )
    }),
    Stream.runDrain,
    Defects.toOwner,
    Effect.forkScoped,
  )

  return {
    active: SubscriptionRef.changes(inUse).pipe(Stream.filter((member) => member !== undefined)),
    headAnnounced: (headAnnounced) => {
      announced = headAnnounced
    },
    connected: Effect.sync(() =>
      [...SubscriptionRef.getUnsafe(connectedSockets), ...SubscriptionRef.getUnsafe(http)].map(
        ({ connection }) => connection,
      ),
    ),
    firstAttempts: Effect.asVoid(Effect.timeoutOption(Deferred.await(allAttempted), firstAttemptsTimeout)),
    http: () => SubscriptionRef.getUnsafe(http)[0],
    sources: () => {
      const current = SubscriptionRef.getUnsafe(inUse)
      const sockets = SubscriptionRef.getUnsafe(connectedSockets)
      return [
        ...SubscriptionRef.getUnsafe(http),
        ...sockets.filter((member) => member === current),
        ...sockets.filter((member) => member !== current),
      ]
    },
  } satisfies EndpointPool as EndpointPool
})
