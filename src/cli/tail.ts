/** `tail`: prints the entries of the store from a position on, as JSON or as readable lines. */
import { Effect, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { eventText } from "../abi/EventText.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { Entry } from "../Domain.ts"
import { makeRedactor } from "../Redactor.ts"
import { booleanFlag, chainFlag, jsonFlag, resolveChains, UsageError, withExamples } from "./Flags.ts"
import { storeOnly } from "./Layers.ts"
import { isOutputClosed, style, writeRecords } from "./Output.ts"
import { Entries, pageSize } from "../store/Entries.ts"
import type { Stored } from "../store/Entries.ts"
import { StoreAdmin } from "../store/StoreAdmin.ts"

const pollEvery = "200 millis"

type From = "start" | "now" | number

const short = (hex: string | undefined) => (hex === undefined ? "-" : `${hex.slice(0, 10)}…${hex.slice(-4)}`)

/** Other programs may write to a stream too: an entry can contain anything. */
const clean = makeRedactor({ urls: [], words: [] })

const timeOf = (seconds: string | undefined): string => {
  const time = new Date(Number(seconds) * 1000)
  return Number.isNaN(time.getTime()) ? "-" : time.toISOString().slice(0, 19).replace("T", " ")
}

/**
 * An entry as a readable line, whatever it contains or lacks.
 *
 * @param events whether to show the decoded event, where there is one, instead of its first topic
 */
export const lineOf = (chain: string, entry: Partial<Entry>, events = false): string => {
  const topic = short(/0x[0-9a-f]{64}/.exec(entry.topics ?? "")?.[0])
  const { event, args } = entry
  const shown = events && event !== undefined ? eventText(event, args) : topic
  const what = `${chain} ${entry.block_number ?? "-"}/${entry.log_index ?? "-"}`
  const place = clean(`${timeOf(entry.timestamp)}  ${what.padEnd(24)}  ${entry.contract ?? "-"}`)
  const line = `${place}  ${shown}  tx ${clean(short(entry.tx_hash))}`
  return entry.removed === "true" ? style(31, `${line}  removed`) : line
}

const startOf = (given: Option.Option<string>, follow: boolean) => {
  const text = Option.getOrElse(given, () => (follow ? "now" : "start"))
  if (text === "start" || text === "now") return Effect.succeed<From>(text)
  if (/^\d{1,15}$/.test(text)) return Effect.succeed<From>(Number(text))
  return Effect.fail(new UsageError({ detail: `--from: expected start, now or a block number, got ${text}` }))
}

export const tail = Command.make(
  "tail",
  {
    chain: Flag.optional(chainFlag),
    from: Flag.String("from").pipe(
      Flag.withDescription("start, now or a block number (default: start, with --follow now)"),
      Flag.optional,
    ),
    follow: booleanFlag("follow", "Continue with new entries until stopped").pipe(Flag.withAlias("f")),
    events: booleanFlag("events", "Show decoded events (EVENTS) instead of the first topic"),
    json: jsonFlag("One JSON object per line, with the fields and values of the stream entry"),
  },
  Effect.fnUntraced(function* ({ chain, events, from, follow, json }) {
    if (events && json)
      return yield* new UsageError({
        detail: "--events: JSON always has event and args; use one of --events, --json",
      })
    const entries = yield* Entries
    const admin = yield* StoreAdmin
    const chains = yield* resolveChains(chain)
    const start = yield* startOf(from, follow)

    const print = ({ name }: ChainConfig, page: ReadonlyArray<Stored>) =>
      writeRecords(
        page
          .map(({ entry }) => entry)
          .filter(({ block_number }) => typeof start !== "number" || Number(block_number) >= start),
        json,
        (entry) => lineOf(name, entry, events),
      )
    const begin = Effect.fnUntraced(function* (chain: ChainConfig) {
      if (start === "start") return undefined
      return start === "now" ? (yield* admin.stats(chain.id)).lastId : yield* entries.seek(chain.id, start)
    })

    // Without --follow, entries written from now on are not printed.
    const end = (chain: ChainConfig) =>
      follow ? Effect.succeed(undefined) : Effect.map(admin.stats(chain.id, false), ({ lastId }) => lastId)
    const cursors = yield* Effect.forEach(chains, (chain) =>
      Effect.zipWith(begin(chain), end(chain), (after, last) => ({ chain, after, last, isOver: false })),
    )
    for (;;) {
      let printed = 0
      for (const cursor of cursors) {
        if (cursor.isOver) continue
        const page = yield* Stream.runCollect(
          Stream.take(entries.after(cursor.chain.id, cursor.after), pageSize),
        )
        const last = page.findIndex(({ id }) => id === cursor.last)
        const selected = last === -1 ? page : page.slice(0, last + 1)
        yield* print(cursor.chain, selected)
        cursor.isOver = last !== -1
        cursor.after = page.at(-1)?.id ?? cursor.after
        printed += selected.length
      }
      if (isOutputClosed()) return
      if (printed > 0) continue
      if (!follow) return
      yield* Effect.sleep(pollEvery)
    }
  }, Effect.provide(storeOnly)),
).pipe(
  Command.withDescription("Print the entries of the store"),
  withExamples({
    "event-ingestor tail --follow": "New entries, until Ctrl-C",
    "event-ingestor tail --events": "Decoded events, where EVENTS is set",
    "event-ingestor tail --chain base --from 19000000 --json": "From a block on, as JSON",
  }),
)
