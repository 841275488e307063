/** The layers that commands need. */
import { Effect, Layer, Logger, References } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import { Transport } from "../endpoint/Socket.ts"
import type { HttpError } from "../http/Server.ts"
import * as Logging from "../observability/Logging.ts"
import type { Status } from "../observability/Status.ts"
import { Redaction } from "../Redactor.ts"
import * as StoreLayer from "../store/StoreLayer.ts"
import type { Contracts } from "../store/Store.ts"
import { shutdown } from "./Process.ts"
import type { StoreError } from "../store/StoreError.ts"

/** Applies the configured log format and level, secrets to redact, and shutdown timeout. */
export const runtime = Layer.unwrap(
  Effect.map(AppConfig, (config) => {
    shutdown.timeout = config.shutdownTimeout
    return Layer.mergeAll(Logging.layer(config.log), Layer.succeed(Redaction, config.redact))
  }),
)

/** OpenTelemetry, loaded only if configured. */
export const telemetry = Layer.unwrap(
  Effect.flatMap(AppConfig, ({ telemetry }) =>
    telemetry === undefined
      ? Effect.succeed(Layer.empty)
      : Effect.map(
          Effect.promise(() => import("../observability/Telemetry.ts")),
          ({ layer }) => layer(telemetry),
        ),
  ),
)

/** The running service, as `main.ts` assembles it. */
export type Service = Layer.Layer<Status | Contracts, HttpError | StoreError, AppConfig>

/** The layers that every command needs. Logs go to standard error, apart from the command's output. */
export const commandOnly = runtime.pipe(
  Layer.provideMerge(Layer.succeed(Logger.LogToStderr, true)),
  Layer.provideMerge(AppConfig.layer),
)

/** The layers of a command that only uses the store. */
export const storeOnly = StoreLayer.layer.pipe(Layer.provideMerge(commandOnly))

/** Connections to endpoints, whose log lines would repeat what a command prints. */
export const endpointsOnly = Layer.merge(
  Transport.layerNetwork,
  Layer.succeed(References.MinimumLogLevel, "None"),
)
