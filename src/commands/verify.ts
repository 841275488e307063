/** `verify`: fetches a range again and diffs it against the store. */
import { Effect, Layer, Option, References } from "effect"
import { Command, Flag } from "effect/cli"
import { AppConfig } from "../Config.ts"
import type { ChainConfig, Settings } from "../Config.ts"
import * as Endpoint from "../endpoint/Endpoint.ts"
import { Transport } from "../endpoint/Transport.ts"
import { exitCode } from "../Process.ts"
import { Store } from "../store/Store.ts"
import { blockFlag, chainFlag, chosenOrAll, jsonFlag } from "./chains.ts"
import { compare, replay } from "./comparison.ts"
import { style, writeLines } from "./Output.ts"
import { storeOnly } from "./service.ts"

/** Differences that are shown one by one. */
const mostShown = 20

/** The first of the chain's endpoints that can be reached. */
const connect = (chain: ChainConfig, settings: Settings) =>
  Effect.firstSuccessOf(chain.endpoints.map((endpoint) => Endpoint.connect(chain, endpoint, settings)))

const diff = Effect.fnUntraced(function* (
  chain: ChainConfig,
  settings: Settings,
  range: { readonly from: Option.Option<number>; readonly to: Option.Option<number> },
) {
  const store = yield* Store
  const journal = yield* store.load(chain.id)
  if (journal === undefined) return { chain: chain.name, range: null, complete: true as boolean }
  const connection = yield* connect(chain, settings)
  const attempt = Effect.gen(function* () {
    const { head, start } = (yield* store.load(chain.id)) ?? journal
    const whole = head.part === 0 ? head.number : head.number - 1
    const from = Math.max(
      Option.getOrElse(range.from, () => start.number),
      start.number,
    )
    const to = Math.min(
      Option.getOrElse(range.to, () => whole),
      whole,
    )
    const { gone } = yield* store.stats(chain.id)
    const after = from === start.number ? undefined : yield* store.seek(chain.id, from)
    const replayed = yield* replay(store, chain.id, after, after === undefined && gone === 0)
    const { logs, missing, trimmed, extra, different } = yield* compare(
      replayed,
      connection,
      chain,
      from,
      to,
      gone > 0,
    )
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
}, Effect.scoped)

type Diff = Effect.Success<ReturnType<typeof diff>>

const forPeople = (found: Diff): ReadonlyArray<string> => {
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
        const found = yield* diff(one, settings, { from, to })
        if (!found.complete) process.exitCode = exitCode.failed
        yield* writeLines(json ? [JSON.stringify(found)] : forPeople(found))
      }
    },
    Effect.provide(
      Layer.mergeAll(storeOnly, Transport.layerWebSocket, Layer.succeed(References.MinimumLogLevel, "None")),
    ),
  ),
).pipe(Command.withDescription("Fetch a range again and compare it with the store"))
