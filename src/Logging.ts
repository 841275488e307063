/** Where log lines go and what they look like. */
import { Layer, Logger, References } from "effect"
import type { Settings } from "./Config.ts"

const loggers = {
  json: Logger.consoleJson,
  logfmt: Logger.consoleLogFmt,
  pretty: Logger.consolePretty(),
}

/** Writes lines to standard output as the configuration says. */
export const layer = ({ format, level }: Settings["log"]): Layer.Layer<never> =>
  Layer.mergeAll(Logger.layer([loggers[format]]), Layer.succeed(References.MinimumLogLevel, level))
