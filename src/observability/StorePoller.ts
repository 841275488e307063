/** Polls the store every 10 s: its memory, and the length and consumer groups of each stream. */
import { Clock, Effect, Layer, Schedule } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import * as Background from "../Background.ts"
import { pluralize, logEvent } from "./LogEvents.ts"
import { noLimit, pinnedBy } from "../store/Retention.ts"
import { StoreAdmin } from "../store/StoreAdmin.ts"
import type { Stats } from "../store/StoreAdmin.ts"
import { furthestBehind, ReaderSeries } from "./ReaderSeries.ts"
import { Status } from "./Status.ts"
import type { ChainStatus } from "./ChainStatus.ts"

const every = "10 seconds"

/** Logs once per process and chain that entries are being trimmed (pushes trim too). */
const trimmingLog = (maxLength: number) => {
  /** Entries that were trimmed at the previous poll; `true`: trimming has been logged. */
  const trimmedBefore = new Map<ChainStatus, number | true>()
  return (chain: ChainStatus, { entries, trimmed }: Stats) => {
    const before = trimmedBefore.get(chain)
    if (before === true) return Effect.void
    const begins = before !== undefined && trimmed > before && maxLength > 0
    trimmedBefore.set(chain, begins || trimmed)
    return begins
      ? logEvent(
          "trimming",
          `trimming has begun: of ${pluralize(entries, "entry", "entries")}, about the newest ${maxLength} are kept (STREAM_MAXLEN), and entries that pinned readers have not read`,
          { kept: maxLength },
        ).pipe(Effect.annotateLogs({ chain: chain.name }))
      : Effect.void
  }
}

export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const store = yield* StoreAdmin
    const status = yield* Status
    const settings = yield* AppConfig
    status.store.description = store.description
    /** The readers of the chains that are followed here. Those that are elsewhere have no series. */
    const readers = new Map<ChainStatus, ReaderSeries>()
    const watched = () =>
      status.chains.filter((chain) => {
        if (!chain.followed) readers.delete(chain)
        else if (!readers.has(chain)) readers.set(chain, new ReaderSeries(chain.name, status.registry))
        return chain.followed
      })
    const pollServer = Effect.gen(function* () {
      const before = status.store.evictionUnsafe
      status.store.info = yield* Effect.tapError(store.info, ({ message }) =>
        Effect.sync(() => void (status.store.failure = message)),
      )
      status.store.failure = undefined
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
    const logTrimming = trimmingLog(settings.retention.maxLength)
    const pollStream = Effect.fnUntraced(function* (chain: ChainStatus) {
      const stats = yield* store.stats(chain.id, false)
      // It may have gone elsewhere meanwhile.
      const series = readers.get(chain)
      if (series === undefined || !chain.followed) return
      chain.stats = { ...stats, groups: furthestBehind(stats.groups) }
      series.follow(stats, (yield* Clock.currentTimeMillis) / 1000)
      yield* logTrimming(chain, stats)
    })
    // A failed poll keeps the last figures and does not affect the others: the chains log an unavailable store.
    const poll = Effect.suspend(() =>
      Effect.forEach([pollServer, ...watched().map(pollStream)], (one) => Effect.ignore(one), {
        concurrency: "unbounded",
        discard: true,
      }),
    )
    let isUnlimited = false
    /** Warns once when only STREAM_BACKLOG limits the memory that a pinned reader can use up. */
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
    yield* Effect.andThen(poll, warnOfMemory).pipe(
      Background.logDefects,
      Effect.repeat(Schedule.spaced(every)),
      Effect.forkScoped,
    )
  }),
)
