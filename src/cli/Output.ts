/** Standard output with back-pressure; writes nothing more once the reader closes the pipe (`tail | head`). */
import { Effect } from "effect"

/** Whether standard output is a terminal without `NO_COLOR`: then lines are coloured. */
const colours = Boolean(process.stdout.isTTY) && !process.env["NO_COLOR"]

export const style = (code: number, text: string): string =>
  colours ? `\u001b[${code}m${text}\u001b[0m` : text

/** Whether lines can be redrawn in place: on a terminal that moves its cursor. */
export const canRedraw = (stream: NodeJS.WriteStream): boolean =>
  Boolean(stream.isTTY) && process.env["TERM"] !== "dumb"

/** Formats a count: `33 047`. */
export const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, " ")

/** Formats a duration in seconds: `3 s`, `4 min`, `5 h`, `2 d`. @param day the unit of days */
export const span = (seconds: number, day = "d"): string => {
  if (seconds < 120) return `${Math.max(Math.round(seconds), 0)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} ${day}`
}

let isClosed = false

/** Whether the reader has closed the pipe: this is no failure by itself and hides none. */
export const isOutputClosed = (): boolean => isClosed

const onError = (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  isClosed = true
}

/** Writes lines and waits until the stream has taken them. */
export const writeLines = (lines: ReadonlyArray<string>): Effect.Effect<void> =>
  lines.length === 0 || isClosed
    ? Effect.void
    : Effect.callback<void>((resume) => {
        const { stdout } = process
        // Registered only here: EPIPE must not silence the service's own log.
        if (stdout.listenerCount("error", onError) === 0) stdout.on("error", onError)
        stdout.write(`${lines.join("\n")}\n`, (error) => {
          if (error) onError(error)
          resume(Effect.void)
        })
      })

/** Writes records, as one line of JSON each or as text. */
export const writeRecords = <A>(
  records: ReadonlyArray<A>,
  json: boolean,
  renderText: (record: A) => string | ReadonlyArray<string>,
): Effect.Effect<void> =>
  writeLines(json ? records.map((record) => JSON.stringify(record)) : records.flatMap(renderText))
