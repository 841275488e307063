/** The layers that make the service, and what every command needs of them. */
import { Effect, Layer, Logger } from "effect"
import { AppConfig } from "../Config.ts"
import { Transport } from "../endpoint/Transport.ts"
import * as Ingest from "../Ingest.ts"
import * as Logging from "../Logging.ts"
import { shutdown } from "../Process.ts"
import { Redaction } from "../Redact.ts"
import * as RedisStore from "../store/RedisStore.ts"
import * as SqliteStore from "../store/SqliteStore.ts"
import * as Http from "../web/Http.ts"
import * as Sampler from "../web/Sampler.ts"
import { Status } from "../web/Status.ts"
import * as StoreWatch from "../web/StoreWatch.ts"

/** The configured store. */
export const store = Layer.unwrap(
  Effect.map(AppConfig, ({ store, streamPrefix, retention }) =>
    store._tag === "Sqlite"
      ? SqliteStore.layer(store.path, retention)
      : RedisStore.layer({ config: store, prefix: streamPrefix, retention }),
  ),
)

/** Log format and level, secrets to hide, time to stop: as the configuration says. */
export const surroundings = Layer.unwrap(
  Effect.map(AppConfig, (config) => {
    shutdown.timeout = config.shutdownTimeout
    return Layer.mergeAll(Logging.layer(config.log), Layer.succeed(Redaction, config.redact))
  }),
)

/** OpenTelemetry where it is configured; else not even loaded. */
export const telemetry = Layer.unwrap(
  Effect.flatMap(AppConfig, ({ telemetry }) =>
    telemetry === undefined
      ? Effect.succeed(Layer.empty)
      : Effect.map(
          Effect.promise(() => import("../Telemetry.ts")),
          ({ layer }) => layer(telemetry),
        ),
  ),
)

/** Everything that runs while chains are followed. */
export const service = Layer.mergeAll(Ingest.layer, StoreWatch.layer, Sampler.layer, Http.layer).pipe(
  Layer.provideMerge(Status.layer),
  Layer.provideMerge(store),
  Layer.provide(Transport.layerNetwork),
)

/** What a command needs. Its own logs would be in the way of what it prints. */
export const commandOnly = surroundings.pipe(
  Layer.provideMerge(Layer.succeed(Logger.LogToStderr, true)),
  Layer.provideMerge(AppConfig.layer),
)

/** What a command needs that only reads or changes the store. */
export const storeOnly = store.pipe(Layer.provideMerge(commandOnly))
