/**
 * What each replica reports about the chains that it follows, so that any replica can show them all. It is written all the time,
 * and read only when it is asked for.
 */
import { Duration, Effect, Option, Schema, Semaphore } from "effect"
import * as Monotonic from "../Monotonic.ts"
import { version } from "../Version.ts"
import type { Call } from "./FleetScript.ts"
import { times } from "./Sharding.ts"

/** An older report says nothing about a chain (milliseconds). */
const validFor = 10_000
/** The reports are not read again within this time (milliseconds). */
const readInterval = 1000
/** A silent Redis must not delay `/status`. */
const readTimeout = "500 millis"

/** A report of another version may have other fields. */
const decode = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ version: Schema.Literal(version), report: Schema.Unknown })),
)

interface Known {
  readonly report: unknown
  /** Monotonic milliseconds. */
  readonly until: number
}

/** The reports of a fleet. @param isReachable whether Redis answers: nothing is sent while it does not */
export const make = (call: Call, isReachable: () => boolean) => {
  const reading = Semaphore.makeUnsafe(1)
  let known = new Map<string, Known>()
  let readSince = -Infinity

  const load = Effect.gen(function* () {
    const [found] = yield* call("reports", "reports", String(validFor), "", "")
    const now = yield* Monotonic.millis
    known = new Map()
    for (let i = 0; i < found.length; i += 3) {
      const [chain, age, text] = found.slice(i, i + 3)
      const decoded = decode(text)
      if (Option.isSome(decoded))
        known.set(chain!, { report: decoded.value.report, until: now + validFor - Number(age) })
    }
  })
  const refresh = Effect.gen(function* () {
    const now = yield* Monotonic.millis
    if (!isReachable() || now - readSince < readInterval) return
    readSince = now
    yield* Effect.ignore(Effect.timeoutOption(load, readTimeout))
  })

  return {
    /** Writes the reports of these chains, as one command. */
    publish: (reports: ReadonlyMap<string, unknown>): Effect.Effect<void> => {
      if (reports.size === 0 || !isReachable()) return Effect.void
      const fields = [...reports].flatMap(([chain, report]) => [chain, JSON.stringify({ version, report })])
      const ttl = String(Duration.toMillis(times.ttl))
      return Effect.ignore(call("report", "report", ttl, "", "", ...fields))
    },
    /** The reports of all chains that are not out of date, by chain. */
    read: Effect.gen(function* (): Effect.fn.Return<ReadonlyMap<string, unknown>> {
      yield* reading.withPermit(refresh)
      const now = yield* Monotonic.millis
      const valid = [...known].filter(([, { until }]) => now < until)
      return new Map(valid.map(([chain, { report }]) => [chain, report]))
    }),
  }
}
