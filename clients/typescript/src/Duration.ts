/** Durations in options. */
import { OptionError } from "./Errors.ts"

/** Milliseconds, or a number with a unit: `"200ms"`, `"10s"`, `"5m"`. */
export type Duration = number | `${number}${"ms" | "s" | "m"}`

const units = { ms: 1, s: 1000, m: 60_000 } as const

/** The milliseconds of a duration. */
export const millisecondsOf = (option: string, duration: Duration): number => {
  const [, number, unit = "ms"] = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(String(duration)) ?? []
  if (number === undefined) {
    throw new OptionError(
      `${option}: ${JSON.stringify(duration)} is no duration such as "200ms", "10s" or 500`,
    )
  }
  return Number(number) * units[unit as keyof typeof units]
}
