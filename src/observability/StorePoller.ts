/** Looks at the store now and then: its memory, and the length and consumer groups of each stream. */
import { Clock, Effect, Layer, Schedule } from "effect"
import type { Metric } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import * as Metrics from "./Metrics.ts"
import { counted, logEvent } from "./LogEvents.ts"
import { noLimit, pinnedBy } from "../store/Retention.ts"
import { Store } from "../store/Store.ts"
import type { Group, Stats } from "../store/Store.ts"
import { Status } from "./Status.ts"
import type { ChainStatus } from "./ChainStatus.ts"

const every = "10 seconds"

/** Groups of a stream that are shown, and get series of their own. */
const mostGroups = 20

/** Those whose lag nobody can tell may be anywhere. */
const furthestBehind = (a: Group, b: Group) => (b.lag ?? Infinity) - (a.lag ?? Infinity) || 0

/** Series of consumer groups come and go with the groups; a lag that the server cannot tell is NaN. */
class GroupSeries {
  readonly #lags = new Map<string, Metric.Registration>()
  readonly #pending = new Map<string, Metric.Registration>()
  readonly #missed = new Map<string, Metric.Registration>()
  /** Groups that had a consumer: what others miss is nobody's loss yet. */
  readonly #read = new Set<string>()
  readonly #chain: ChainStatus
  readonly #registry: Metrics.Registry

  constructor(chain: ChainStatus, registry: Metrics.Registry) {
    this.#chain = chain
    this.#registry = registry
  }

  follow({ groups }: Stats): void {
    this.#keep(this.#lags, Metrics.streamGroupLag, groups, ({ lag }) => lag ?? Number.NaN)
    this.#keep(this.#pending, Metrics.streamGroupPending, groups, ({ pending }) => pending)
    for (const { name, consumers } of groups) if (consumers > 0) this.#read.add(name)
    this.#keep(this.#missed, Metrics.streamGroupMissed, groups, ({ name, missed }) =>
      this.#read.has(name) ? missed : 0,
    )
  }

  #keep(
    registered: Map<string, Metric.Registration>,
    series: typeof Metrics.streamGroupLag | typeof Metrics.streamGroupMissed,
    groups: ReadonlyArray<Group>,
    read: (group: Group) => number,
  ): void {
    const names = new Set(groups.map(({ name }) => name))
    for (const [name, one] of registered) {
      if (names.has(name)) continue
      one.remove()
      registered.delete(name)
    }
    for (const name of names) {
      if (registered.has(name)) continue
      const value = () => {
        const group = this.#chain.stats?.groups.find((one) => one.name === name)
        return group === undefined ? 0 : read(group)
      }
      registered.set(name, series.read({ chain: this.#chain.name, group: name }, value, this.#registry))
    }
  }
}

export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const store = yield* Store
    const status = yield* Status
    const settings = yield* AppConfig
    status.store.description = store.description
    const watched = status.chains.map((chain) => ({ chain, series: new GroupSeries(chain, status.registry) }))
    const lookAtServer = Effect.gen(function* () {
      const before = status.store.evictionUnsafe
      status.store.info = yield* store.info
      if (status.store.evictionUnsafe && !before) {
        const policy = status.store.info.evictionPolicy
        yield* logEvent(
          "eviction",
          `Redis' maxmemory-policy is ${policy}, which deletes streams: set noeviction`,
          {
            policy,
          },
        )
      }
    })
    /** Entries of each chain that were gone when it was looked at before; `true`: trimming was told of. */
    const goneBefore = new Map<ChainStatus, number | true>()
    /** Says once that entries are trimmed since this process runs: pushes do that, too. */
    const tellOfTrimming = (chain: ChainStatus, { entries, trimmed }: Stats) => {
      const before = goneBefore.get(chain)
      if (before === true) return Effect.void
      const { maxLength } = settings.retention
      const begins = before !== undefined && trimmed > before && maxLength > 0
      goneBefore.set(chain, begins || trimmed)
      return begins
        ? logEvent(
            "trimming",
            `trimming has begun: of ${counted(entries, "entry", "entries")}, about the newest ${maxLength} are kept (STREAM_MAXLEN), and what readers that are waited for have not read`,
            { kept: maxLength },
          ).pipe(Effect.annotateLogs({ chain: chain.name }))
        : Effect.void
    }
    const lookAt = Effect.fnUntraced(function* ({ chain, series }: (typeof watched)[number]) {
      const stats = yield* store.stats(chain.id, false)
      chain.stats = { ...stats, groups: stats.groups.toSorted(furthestBehind).slice(0, mostGroups) }
      series.follow(chain.stats)
      yield* tellOfTrimming(chain, stats)
    })
    // What cannot be seen keeps its last figures and hides nothing else: Ingest says when the store is away.
    const look = Effect.forEach([lookAtServer, ...watched.map(lookAt)], (one) => Effect.ignore(one), {
      concurrency: "unbounded",
      discard: true,
    })
    let isUnlimited = false
    /** Says once that nothing but the backlog keeps a reader that is waited for from filling the memory. */
    const warnOfMemory = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const { info } = status.store
      if (settings.store._tag === "Sqlite" || info === undefined) return Effect.void
      const readers = status.chains.flatMap(({ stats }) => stats?.readers ?? [])
      const pinned = pinnedBy(settings.retention, readers, now / 1000)
      const was = isUnlimited
      isUnlimited = pinned !== undefined && !info.limit
      if (was || !isUnlimited) return Effect.void
      const { detail, fix } = noLimit(info.limit, pinned!, settings.retention)
      return logEvent("memory_unlimited", `${detail}: ${fix}`, {})
    })
    yield* Effect.andThen(look, warnOfMemory).pipe(
      Defects.toOwner,
      Effect.repeat(Schedule.spaced(every)),
      Effect.forkScoped,
    )
  }),
)
