/** `run`, the default: follow every configured chain until told to stop. */
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { AppConfig } from "../Config.ts"
import { service, surroundings, telemetry } from "./service.ts"

const hello = Effect.gen(function* () {
  const { chains, store, warnings } = yield* AppConfig
  yield* Effect.logInfo(
    `following ${chains.map(({ name }) => name).join(", ")} into ${store._tag === "Sqlite" ? store.path : "Redis"}`,
  )
  for (const warning of warnings) yield* Effect.logWarning(warning)
})

export const serve = Effect.andThen(hello, Layer.launch(service)).pipe(
  Effect.provide(telemetry.pipe(Layer.provideMerge(surroundings), Layer.provideMerge(AppConfig.layer))),
)

export const run = Command.make("run", {}, () => serve).pipe(
  Command.withDescription("Follow every configured chain until stopped (the default)"),
  Command.withExamples([
    { command: "event-ingestor run", description: "Follow every configured chain until Ctrl-C" },
    {
      command: "CHAINS=1,8453 LOG_FORMAT=json event-ingestor run",
      description: "Two chains by their ids, with JSON logs",
    },
  ]),
)
