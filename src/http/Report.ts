/** The bodies of `/status` and `/ready`. */
import { Clock, Effect } from "effect"
import * as Monotonic from "../Monotonic.ts"
import { breakerLabel } from "../Retry.ts"
import type { BreakerState } from "../Retry.ts"
import { version } from "../Version.ts"
import * as ChainMetrics from "../observability/ChainMetrics.ts"
import { unready } from "../observability/Readiness.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import type { EndpointStatus } from "../observability/EndpointStatus.ts"
import type { View } from "../fleet/Fleet.ts"
import type { Status } from "../observability/Status.ts"

const breaker = (state: BreakerState, now: number) => ({
  state: breakerLabel(state),
  failures: state.failures,
  ...(state._tag === "Open" && { next_try_in_ms: Math.max(state.until - now, 0) }),
})

const seconds = (millis: number) => Math.round(millis / 100) / 10

const endpoint = (status: EndpointStatus, chain: ChainStatus, now: number) => ({
  name: status.name,
  in_use: chain.endpoint === status,
  connected_for_s: status.connectedSince === undefined ? null : seconds(now - status.connectedSince),
  connects: status.connects,
  /** How it delivers heads when in use: `subscribed` or `polled`; `null` while it is not connected. */
  heads: status.heads ?? null,
  /** Mismatches of logs or of a final block that the audit attributes to the endpoint. */
  audit_mismatches: status.auditMismatches,
  breaker: breaker(status.breakerState, now),
  capabilities: status.capabilities?.description ?? null,
  /** The capabilities that differ from the initial assumptions, as short sentences. */
  limits: status.capabilities?.limits ?? [],
  /** The rate limit in calls per second; `null` without a limit. */
  rate: Number.isFinite(status.rateLimiter?.rate()) ? status.rateLimiter!.rate() : null,
})

/** The time of a report in milliseconds: `unix` for points in time, `monotonic` for durations. */
export interface Now {
  readonly unix: number
  readonly monotonic: number
}

/** The current time. */
export const now: Effect.Effect<Now> = Effect.all({
  unix: Clock.currentTimeMillis,
  monotonic: Monotonic.millis,
})

const time = (millis: number) => new Date(millis).toISOString()

/** Why a chain is not ready, from the view of this replica; a chain that is elsewhere is ready if a replica follows it. */
const chainReasons = (chain: ChainStatus, now: number, view: View | undefined): ReadonlyArray<string> => {
  if (chain.followed || view === undefined) return unready(chain, now)
  return view.holders.has(chain.name) ? [] : ["no replica of the fleet follows the chain"]
}

/** One chain in the body of `/status`, as this replica knows it. @param view the fleet, if there is one */
export const chainReport = (chain: ChainStatus, { unix, monotonic: now }: Now, view: View | undefined) => {
  const reasons = chainReasons(chain, now, view)
  return {
    name: chain.name,
    id: chain.id,
    /** The replica that follows the chain; `null` without a fleet, or if none does. */
    replica: (chain.followed ? view?.replica : view?.holders.get(chain.name)) ?? null,
    ready: reasons.length === 0,
    reasons,
    phase: chain.phase,
    store_breaker: breaker(chain.storeBreakerState, now),
    since: time(unix - (now - chain.phaseSince)),
    head: chain.head ?? null,
    head_age_s: seconds(now - chain.headSince),
    block_time_ms: Math.round(chain.blockTime),
    target: chain.target ?? null,
    stored: chain.stored ?? null,
    final: chain.final ?? null,
    behind: chain.blocksBehind,
    lag_s: seconds(chain.lag(now)),
    logs: {
      received: chain.count(ChainMetrics.eventsReceived),
      published: chain.count(ChainMetrics.eventsPublished),
      deduplicated: chain.count(ChainMetrics.eventsDeduplicated),
      removed: chain.count(ChainMetrics.eventsRemoved),
      per_second: Math.round(chain.history.perSecond * 10) / 10,
    },
    latency_ms: { p50: chain.latencies.quantile(0.5) ?? null, p99: chain.latencies.quantile(0.99) ?? null },
    reorgs: {
      count: chain.reorgs,
      deepest: chain.deepestReorg,
      last: chain.lastReorgs.map(({ at, depth, from }) => ({ at: time(at), depth, from })),
    },
    audit: {
      missing: chain.count(ChainMetrics.eventsAuditedMissing),
      extra: chain.count(ChainMetrics.eventsAuditedExtra),
      unaudited: chain.count(ChainMetrics.blocksUnaudited),
    },
    endpoints: chain.endpoints.map((one) => endpoint(one, chain, now)),
    failures: chain.failures.map(({ at, type, text }) => ({ at: time(at), type, text })),
    reader_waited_for: chain.holder
      ? {
          reader: chain.holder.reader,
          behind: chain.holder.behind,
          paused: chain.holder.paused ?? null,
          release: chain.holder.release,
        }
      : null,
    stream: chain.stats
      ? {
          entries: chain.stats.entries,
          first_id: chain.stats.firstId ?? null,
          last_id: chain.stats.lastId ?? null,
          bytes: chain.stats.bytes ?? null,
          first_number: chain.stats.firstNumber ?? null,
          epoch: chain.stats.epoch?.token ?? null,
          epoch_reason: chain.stats.epoch?.reason ?? null,
          groups: chain.stats.groups.map(({ name, consumers, pending, lag, missed }) => ({
            name,
            consumers,
            pending,
            lag: lag ?? null,
            missed,
          })),
        }
      : null,
  }
}

type ChainReport = ReturnType<typeof chainReport>

/** The replica that reports a chain, if it is another one. */
const reporterOf = (chain: ChainStatus, view: View | undefined): string | undefined => {
  const holder = view?.holders.get(chain.name)
  return chain.followed || holder === view?.replica ? undefined : holder
}

const fleetReport = (view: View) => ({
  name: view.name,
  replica: view.replica,
  is_member: view.isMember,
  error: view.error ?? null,
  members: view.members,
  /** Which replica follows each chain. */
  chains: Object.fromEntries(view.holders),
})

/** Why this process cannot do its part, whatever its chains and their providers do; empty if it can. */
const processReasons = (status: Status["Service"], view: View | undefined): ReadonlyArray<string> => {
  if (view?.isMember) return []
  const { failure } = status.store
  if (view === undefined) return failure === undefined ? [] : [`the store is not reached: ${failure}`]
  return [`this replica is no member of the fleet ${view.name}${view.error ? `: ${view.error}` : " yet"}`]
}

/**
 * The body of `/status`.
 *
 * @param view the fleet, if there is one
 * @param reports what its replicas report about their chains, by chain: a `ChainReport` each
 */
export const statusReport = (
  status: Status["Service"],
  now: Now,
  view: View | undefined,
  reports: ReadonlyMap<string, unknown> = new Map(),
) => {
  const chains = status.chains.map((chain): ChainReport => {
    const replica = reporterOf(chain, view)
    const reported = replica === undefined ? undefined : reports.get(chain.name)
    if (replica === undefined || reported === undefined) return chainReport(chain, now, view)
    return { ...(reported as ChainReport), replica }
  })
  const { store } = status
  return {
    version,
    at: time(now.unix),
    uptime_s: seconds(now.monotonic - status.startedSince),
    ready: (view === undefined || view.isMember) && chains.every(({ ready }) => ready),
    fleet: view ? fleetReport(view) : null,
    store: {
      description: store.description,
      version: store.info?.version ?? null,
      breaker: breaker(store.breakerState, now.monotonic),
      bytes: store.info?.bytes ?? null,
      limit: store.info?.limit ?? null,
      eviction_policy: store.info?.evictionPolicy ?? null,
      eviction_unsafe: store.evictionUnsafe,
      persistence: store.info?.persistence ?? null,
    },
    chains,
  }
}

export interface ReadyQuery {
  /** Only this chain. */
  readonly chain: string | undefined
  /** Only whether this process can do its part: a platform must not replace it for what a provider does. */
  readonly processOnly: boolean
}

/**
 * The body of `/ready`; `undefined` for an unknown chain.
 *
 * @param now monotonic milliseconds
 * @param view the fleet, if there is one
 */
export const readyReport = (
  status: Status["Service"],
  { chain: name, processOnly }: ReadyQuery,
  now: number,
  view: View | undefined,
) => {
  const reasons = processReasons(status, view)
  if (processOnly) return { ready: reasons.length === 0, reasons }
  const selected = status.chains.filter((chain) =>
    name === undefined ? chain.followed : chain.name === name,
  )
  if (name !== undefined && selected.length === 0) return undefined
  const chains = Object.fromEntries(
    selected.map((chain) => {
      const reasons = chainReasons(chain, now, view)
      return [chain.name, { ready: reasons.length === 0, reasons }]
    }),
  )
  // Without a fleet, a store that is not reached is a reason of each chain.
  const own = view === undefined ? [] : reasons
  return {
    ready: own.length === 0 && Object.values(chains).every(({ ready }) => ready),
    ...(view !== undefined && { reasons: own }),
    chains,
  }
}
