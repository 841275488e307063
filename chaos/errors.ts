/** The error counters of a service: the proof that a fault reached it. */
import { Effect, Schedule } from "effect"
import type { ErrorType } from "../src/endpoint/EndpointError.ts"
import { fetchFrom } from "../test/support/http.ts"
import type { Process } from "../test/support/Service.ts"

/** How many errors of these types a chain of the service has had so far. */
export const errorsOf = (
  process: Process,
  chain: string,
  ...types: ReadonlyArray<ErrorType>
): Effect.Effect<number, Error> =>
  Effect.map(
    Effect.flatMap(process.port, (port) => fetchFrom(port, "/metrics")),
    ({ text }) =>
      types.reduce((sum, type) => {
        const series = new RegExp(
          `^event_ingestor_event_processing_errors_total\\{chain="${chain}",error_type="${type}"[^}]*\\} (\\d+)`,
          "m",
        )
        return sum + Number(series.exec(text)?.[1] ?? NaN)
      }, 0),
  )

/** Waits until a chain of the service is halted. */
export const untilHalted = (process: Process, chain: string): Effect.Effect<void, Error> =>
  Effect.flatMap(process.port, (port) => fetchFrom(port, "/metrics")).pipe(
    Effect.repeat({
      until: ({ text }) => text.includes(`\nevent_ingestor_chain_halted{chain="${chain}"} 1\n`),
      schedule: Schedule.spaced("20 millis"),
    }),
    Effect.asVoid,
  )

/** Inflicts harm, and waits until more errors of these types are counted. */
export const untilCounted = <A, E, R>(
  harm: Effect.Effect<A, E, R>,
  errors: Effect.Effect<number, Error>,
): Effect.Effect<void, E | Error, R> =>
  Effect.gen(function* () {
    const before = yield* errors
    yield* harm
    yield* Effect.repeat(errors, {
      until: (count) => count > before,
      schedule: Schedule.spaced("20 millis"),
    })
  })
