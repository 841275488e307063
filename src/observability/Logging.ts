/** The formats of the log: one line per event on standard output, with the event's own fields only. */
import { Cause, Layer, Logger, References } from "effect"
import type { Settings } from "../config/AppConfig.ts"

type Entry = Logger.Options<unknown>

const textOf = (value: unknown): string =>
  typeof value === "string"
    ? value
    : value instanceof Error
      ? (value.stack ?? String(value))
      : JSON.stringify(value)

/** The fields of a line in their order, without empty ones. */
const fieldsOf = ({ cause, date, fiber, logLevel, message }: Entry): Record<string, unknown> => {
  const { event, chain, endpoint, ...fields } = fiber.getRef(References.CurrentLogAnnotations)
  const all = {
    timestamp: date.toISOString(),
    level: logLevel.toUpperCase(),
    event,
    chain,
    endpoint,
    message: [message].flat().map(textOf).join(" "),
    ...fields,
    cause: cause.reasons.length > 0 ? Cause.pretty(cause) : undefined,
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined && value !== ""))
}

/** One JSON object per line. */
export const json = Logger.make((entry) => JSON.stringify(fieldsOf(entry)))

/** A logfmt value, quoted unless it is a single plain word. */
const quoted = (value: unknown): string => {
  const text = textOf(value)
  return /^[^\s"=\\]+$/.test(text) ? text : JSON.stringify(text)
}

/** `key=value` for each field. */
export const logfmt = Logger.make((entry) =>
  Object.entries(fieldsOf(entry))
    .map(([key, value]) => `${key}=${quoted(value)}`)
    .join(" "),
)

const colours: Readonly<Record<string, number>> = { WARN: 33, ERROR: 31, FATAL: 31, DEBUG: 90, TRACE: 90 }

/** For terminals: the time, the level, the chain, the text, and the endpoint if the text does not name it. */
export const pretty = (isColoured: boolean): Logger.Logger<unknown, string> =>
  Logger.make((entry) => {
    const { cause, chain, endpoint, level, message, timestamp } = fieldsOf(entry) as Record<string, string>
    const about = chain === undefined ? "" : `${chain}: `
    const where = endpoint === undefined || message?.includes(endpoint) ? "" : ` (${endpoint})`
    const line = `${timestamp!.slice(0, 19).replace("T", " ")}Z ${level!.padEnd(5)} ${about}${message}${where}`
    const colour = colours[level!]
    const shown = isColoured && colour !== undefined ? `\u001B[${colour}m${line}\u001B[0m` : line
    return cause === undefined ? shown : `${shown}\n${cause}`
  })

const isColoured = () => process.stdout.isTTY && !process.env["NO_COLOR"]

const loggers = {
  json: () => json,
  logfmt: () => logfmt,
  pretty: () => pretty(isColoured()),
}

/** Writes lines to standard output in the configured format, from the configured level up. */
export const layer = ({ format, level }: Settings["log"]): Layer.Layer<never> =>
  Layer.mergeAll(
    Logger.layer([Logger.withConsoleLog(loggers[format]())]),
    Layer.succeed(References.MinimumLogLevel, level),
  )
