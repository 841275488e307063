/** `status`: what the store knows of each chain. Needs no endpoint and no running service. */
import { Effect } from "effect"
import type { Option } from "effect"
import { Command, Flag } from "effect/cli"
import { AppConfig } from "../Config.ts"
import type { ChainConfig } from "../Config.ts"
import type { Journal } from "../store/Journal.ts"
import { Store } from "../store/Store.ts"
import type { Stats } from "../store/Store.ts"
import { chainFlag, chosenOrAll, jsonFlag } from "./chains.ts"
import { style, writeLines } from "./Output.ts"
import { storeOnly } from "./service.ts"

const report = (chain: ChainConfig, journal: Journal | undefined, stats: Stats) => ({
  chain: chain.name,
  id: chain.id,
  head:
    journal === undefined || journal.head.hash === ""
      ? null
      : { number: journal.head.number, hash: journal.head.hash },
  part: journal?.head.part ?? 0,
  final: journal?.final ?? null,
  start: journal === undefined ? null : { number: journal.start.number, hash: journal.start.hash || null },
  filter: journal === undefined ? null : { fingerprint: journal.filter, since: journal.filterSince },
  window: journal?.window.length ?? 0,
  entries: stats.entries,
  gone: stats.gone,
  first_id: stats.firstId ?? null,
  last_id: stats.lastId ?? null,
  bytes: stats.bytes ?? null,
  groups: stats.groups.map(({ name, consumers, pending, lag, lastDelivered }) => ({
    name,
    consumers,
    pending,
    lag: lag ?? null,
    last_delivered: lastDelivered,
  })),
})

type Report = ReturnType<typeof report>

const size = (bytes: number) =>
  bytes < 1024 * 1024 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`

const forPeople = (chain: Report): ReadonlyArray<string> => {
  const title = style(1, `${chain.chain} (${chain.id})`)
  if (chain.start === null) return [`${title}  nothing stored yet`]
  const { head, final, start, filter, part } = chain
  const unfinished =
    part === 0 ? "" : part > 0 ? `, ${part} of its logs so far` : `, being undone, ${-part} logs left`
  const changed = filter !== null && filter.since > start.number ? `, changed at block ${filter.since}` : ""
  return [
    `${title}  head ${head?.number ?? "-"}${unfinished}, final ${final?.number ?? "-"}, start ${start.number}, ${chain.window} blocks can be undone`,
    `  head   ${head?.hash ?? "-"}`,
    `  filter ${filter?.fingerprint ?? "-"}${changed}`,
    `  stream ${chain.entries} entries${chain.gone === 0 ? "" : ` (${chain.gone} older ones gone)`}, ${chain.first_id ?? "-"} … ${chain.last_id ?? "-"}${chain.bytes === null ? "" : `, ${size(chain.bytes)}`}`,
    ...chain.groups.map(
      ({ name, consumers, pending, lag }) =>
        `  group  ${name}: ${lag ?? "?"} to be delivered, ${pending} not acknowledged, ${consumers} consumer${consumers === 1 ? "" : "s"}`,
    ),
  ]
}

export const status = Command.make(
  "status",
  { chain: Flag.optional(chainFlag), json: jsonFlag("One JSON object a line, one line a chain") },
  Effect.fnUntraced(function* ({
    chain,
    json,
  }: {
    readonly chain: Option.Option<string>
    readonly json: boolean
  }) {
    const config = yield* AppConfig
    const store = yield* Store
    const chains = yield* chosenOrAll(config.chains, chain)
    if (!json) yield* writeLines([store.description])
    for (const chain of chains) {
      const one = report(chain, yield* store.load(chain.id), yield* store.stats(chain.id))
      yield* writeLines(json ? [JSON.stringify(one)] : forPeople(one))
    }
  }, Effect.provide(storeOnly)),
).pipe(Command.withDescription("What the store knows of each chain"))
