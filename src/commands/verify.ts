/** `verify`: fetches a range again and diffs it against the store. */
import { Effect, Layer, Option, References } from "effect"
import { Command, Flag } from "effect/cli"
import { AppConfig } from "../Config.ts"
import type { ChainConfig, EndpointConfig, Settings } from "../Config.ts"
import type { Block } from "../Domain.ts"
import * as Budget from "../endpoint/Budget.ts"
import * as Endpoint from "../endpoint/Endpoint.ts"
import type { Connection, EndpointOptions } from "../endpoint/Endpoint.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import { isHttp } from "../endpoint/Failover.ts"
import * as HttpEndpoint from "../endpoint/HttpEndpoint.ts"
import { Learned } from "../endpoint/Learned.ts"
import { Transport } from "../endpoint/Transport.ts"
import * as Headers from "../feed/Headers.ts"
import * as Logs from "../feed/Logs.ts"
import { Verification } from "../feed/Verify.ts"
import { exitCode } from "../Process.ts"
import { Store } from "../store/Store.ts"
import { blockFlag, chainFlag, chosenOrAll, jsonFlag } from "./chains.ts"
import { Diff, isBeyondUndoing, replay } from "./comparison.ts"
import { style, writeLines } from "./Output.ts"
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
    const learned = new Learned()
    return Effect.gen(function* () {
      const budget = yield* Budget.make(Budget.limitOf(endpoint, settings.rpcRate))
      const connection = yield* connect({ ...settings, budget })
      const latest = yield* Headers.header(connection, "latest")
      const logs = Logs.make(connection, chain, learned, checks, () => latest?.timestamp)
      while (next <= to) {
        const isFinal = next <= final
        const through = Math.min(
          next + (isFinal ? learned.width : learned.recentWidth) - 1,
          isFinal ? Math.min(final, to) : to,
        )
        const blocks = yield* logs[isFinal ? "history" : "recent"](next, through)
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
      readOn(endpoint, (options) => HttpEndpoint.connect(chain, endpoint, options)),
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

const verifyChain = Effect.fnUntraced(function* (
  chain: ChainConfig,
  settings: Settings,
  range: { readonly from: Option.Option<number>; readonly to: Option.Option<number> },
) {
  const store = yield* Store
  const journal = yield* store.load(chain.id)
  if (journal === undefined) return { chain: chain.name, range: null, complete: true as boolean }
  const attempt = Effect.gen(function* () {
    const { final, head, start, filterSince } = (yield* store.load(chain.id)) ?? journal
    const whole = head.part === 0 ? head.number : head.number - 1
    // What is below was read with another filter, or is of a journal that was reset.
    const begins = Math.max(start.number, filterSince)
    const from = Math.max(
      Option.getOrElse(range.from, () => begins),
      begins,
    )
    const to = Math.min(
      Option.getOrElse(range.to, () => whole),
      whole,
    )
    if (from > to && (Option.isSome(range.from) || Option.isSome(range.to))) {
      const detail = `--from, --to: nothing is stored there, but blocks ${begins} … ${whole}`
      return yield* new UsageError({ detail })
    }
    const { gone, older } = yield* store.stats(chain.id)
    // Heights are looked up in one journal alone.
    const after = from === start.number || older > 0 ? undefined : yield* store.seek(chain.id, from)
    // What is at `after` is below the range and still there: nothing of the range was trimmed.
    const startsAtOldest = after === undefined
    const replayed = yield* replay(store, chain.id, {
      after,
      skip: older,
      fromTheBeginning: startsAtOldest && gone === 0,
      isEnough: (replay) => isBeyondUndoing(replay, to),
    })
    const diff = new Diff(replayed, from, to, startsAtOldest && gone > 0)
    yield* readBlocks(chain, settings, { from, to, final: final?.number ?? -1 }, (block) => diff.take(block))
    const { logs, missing, trimmed, extra, different } = diff.result
    const { faults } = replayed
    const complete = missing.length + extra.length + different.length + faults.length === 0
    return {
      chain: chain.name,
      range: [from, to],
      logs,
      trimmed,
      missing,
      extra,
      different,
      faults,
      complete,
    }
  })
  const first = yield* attempt
  // The chain may have moved between reading the store and asking the node.
  return first.complete ? first : yield* Effect.delay(attempt, "2 seconds")
})

type Verdict = Effect.Success<ReturnType<typeof verifyChain>>

const forPeople = (found: Verdict): ReadonlyArray<string> => {
  if (found.range === null) return [`${found.chain}: nothing stored yet`]
  const { chain, range, logs, trimmed, missing, extra, different, faults, complete } = found
  const lists = { missing, extra, different, fault: faults }
  return [
    `${chain}: blocks ${range[0]} … ${range[1]}, ${logs} logs, ${trimmed} trimmed, ${missing.length} missing, ${extra.length} extra, ${different.length} different, ${faults.length} faults  ${complete ? style(32, "complete") : style(31, "NOT complete")}`,
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
    from: blockFlag("from", "The first block (default: where the journal begins)"),
    to: blockFlag("to", "The last block (default: the stored head)"),
    json: jsonFlag("One JSON object a line, one line a chain"),
  },
  Effect.fnUntraced(
    function* ({ chain, from, to, json }) {
      const settings = yield* AppConfig
      for (const one of yield* chosenOrAll(settings.chains, chain)) {
        const found = yield* verifyChain(one, settings, { from, to })
        if (!found.complete) process.exitCode = exitCode.failed
        yield* writeLines(json ? [JSON.stringify(found)] : forPeople(found))
      }
    },
    Effect.provide(
      Layer.mergeAll(storeOnly, Transport.layerNetwork, Layer.succeed(References.MinimumLogLevel, "None")),
    ),
  ),
).pipe(Command.withDescription("Fetch a range again and compare it with the store"))
