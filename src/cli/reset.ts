/** `reset`: discards a chain's journal head, for instance after contradicting final blocks. */
import { Effect, Option } from "effect"
import { Command, Flag, Prompt } from "effect/cli"
import { fingerprint } from "../logs/Filter.ts"
import { JournalStore } from "../store/JournalStore.ts"
import { StoreAdmin } from "../store/StoreAdmin.ts"
import {
  blockFlag,
  booleanFlag,
  chainFlag,
  jsonFlag,
  resolveChain,
  UsageError,
  withExamples,
} from "./Flags.ts"
import { storeOnly } from "./Layers.ts"
import { writeRecords } from "./Output.ts"
import type { StoreError } from "../store/StoreError.ts"

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
    delete: booleanFlag("delete", "Delete the chain's entries as well"),
    yes: booleanFlag("yes", "Skip the confirmation").pipe(Flag.withAlias("y")),
    json: jsonFlag("Print the result as JSON"),
  },
  Effect.fnUntraced(function* ({ chain: name, from, delete: all, yes, json }) {
    const store = yield* JournalStore
    const admin = yield* StoreAdmin
    const chain = yield* resolveChain(name)
    const head = yield* store.load(chain.id).pipe(
      Effect.map((journal) => (journal ? `the head at block ${journal.head.number}` : "nothing")),
      Effect.catchIf(isCorrupt, () => Effect.succeed("an inconsistent journal")),
    )
    const entries = yield* admin.stats(chain.id).pipe(
      Effect.map(({ entries }) => entries),
      Effect.catchIf(isCorrupt, () => Effect.succeed(undefined)),
    )
    const what = `discard ${head}${all ? ` and delete ${entries ?? "all"} entries` : ""} of ${chain.name} in ${admin.description}`
    const report = (record: object, text: string) => writeRecords([record], json, () => text)
    if (!yes && !(yield* confirmed(`${what}?`)))
      return yield* report({ chain: chain.name, reset: false }, "nothing changed")
    yield* admin.reset(chain.id, {
      from: Option.getOrUndefined(from),
      filter: fingerprint(chain.filter),
      delete: all,
    })
    const begins = Option.isSome(from)
      ? `starts again at block ${from.value}`
      : "starts again as configured; a running ingestor starts again where it first started, unless it is restarted"
    const deleted = all ? (entries ?? null) : 0
    yield* report(
      { chain: chain.name, reset: true, from: Option.getOrNull(from), deleted },
      `${chain.name} ${begins}`,
    )
  }, Effect.provide(storeOnly)),
).pipe(
  Command.withDescription("Discard a chain's journal head and start again"),
  withExamples({
    "event-ingestor reset --chain base": "Start again as configured; keep the entries",
    "event-ingestor reset --chain base --from 19000000 --delete --yes":
      "Start again at a block, delete the entries, skip the confirmation",
  }),
)
