/** Folds the events of every chain into its status, its log lines and its traces. */
import { Clock, Effect, Layer, Schedule } from "effect"
import { ChainEvents } from "../chain/ChainEvents.ts"
import type { ChainEvent } from "../chain/ChainEvents.ts"
import { AppConfig } from "../config/AppConfig.ts"
import { errorType } from "../endpoint/EndpointError.ts"
import { Redaction } from "../Redactor.ts"
import * as ChainLog from "./ChainLog.ts"
import { logEvent } from "./LogEvents.ts"
import { CurrentLogLimits, LogLimits } from "./LogLimits.ts"
import * as Progress from "./Progress.ts"
import { Status } from "./Status.ts"
import { fold } from "./StatusFold.ts"
import { traceFailure } from "../Tracing.ts"

const traceOf = (chain: string, event: ChainEvent) =>
  event._tag === "EndpointFailed"
    ? traceFailure(event.error, {
        "event_ingestor.chain": chain,
        "event_ingestor.endpoint": event.endpoint,
        "error.type": errorType(event.error.reason),
      })
    : Effect.void

/** The publisher of each chain's events. Lines about chains that are behind are written while the layer lives. */
export const layer = Layer.effect(
  ChainEvents,
  Effect.gen(function* () {
    const { chain: statusOf, chains, storeOperation } = yield* Status
    const { retention } = yield* AppConfig
    const redact = yield* Redaction
    const clock = yield* Clock.Clock
    const context = { clock, redact, storeOperation }
    const limits = new LogLimits()
    const limited = Effect.provideService(CurrentLogLimits, limits)

    yield* Effect.andThen(Progress.make(chains), limits.flush).pipe(
      limited,
      Effect.catchDefect((defect) => logEvent("defect", "a defect while logging progress", {}, defect)),
      Effect.repeat(Schedule.spaced(Progress.checkInterval)),
      Effect.forkScoped,
    )

    return {
      of: (name) => {
        const status = statusOf(name)
        const lineOf = ChainLog.make(clock, retention.backlog)
        return {
          record: (event) => fold(status, event, context),
          publish: (event) =>
            Effect.suspend(() => {
              const line = lineOf(event, status) ?? Effect.void
              fold(status, event, context)
              return Effect.andThen(limited(line), traceOf(name, event))
            }),
        }
      },
    }
  }),
)
