/** `run`, the default command: follows every configured chain until stopped. */
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { AppConfig } from "../config/AppConfig.ts"
import { systemOf } from "../config/StoreConfig.ts"
import { logEvent } from "../observability/LogEvents.ts"
import * as Backfill from "./backfill.ts"
import { withExamples } from "./Flags.ts"
import { runtime, telemetry } from "./Layers.ts"
import type { Service } from "./Layers.ts"
import { shutdown } from "./Process.ts"

const logStartup = Effect.gen(function* () {
  const { chains, store, warnings } = yield* AppConfig
  const into = store._tag === "Sqlite" ? store.path : "Redis"
  yield* logEvent("start", `following ${chains.map(({ name }) => name).join(", ")} into ${into}`, {
    chains: chains.length,
    store: systemOf(store),
  })
  for (const warning of warnings) yield* logEvent("configuration", warning, {})
})

/** The last log line: everything is closed. */
const logStopped = Effect.suspend(() => {
  const seconds = Math.round((performance.now() - (shutdown.since ?? performance.now())) / 100) / 10
  return logEvent("stopped", `stopped cleanly in ${seconds} s`, { seconds })
})

/** Follows every configured chain until it is interrupted. */
export const serve = (service: Service) =>
  Effect.andThen(logStartup, Layer.launch(Layer.provideMerge(Backfill.layer, service))).pipe(
    Effect.onInterrupt(() => logStopped),
    Effect.provide(telemetry.pipe(Layer.provideMerge(runtime), Layer.provideMerge(AppConfig.layer))),
  )

export const run = (service: Service) =>
  Command.make("run", {}, () => serve(service)).pipe(
    Command.withDescription("Follow every configured chain until stopped (the default)"),
    withExamples({
      "event-ingestor run": "Follow every configured chain until Ctrl-C",
      "CHAINS=1,8453 LOG_FORMAT=json event-ingestor run": "Two chains by their ids, with JSON logs",
    }),
  )
