/** `verify`: fetches a range again and diffs it against the store. */
import { Effect, Layer, Option, References } from "effect"
import { Command, Flag } from "effect/cli"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig, EndpointConfig, Settings } from "../config/AppConfig.ts"
import type { Block } from "../Domain.ts"
import * as RateLimiter from "../endpoint/RateLimiter.ts"
import * as Endpoint from "../endpoint/Endpoint.ts"
import type { Connection, EndpointOptions } from "../endpoint/Endpoint.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import { isHttp } from "../endpoint/EndpointPool.ts"
import * as HttpRpcClient from "../endpoint/HttpRpcClient.ts"
import { Capabilities } from "../endpoint/Capabilities.ts"
import { Transport } from "../endpoint/Socket.ts"
import * as Headers from "../endpoint/Headers.ts"
import * as LogSource from "../logs/LogSource.ts"
import { Verification } from "../logs/Integrity.ts"
import { exitCode } from "./Process.ts"
import { Store } from "../store/Store.ts"
import { blockFlag, chainFlag, resolveChains, jsonFlag } from "./chains.ts"
import { Diff, isBeyondUndoing, replay } from "./comparison.ts"
import { grouped, style, writeLines } from "./Output.ts"
import { storeOnly } from "./service.ts"
import { UsageError } from "./UsageError.ts"

/** Differences that are shown one by one. */
const mostShown = 20

/** How often in a row an answer may be larger than a frame: each time half as much is asked for. */
const mostOversized = 16

/**
 * Reads blocks as ingesting does, in whatever way an endpoint grants them, over HTTP where that is configured. Where one
 * endpoint fails the next goes on, for as long as somebody gets further.
 *
 * @param final up to which block the chain is final, so that headers need not be fetched one by one
 */
const readBlocks = Effect.fnUntraced(function* (
  chain: ChainConfig,
  settings: Settings,
  { from, to, final }: { readonly from: number; readonly to: number; readonly final: number },
  take: (block: Block) => void,
) {
  const checks = yield* Verification
  let next = from
  const readOn = <R>(
    endpoint: EndpointConfig,
    connect: (options: EndpointOptions) => Effect.Effect<Connection, EndpointError, R>,
  ) => {
    const capabilities = new Capabilities()
    return Effect.gen(function* () {
      const rateLimiter = yield* RateLimiter.make(RateLimiter.limitOf(endpoint, settings.rpcRate))
      const connection = yield* connect({ ...settings, rateLimiter })
      const latest = yield* Headers.header(connection, "latest")
      const logs = LogSource.make(connection, chain, capabilities, checks, () => latest?.timestamp)
      while (next <= to) {
        const isFinal = next <= final
        const through = Math.min(
          next + (isFinal ? capabilities.width : capabilities.recentWidth) - 1,
          isFinal ? Math.min(final, to) : to,
        )
        const blocks = yield* logs[isFinal ? "finalizedRange" : "unfinalizedRange"](next, through)
        for (const block of blocks) take(block)
        next = blocks.at(-1)!.number + 1
      }
    }).pipe(
      Effect.scoped,
      // It cost the connection, and taught what to ask for instead.
      Effect.retry({ times: mostOversized, while: ({ reason }) => reason._tag === "Oversized" }),
    )
  }
  let before = from
  const sockets = chain.endpoints.filter((endpoint) => !isHttp(endpoint))
  yield* Effect.firstSuccessOf([
    ...[...chain.rpc, ...chain.endpoints.filter(isHttp)].map((endpoint) =>
      readOn(endpoint, (options) => HttpRpcClient.connect(chain, endpoint, options)),
    ),
    ...sockets.map((endpoint) => readOn(endpoint, (options) => Endpoint.connect(chain, endpoint, options))),
  ]).pipe(
    Effect.retry({
      while: () => {
        const isFurther = next > before
        before = next
        return isFurther
      },
    }),
  )
})

/** Blocks that were asked for and cannot be verified, and why. */
export interface NotThere {
  readonly from: number
  readonly to: number
  readonly why: string
}

/** What is stored of a chain: the blocks that are there as a whole, and why there are none below or above. */
export interface Stored {
  /** Where the journal begins, or the filter that it has now. */
  readonly begins: number
  readonly why: string
  /** From here on every entry is kept. */
  readonly first: number
  /** The last block that is there as a whole. */
  readonly last: number
  /** Entries that were trimmed. */
  readonly trimmed: number
}

/** What can be verified of a range, and what of it cannot. */
export const rangeOf = (
  asked: { readonly from: number | undefined; readonly to: number | undefined },
  { begins, why, first, last, trimmed }: Stored,
): {
  readonly from: number
  readonly to: number
  readonly notThere: Array<NotThere>
} => {
  const from =
    asked.from ?? (asked.to === undefined || asked.to >= first ? first : Math.min(begins, asked.to))
  const to = asked.to ?? Math.max(last, asked.from ?? last)
  const parts: ReadonlyArray<NotThere> = [
    { from, to: Math.min(to, begins - 1), why },
    {
      from: Math.max(from, begins),
      to: Math.min(to, first - 1),
      why: keptFrom(first, trimmed),
    },
    { from: Math.max(from, last + 1), to, why: `the last block that is stored is ${last}` },
  ]
  return {
    from: Math.max(from, first),
    to: Math.min(to, last),
    notThere: parts.filter(({ from, to }) => from <= to),
  }
}

const keptFrom = (block: number, trimmed: number) =>
  `${grouped(trimmed)} older entries were trimmed, every entry is kept from block ${block} on`

const verifyChain = Effect.fnUntraced(function* (
  chain: ChainConfig,
  settings: Settings,
  asked: { readonly from: number | undefined; readonly to: number | undefined },
) {
  const isAsked = asked.from !== undefined || asked.to !== undefined
  const store = yield* Store
  const journal = yield* store.load(chain.id)
  if (journal === undefined) return { chain: chain.name, range: null, complete: !isAsked }
  const attempt = Effect.gen(function* () {
    const { final, head, start, filterSince } = (yield* store.load(chain.id)) ?? journal
    const { firstNumber, trimmed, groups, previous, readers } = yield* store.stats(chain.id)
    // What is below was read with another filter, or is of a journal that was reset.
    const begins = Math.max(start.number, filterSince)
    const why =
      filterSince > start.number
        ? `the filter is another one since block ${filterSince}`
        : `the journal begins at block ${start.number}`
    const first = trimmed === 0 ? begins : Math.max(begins, firstNumber ?? begins)
    const last = head.part === 0 ? head.number : head.number - 1
    const { from, to, notThere } = rangeOf(asked, { begins, why, first, last, trimmed })
    const missed = [
      ...groups.map(({ name, missed }) => ({ reader: `group ${name}`, entries: missed })),
      ...readers.map(({ name, missed }) => ({ reader: `reader ${name}`, entries: missed })),
    ].filter(({ entries }) => entries > 0)
    const about = { chain: chain.name, first, trimmed_entries: trimmed, not_there: notThere, missed }
    if (from > to) {
      // Of what nobody asked for, nothing is missing.
      if (!isAsked && begins > last) return { chain: chain.name, range: null, complete: true }
      const why =
        notThere.length === 0 ? [{ from: begins, to: last, why: keptFrom(first, trimmed) }] : notThere
      return { ...about, not_there: why, range: null, matches: true, complete: false }
    }
    // Heights are looked up in one journal alone.
    const after = from === start.number || previous > 0 ? undefined : yield* store.seek(chain.id, from)
    // What is at `after` is below the range and still there: nothing of the range was trimmed.
    const startsAtOldest = after === undefined
    const replayed = yield* replay(store, chain.id, {
      after,
      skip: previous,
      fromTheBeginning: startsAtOldest && trimmed === 0,
      isEnough: (replay) => isBeyondUndoing(replay, to),
    })
    const diff = new Diff(replayed, from, to, startsAtOldest && trimmed > 0)
    yield* readBlocks(chain, settings, { from, to, final: final?.number ?? -1 }, (block) => diff.take(block))
    const { logs, missing, trimmed: trimmedLogs, extra, different } = diff.result
    const { faults } = replayed
    const matches = missing.length + extra.length + different.length + faults.length === 0
    // Entries that others deleted are noticed only here.
    const whole = diff.firstWhole(from)
    if (whole > from && (asked.from !== undefined || whole > to))
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
  // The chain may have moved between reading the store and asking the node.
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
  const said = trimmed > 0 ? since : "complete"
  return complete ? style(32, said) : style(31, `NOT complete: not all of it is there; the rest is ${said}`)
}

const renderText = (found: Verdict): ReadonlyArray<string> => {
  if (!("matches" in found)) return [`${found.chain}: nothing stored yet`]
  const { chain, missed, not_there: notThere } = found
  const about = [
    ...notThere.map(
      ({ from, to, why }) =>
        `  not there: ${from === to ? `block ${from}` : `blocks ${from} … ${to}`}: ${why}`,
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
    from: blockFlag("from", "The first block (default: the first of which every entry is kept)"),
    to: blockFlag("to", "The last block (default: the stored head)"),
    json: jsonFlag("One JSON object a line, one line a chain"),
  },
  Effect.fnUntraced(
    function* ({ chain, from, to, json }) {
      const settings = yield* AppConfig
      const asked = { from: Option.getOrUndefined(from), to: Option.getOrUndefined(to) }
      if (asked.from !== undefined && asked.to !== undefined && asked.from > asked.to)
        return yield* new UsageError({
          detail: `--from: expected at most --to, which is ${asked.to}, got ${asked.from}`,
        })
      for (const one of yield* resolveChains(settings.chains, chain)) {
        const found = yield* verifyChain(one, settings, asked)
        if (!found.complete) process.exitCode = exitCode.failed
        yield* writeLines(json ? [JSON.stringify(found)] : renderText(found))
      }
    },
    Effect.provide(
      Layer.mergeAll(storeOnly, Transport.layerNetwork, Layer.succeed(References.MinimumLogLevel, "None")),
    ),
  ),
).pipe(
  Command.withDescription("Fetch a range again and compare it with the store"),
  Command.withExamples([
    { command: "event-ingestor verify --chain base", description: "All that is kept of a chain" },
    {
      command: "event-ingestor verify --chain base --from 19000000 --to 19001000",
      description: "A range; exit code 1 where some of it is not there or differs",
    },
  ]),
)
