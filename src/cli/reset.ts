/** `reset`: discards a chain's journal head, for instance after contradicting final blocks. */
import { Effect, Option } from "effect"
import { Command, Flag, Prompt } from "effect/cli"
import { AppConfig } from "../config/AppConfig.ts"
import { fingerprint } from "../logs/Filter.ts"
import { JournalStore } from "../store/JournalStore.ts"
import { StoreAdmin } from "../store/StoreAdmin.ts"
import type { StoreError } from "../store/StoreError.ts"
import { blockFlag, chainFlag, resolveChain, jsonFlag } from "./chains.ts"
import { writeLines } from "./Output.ts"
import { storeOnly } from "./service.ts"
import { UsageError } from "./UsageError.ts"

const confirmed = Effect.fnUntraced(function* (question: string) {
  if (!process.stdin.isTTY)
    return yield* new UsageError({
      detail: "reset needs confirmation: add --yes when standard input is not a terminal",
    })
  return yield* Prompt.run(Prompt.Confirm({ message: question })).pipe(
    Effect.catchTag("QuitError", () => Effect.succeed(false)),
  )
})

/** A corrupt journal must not prevent its reset. */
const isCorrupt = ({ reason }: StoreError) => reason === "corrupt"

export const reset = Command.make(
  "reset",
  {
    chain: chainFlag,
    from: blockFlag("from", "The first block of the new journal (default: as configured for a new chain)"),
    delete: Flag.Boolean("delete").pipe(
      Flag.withDescription("Delete the chain's entries as well"),
      Flag.withDefault(false),
    ),
    yes: Flag.Boolean("yes").pipe(
      Flag.withAlias("y"),
      Flag.withDescription("Skip the confirmation"),
      Flag.withDefault(false),
    ),
    json: jsonFlag("Print the result as JSON"),
  },
  Effect.fnUntraced(function* ({ chain: name, from, delete: all, yes, json }) {
    const { chains } = yield* AppConfig
    const store = yield* JournalStore
    const admin = yield* StoreAdmin
    const chain = yield* resolveChain(chains, name)
    const head = yield* store.load(chain.id).pipe(
      Effect.map((journal) => (journal ? `the head at block ${journal.head.number}` : "nothing")),
      Effect.catchIf(isCorrupt, () => Effect.succeed("an inconsistent journal")),
    )
    const entries = yield* admin.stats(chain.id).pipe(
      Effect.map(({ entries }) => entries),
      Effect.catchIf(isCorrupt, () => Effect.succeed(undefined)),
    )
    const what = `discard ${head}${all ? ` and delete ${entries ?? "all"} entries` : ""} of ${chain.name} in ${admin.description}`
    if (!yes && !(yield* confirmed(`${what}?`))) {
      yield* writeLines([json ? JSON.stringify({ chain: chain.name, reset: false }) : "nothing changed"])
      return
    }
    yield* admin.reset(chain.id, {
      from: Option.getOrUndefined(from),
      filter: fingerprint(chain.filter),
      delete: all,
    })
    const begins = Option.isSome(from)
      ? `starts again at block ${from.value}`
      : "starts again as configured; a running ingestor starts again where it first started, unless it is restarted"
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
  Command.withDescription("Discard a chain's journal head and start again"),
  Command.withExamples([
    {
      command: "event-ingestor reset --chain base",
      description: "Start again as configured; keep the entries",
    },
    {
      command: "event-ingestor reset --chain base --from 19000000 --delete --yes",
      description: "Start again at a block, delete the entries, skip the confirmation",
    },
  ]),
)
