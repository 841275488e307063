/** Folds the events of every chain into its status, its log lines and its traces; does the work of each second. */
import { Clock, Effect, Layer, Schedule } from "effect"
import { ChainEvents } from "../chain/ChainEvents.ts"
import type { ChainEvent } from "../chain/ChainEvents.ts"
import { AppConfig } from "../config/AppConfig.ts"
import { errorType } from "../endpoint/EndpointError.ts"
import * as Monotonic from "../Monotonic.ts"
import { Redaction } from "../Redactor.ts"
import * as ChainLog from "./ChainLog.ts"
import { eventsPublished } from "./ChainMetrics.ts"
import { logEvent } from "./LogEvents.ts"
import { CurrentLogLimits, LogLimits } from "./LogLimits.ts"
import * as Progress from "./Progress.ts"
import { sampleEvery } from "./Sparkline.ts"
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

/**
 * The publisher of each chain's events. While the layer lives, each second is one wake-up of the process, for all chains: a
 * sample for the rates, the curves of the page and the delay of the event loop, and the lines that are due.
 */
export const layer = Layer.effect(
  ChainEvents,
  Effect.gen(function* () {
    const { chain: statusOf, chains, eventLoopLag, storeOperation } = yield* Status
    const { retention } = yield* AppConfig
    const redact = yield* Redaction
    const clock = yield* Clock.Clock
    const context = { clock, redact, storeOperation }
    const limits = new LogLimits()
    const limited = Effect.provideService(CurrentLogLimits, limits)

    const sample = Effect.map(Monotonic.millis, (now) => {
      eventLoopLag.begin(now)
      for (const chain of chains) chain.history.sample(now, chain.lag(now), chain.count(eventsPublished))
    })
    yield* Effect.all([sample, Progress.make(chains), limits.flush], { discard: true }).pipe(
      limited,
      Effect.catchDefect((defect) => logEvent("defect", "a defect in the work of each second", {}, defect)),
      Effect.andThen(Effect.map(Monotonic.millis, (now) => eventLoopLag.end(now))),
      // Not `fixed`, which samples twice within a millisecond when a timer fires early.
      Effect.repeat(Schedule.spaced(sampleEvery)),
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
