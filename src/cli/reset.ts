/** `reset`: forgets where a chain's journal stands, for instance after a contradiction of final blocks. */
import { Effect, Option } from "effect"
import { Command, Flag, Prompt } from "effect/cli"
import { AppConfig } from "../config/AppConfig.ts"
import { fingerprint } from "../logs/Filter.ts"
import { Store } from "../store/Store.ts"
import type { StoreError } from "../store/Store.ts"
import { blockFlag, chainFlag, resolveChain, jsonFlag } from "./chains.ts"
import { writeLines } from "./Output.ts"
import { storeOnly } from "./service.ts"
import { UsageError } from "./UsageError.ts"

const confirmed = Effect.fnUntraced(function* (question: string) {
  if (!process.stdin.isTTY)
    return yield* new UsageError({ detail: "reset asks first: add --yes where nobody can answer" })
  return yield* Prompt.run(Prompt.Confirm({ message: question })).pipe(
    Effect.catchTag("QuitError", () => Effect.succeed(false)),
  )
})

/** What cannot be read is what a reset is for. */
const isCorrupt = ({ reason }: StoreError) => reason === "corrupt"

export const reset = Command.make(
  "reset",
  {
    chain: chainFlag,
    from: blockFlag("from", "Where the journal begins again (default: as if the chain had never been seen)"),
    delete: Flag.Boolean("delete").pipe(
      Flag.withDescription("Delete the chain's entries as well"),
      Flag.withDefault(false),
    ),
    yes: Flag.Boolean("yes").pipe(
      Flag.withAlias("y"),
      Flag.withDescription("Do not ask"),
      Flag.withDefault(false),
    ),
    json: jsonFlag("Say what was done as JSON"),
  },
  Effect.fnUntraced(function* ({ chain: name, from, delete: all, yes, json }) {
    const { chains } = yield* AppConfig
    const store = yield* Store
    const chain = yield* resolveChain(chains, name)
    const head = yield* store.load(chain.id).pipe(
      Effect.map((journal) => (journal ? `the head at block ${journal.head.number}` : "nothing")),
      Effect.catchIf(isCorrupt, () => Effect.succeed("a journal that does not fit together")),
    )
    const entries = yield* store.stats(chain.id).pipe(
      Effect.map(({ entries }) => entries),
      Effect.catchIf(isCorrupt, () => Effect.succeed(undefined)),
    )
    const what = `forget ${head}${all ? ` and delete ${entries ?? "all"} entries` : ""} of ${chain.name} in ${store.description}`
    if (!yes && !(yield* confirmed(`${what}?`))) {
      yield* writeLines([json ? JSON.stringify({ chain: chain.name, reset: false }) : "nothing was changed"])
      return
    }
    yield* store.reset(chain.id, {
      from: Option.getOrUndefined(from),
      filter: fingerprint(chain.filter),
      delete: all,
    })
    const begins = Option.isSome(from)
      ? `begins again at block ${from.value}`
      : "begins again as configured; an ingestor that is writing it goes on from where it began, unless it is restarted"
    yield* writeLines([
      json
        ? JSON.stringify({
            chain: chain.name,
            reset: true,
            from: Option.getOrNull(from),
            deleted: all ? (entries ?? null) : 0,
          })
        : `${chain.name} ${begins}`,
    ])
  }, Effect.provide(storeOnly)),
).pipe(
  Command.withDescription("Forget where a chain's journal stands"),
  Command.withExamples([
    { command: "event-ingestor reset --chain base", description: "Begin again as configured; entries stay" },
    {
      command: "event-ingestor reset --chain base --from 19000000 --delete --yes",
      description: "Begin again at a block, without the old entries, and do not ask",
    },
  ]),
)
