/** `verify`: re-fetches a range and diffs it against the store. */
import { Effect, Layer, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig, EndpointConfig, Settings } from "../config/AppConfig.ts"
import type { Block } from "../Domain.ts"
import * as RateLimiter from "../endpoint/RateLimiter.ts"
import * as WebSocketConnection from "../endpoint/WebSocketConnection.ts"
import { isHttp } from "../endpoint/EndpointPool.ts"
import * as HttpConnection from "../endpoint/HttpConnection.ts"
import { Capabilities } from "../endpoint/Capabilities.ts"
import * as Eth from "../endpoint/Eth.ts"
import * as LogSource from "../logs/LogSource.ts"
import { CurrentIntegrityChecks } from "../logs/Integrity.ts"
import { Entries } from "../store/Entries.ts"
import { JournalStore } from "../store/JournalStore.ts"
import { StoreAdmin } from "../store/StoreAdmin.ts"
import type { Stats } from "../store/StoreAdmin.ts"
import { Diff, isBeyondReorgs, replay } from "./comparison.ts"
import { blockFlag, chainFlag, jsonFlag, resolveChains, UsageError, withExamples } from "./Flags.ts"
import { endpointsOnly, storeOnly } from "./Layers.ts"
import { grouped, style, writeRecords } from "./Output.ts"
import { exitCode } from "./Process.ts"
import * as ProgressBars from "./ProgressBars.ts"

/** Differences printed one by one. */
const mostShown = 20

/** How often in a row a response may exceed the maximum frame: each retry asks for half as much. */
const mostOversized = 16

/**
 * Reads blocks as the ingestor does, with the methods that an endpoint supports, over HTTP if configured. When an endpoint
 * fails, the next one continues, as long as one of them makes progress.
 *
 * @param final the finalized block: up to it, headers need not be fetched one by one
 */
const readBlocks = Effect.fnUntraced(function* (
  chain: ChainConfig,
  settings: Settings,
  { from, to, final }: { readonly from: number; readonly to: number; readonly final: number },
  onBlock: (block: Block) => void,
) {
  const checks = yield* CurrentIntegrityChecks
  let next = from
  const readOn = (endpoint: EndpointConfig) => {
    const capabilities = new Capabilities()
    return Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(RateLimiter.limitOf(endpoint, settings.rpcRate))
      const { connect } = isHttp(endpoint) ? HttpConnection : WebSocketConnection
      const connection = yield* connect(chain, endpoint, { ...settings, rateLimiter })
      const latest = yield* Eth.blockByNumber(connection, "latest")
      const logs = LogSource.make(connection, chain, capabilities, checks, () => latest?.timestamp)
      while (next <= to) {
        const isFinal = next <= final
        const through = Math.min(
          next + (isFinal ? capabilities.width : capabilities.recentWidth).current - 1,
          isFinal ? Math.min(final, to) : to,
        )
        const blocks = yield* logs[isFinal ? "finalizedRange" : "unfinalizedRange"](next, through)
        for (const block of blocks) onBlock(block)
        next = blocks.at(-1)!.number + 1
      }
    }).pipe(
      Effect.scoped,
      // The response cost the connection, but reduced the size of the next request.
      Effect.retry({ times: mostOversized, while: ({ reason }) => reason._tag === "Oversized" }),
    )
  }
  let before = from
  const httpFirst = chain.endpoints.toSorted((a, b) => Number(isHttp(b)) - Number(isHttp(a)))
  yield* Effect.firstSuccessOf([...chain.rpc, ...httpFirst].map(readOn)).pipe(
    Effect.retry({
      while: () => {
        const isFurther = next > before
        before = next
        return isFurther
      },
    }),
  )
})

/** The requested blocks; without bounds, all that are stored. */
interface Requested {
  readonly from: number | undefined
  readonly to: number | undefined
}

/** The completely stored blocks of a chain, and why there are none below. */
interface Stored {
  /** The first block of the journal, or of its current filter. */
  readonly begins: number
  readonly why: string
  /** The first block from which on no entry was trimmed. */
  readonly first: number
  /** The last completely stored block. */
  readonly last: number
  /** The number of trimmed entries. */
  readonly trimmed: number
}

/** The part of a range that can be verified, and the parts that cannot, with the reason. */
const rangeOf = (requested: Requested, { begins, why, first, last, trimmed }: Stored) => {
  const lowest = requested.to === undefined || requested.to >= first ? first : Math.min(begins, requested.to)
  const from = requested.from ?? lowest
  const to = requested.to ?? Math.max(last, requested.from ?? last)
  const parts = [
    { from, to: Math.min(to, begins - 1), why },
    { from: Math.max(from, begins), to: Math.min(to, first - 1), why: keptFrom(first, trimmed) },
    { from: Math.max(from, last + 1), to, why: `the last stored block is ${last}` },
  ]
  return {
    from: Math.max(from, first),
    to: Math.min(to, last),
    notThere: parts.filter(({ from, to }) => from <= to),
  }
}

const keptFrom = (block: number, trimmed: number) =>
  `${grouped(trimmed)} older entries were trimmed; all entries are kept from block ${block} on`

const missedBy = (groups: Stats["groups"], readers: Stats["readers"]) =>
  [
    ...groups.map(({ name, missed }) => ({ reader: `group ${name}`, entries: missed })),
    ...readers.map(({ name, missed }) => ({ reader: `reader ${name}`, entries: missed })),
  ].filter(({ entries }) => entries > 0)

const verifyChain = Effect.fnUntraced(function* (
  chain: ChainConfig,
  settings: Settings,
  requested: Requested,
  progress: ProgressBars.BlockRange,
) {
  const hasRange = requested.from !== undefined || requested.to !== undefined
  const store = yield* JournalStore
  const entries = yield* Entries
  const admin = yield* StoreAdmin
  const journal = yield* store.load(chain.id)
  if (journal === undefined) return { chain: chain.name, range: null, complete: !hasRange }
  const attempt = Effect.gen(function* () {
    const { final, head, start, filterSince } = (yield* store.load(chain.id)) ?? journal
    const { firstNumber, trimmed, groups, previous, readers } = yield* admin.stats(chain.id)
    // Lower blocks were read with another filter, or belong to a journal that was reset.
    const begins = Math.max(start.number, filterSince)
    const why =
      filterSince > start.number
        ? `the filter changed at block ${filterSince}`
        : `the journal begins at block ${start.number}`
    const first = trimmed === 0 ? begins : Math.max(begins, firstNumber ?? begins)
    const last = head.part === 0 ? head.number : head.number - 1
    const { from, to, notThere } = rangeOf(requested, { begins, why, first, last, trimmed })
    const missed = missedBy(groups, readers)
    const about = { chain: chain.name, first, trimmed_entries: trimmed, not_there: notThere, missed }
    if (from > to) {
      // Without a requested range, an empty one is complete.
      if (!hasRange && begins > last) return { chain: chain.name, range: null, complete: true }
      const why =
        notThere.length === 0 ? [{ from: begins, to: last, why: keptFrom(first, trimmed) }] : notThere
      return { ...about, not_there: why, range: null, matches: true, complete: false }
    }
    // `seek` works only within a single journal.
    const after = from === start.number || previous > 0 ? undefined : yield* entries.seek(chain.id, from)
    // The entry at `after` is below the range and still exists: nothing of the range was trimmed.
    const startsAtOldest = after === undefined
    progress.begin("reading the store", from, last)
    const replayed = yield* replay(entries, chain.id, {
      after,
      skip: previous,
      fromTheBeginning: startsAtOldest && trimmed === 0,
      isEnough: (replay) => {
        progress.reach(replay.blocks.at(-1)?.number ?? -1)
        return isBeyondReorgs(replay, to)
      },
    })
    const diff = new Diff(replayed, from, to, startsAtOldest && trimmed > 0)
    progress.begin("comparing with the chain", from, to)
    yield* readBlocks(chain, settings, { from, to, final: final?.number ?? -1 }, (block) => {
      diff.add(block)
      progress.reach(block.number)
    })
    const { logs, missing, trimmed: trimmedLogs, extra, different } = diff
    const { faults } = replayed
    const matches = missing.length + extra.length + different.length + faults.length === 0
    // Entries that other programs deleted are detected only here.
    const whole = diff.firstComplete(from)
    if (whole > from && (requested.from !== undefined || whole > to))
      notThere.push({ from, to: Math.min(to, whole - 1), why: keptFrom(whole, trimmed) })
    return {
      ...about,
      first: Math.max(first, whole),
      range: [from, to],
      logs,
      trimmed: trimmedLogs,
      missing,
      extra,
      different,
      faults,
      matches,
      complete: matches && notThere.length === 0,
    }
  })
  const found = yield* attempt
  // The chain may have advanced between reading the store and querying the node.
  return !("matches" in found) || found.matches ? found : yield* Effect.delay(attempt, "2 seconds")
})

type Verdict = Effect.Success<ReturnType<typeof verifyChain>>

const verdictOf = ({
  complete,
  first,
  matches,
  trimmed_entries: trimmed,
}: Extract<Verdict, { matches: boolean }>): string => {
  if (!matches) return style(31, "NOT complete")
  const since = `complete from block ${first} on; ${grouped(trimmed)} older entries trimmed`
  const summary = trimmed > 0 ? since : "complete"
  return complete
    ? style(32, summary)
    : style(31, `NOT complete: part of the range is not stored; the rest is ${summary}`)
}

const renderText = (found: Verdict): ReadonlyArray<string> => {
  if (!("matches" in found)) return [`${found.chain}: nothing stored yet`]
  const { chain, missed, not_there: notThere } = found
  const about = [
    ...notThere.map(
      ({ from, to, why }) =>
        `  not stored: ${from === to ? `block ${from}` : `blocks ${from} … ${to}`}: ${why}`,
    ),
    ...missed.map(
      ({ reader, entries }) =>
        `  missed: ${reader}: ${grouped(entries)} entries, trimmed before they were read`,
    ),
  ]
  if (found.range === null) return [`${chain}: ${style(31, "nothing to verify")}`, ...about]
  const { range, logs, trimmed, missing, extra, different, faults } = found
  const lists = { missing, extra, different, fault: faults }
  return [
    `${chain}: blocks ${range[0]} … ${range[1]}, ${logs} logs, ${trimmed} trimmed, ${missing.length} missing, ${extra.length} extra, ${different.length} different, ${faults.length} faults  ${verdictOf(found)}`,
    ...about,
    ...Object.entries(lists).flatMap(([kind, items]) => [
      ...items.slice(0, mostShown).map((item) => `  ${kind} ${item}`),
      ...(items.length > mostShown ? [`  … and ${items.length - mostShown} more`] : []),
    ]),
  ]
}

export const verify = Command.make(
  "verify",
  {
    chain: Flag.optional(chainFlag),
    from: blockFlag("from", "The first block (default: the first block without trimmed entries)"),
    to: blockFlag("to", "The last block (default: the stored head)"),
    json: jsonFlag("One JSON object per line and chain"),
  },
  Effect.fnUntraced(
    function* ({ chain, from, to, json }) {
      const settings = yield* AppConfig
      const requested = { from: Option.getOrUndefined(from), to: Option.getOrUndefined(to) }
      if (requested.from !== undefined && requested.to !== undefined && requested.from > requested.to)
        return yield* new UsageError({
          detail: `--from: expected at most --to, which is ${requested.to}, got ${requested.from}`,
        })
      for (const one of yield* resolveChains(chain)) {
        const progress = new ProgressBars.BlockRange(one.name)
        const found = yield* ProgressBars.show(() => progress.tasks).pipe(
          Effect.andThen(verifyChain(one, settings, requested, progress)),
          Effect.scoped,
        )
        if (!found.complete) process.exitCode = exitCode.failed
        yield* writeRecords([found], json, renderText)
      }
    },
    Effect.provide(Layer.merge(storeOnly, endpointsOnly)),
  ),
).pipe(
  Command.withDescription("Re-fetch a range and compare it with the store"),
  withExamples({
    "event-ingestor verify --chain base": "All stored blocks of a chain",
    "event-ingestor verify --chain base --from 19000000 --to 19001000":
      "A range; exit code 1 if part of it is not stored or differs",
  }),
)
