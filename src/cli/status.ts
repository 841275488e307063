/** `status`: the fleet, and the state of each chain in the store. Needs no endpoint and no running service. */
import { Clock, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { Journal } from "../store/Journal.ts"
import { JournalStore } from "../store/JournalStore.ts"
import { StoreAdmin } from "../store/StoreAdmin.ts"
import { fleetReport, renderFleet } from "./fleet.ts"
import { chainFlag, jsonFlag, resolveChains, withExamples } from "./Flags.ts"
import { storeOnly } from "./Layers.ts"
import { span, style, writeLines, writeRecords } from "./Output.ts"
import type { Stats } from "../store/StoreAdmin.ts"

/** An ingestor writes a heartbeat every ten seconds: after this time without one (seconds), none is running. */
const aliveFor = 30

/** When the last entry was added (unix milliseconds), from its Redis id. */
const addedAt = (id: string | undefined): number | undefined => {
  const [, millis] = /^(\d{12,})-\d+$/.exec(id ?? "") ?? []
  return millis === undefined ? undefined : Number(millis)
}

const ofJournal = ({ head, final, start, filter, filterSince, window }: Journal) => ({
  head: head.hash === "" ? null : { number: head.number, hash: head.hash },
  part: head.part,
  final: final ?? null,
  start: { number: start.number, hash: start.hash || null },
  filter: { fingerprint: filter, since: filterSince },
  window: window.length,
  /** Blocks that a reorg could still replace. */
  unfinalized: head.number - (final?.number ?? start.number - 1),
})

const noJournal = { head: null, part: 0, final: null, start: null, filter: null, window: 0, unfinalized: 0 }

const report = (chain: ChainConfig, journal: Journal | undefined, stats: Stats, now: number) => {
  const added = addedAt(stats.lastId)
  return {
    chain: chain.name,
    id: chain.id,
    ...(journal === undefined ? noJournal : ofJournal(journal)),
    entries: stats.entries,
    gone: stats.trimmed,
    first_number: stats.firstNumber ?? null,
    first_id: stats.firstId ?? null,
    last_id: stats.lastId ?? null,
    bytes: stats.bytes ?? null,
    epoch: stats.epoch ?? null,
    /** Seconds since the last heartbeat of an ingestor, and since the last entry was added; `null`: unknown. */
    ingestor_alive_s: stats.aliveAgo ?? null,
    last_entry_s: added === undefined ? null : Math.max(Math.round((now - added) / 1000), 0),
    paused: stats.paused,
    waits_for: stats.holder === undefined ? null : { ...stats.holder, lag: stats.holder.lag ?? null },
    groups: stats.groups.map(({ name, consumers, pending, lag, lastDelivered, missed }) => ({
      name,
      consumers,
      pending,
      lag: lag ?? null,
      last_delivered: lastDelivered,
      missed,
    })),
    readers: stats.readers.map(({ name, id, block, seen, lag, missed }) => ({
      name,
      id,
      block: block ?? null,
      seen_s: seen === undefined ? null : Math.max(Math.round(now / 1000 - seen), 0),
      lag: lag ?? null,
      missed,
    })),
  }
}

type Report = ReturnType<typeof report>

const size = (bytes: number) =>
  bytes < 1024 * 1024 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`

/** Whether an ingestor is running, judged by its heartbeat in the store. */
const ingestor = ({ ingestor_alive_s: alive, last_entry_s: added }: Report): string => {
  if (alive !== null && alive <= aliveFor) return `last heartbeat ${span(alive)} ago`
  if (alive !== null) {
    const isWritten = added !== null && added < alive - aliveFor
    const by = isWritten
      ? `, but an entry was added ${span(added)} ago: an ingestor of version 0.1 may be running`
      : ""
    return `no heartbeat for ${span(alive)}${by}`
  }
  const last = added === null ? "" : `; the last entry was added ${span(added)} ago`
  return `unknown: no heartbeat recorded (version 0.1 writes none)${last}`
}

const missedOf = (missed: number) =>
  missed === 0 ? "" : `, ${style(31, `missed ${missed}: trimmed before they were read`)}`

const waiting = ({ paused, waits_for: holder }: Report): ReadonlyArray<string> => {
  if (holder === null)
    return paused ? [`  ${style(31, "paused")} publishing resumes after the next trim`] : []
  const reader = `${holder.reader.replace(":", " ")}, which has not read ${holder.lag ?? "an unknown number of"} entries`
  const free = `to release it: ${holder.release}`
  return paused
    ? [`  ${style(31, "paused")} nothing is published: waits for ${reader}; ${free}`]
    : [`  waits  trimming waits for ${reader}; ${free}`]
}

const renderText = (chain: Report): ReadonlyArray<string> => {
  const title = style(1, `${chain.chain} (${chain.id})`)
  if (chain.start === null) return [`${title}  nothing stored yet`]
  const { head, final, start, filter, part, epoch } = chain
  const unfinished =
    part === 0 ? "" : part > 0 ? `, ${part} of its logs so far` : `, being retracted, ${-part} logs left`
  const changed = filter.since > start.number ? `, changed at block ${filter.since}` : ""
  const trimmed =
    chain.gone === 0
      ? ""
      : ` (${chain.gone} older ones trimmed, complete from block ${chain.first_number ?? "?"} on)`
  return [
    `${title}  head ${head?.number ?? "-"}${unfinished}, final ${final?.number ?? "-"}, start ${start.number}, ${chain.unfinalized} unfinalized`,
    `  head   ${head?.hash ?? "-"}`,
    `  filter ${filter.fingerprint}${changed}`,
    `  stream ${chain.entries} entries${trimmed}, ${chain.first_id ?? "-"} … ${chain.last_id ?? "-"}${chain.bytes === null ? "" : `, ${size(chain.bytes)}`}`,
    `  epoch  ${epoch === null ? "none: written by version 0.1" : `${epoch.token} (${epoch.reason})`}`,
    `  ingestor ${ingestor(chain)}`,
    ...waiting(chain),
    ...chain.groups.map(
      ({ name, consumers, pending, lag, missed }) =>
        `  group  ${name}: ${lag ?? "unknown"} to be delivered, ${pending} not acknowledged, ${consumers} consumer${consumers === 1 ? "" : "s"}${missedOf(missed)}`,
    ),
    ...chain.readers.map(
      ({ name, block, lag, missed, seen_s: seen }) =>
        `  reader ${name}: at block ${block ?? "unknown"}, ${lag ?? "unknown"} to be read, seen ${seen === null ? "at an unknown time" : `${span(seen)} ago`}${missedOf(missed)}`,
    ),
  ]
}

export const status = Command.make(
  "status",
  {
    chain: Flag.optional(chainFlag),
    json: jsonFlag("One JSON object per line: the fleet, if FLEET is set, then each chain"),
  },
  Effect.fnUntraced(function* ({ chain, json }) {
    const store = yield* JournalStore
    const admin = yield* StoreAdmin
    const chains = yield* resolveChains(chain)
    if (!json) yield* writeLines([admin.description])
    yield* writeRecords(yield* fleetReport(chains.map(({ name }) => name)), json, renderFleet)
    for (const chain of chains) {
      const [journal, stats] = [yield* store.load(chain.id), yield* admin.stats(chain.id)]
      yield* writeRecords([report(chain, journal, stats, yield* Clock.currentTimeMillis)], json, renderText)
    }
  }, Effect.provide(storeOnly)),
).pipe(
  Command.withDescription(
    "Show the state of each chain in the store, and which replica of the fleet follows it",
  ),
  withExamples({
    "event-ingestor status": "Every configured chain",
    "event-ingestor status --chain base --json": "One chain as JSON",
  }),
)
