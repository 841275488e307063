/** The error counters of a service: the proof that a fault reached it. */
import { Effect, Schedule } from "effect"
import type { ErrorType } from "../src/endpoint/EndpointError.ts"
import { fetchFrom } from "../test/support/http.ts"
import type { Process } from "../test/support/Service.ts"

/** How many errors of these types a chain of the service has had so far. Dies if the service does not show them. */
export const errorsOf = (
  process: Process,
  chain: string,
  ...types: ReadonlyArray<ErrorType>
): Effect.Effect<number, Error> =>
  Effect.gen(function* () {
    const { status, text } = yield* fetchFrom(yield* process.port, "/metrics")
    let sum = 0
    for (const type of types) {
      const series = new RegExp(
        `^event_ingestor_event_processing_errors_total\\{chain="${chain}",error_type="${type}"[^}]*\\} (\\d+)`,
        "m",
      ).exec(text)
      if (series === null) return yield* Effect.die(new Error(`no errors of type ${type}: HTTP ${status}`))
      sum += Number(series[1])
    }
    return sum
  })

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
