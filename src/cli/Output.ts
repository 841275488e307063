/** Standard output that waits when the reader is slow and is quiet when it goes away (`tail | head`). */
import { Effect } from "effect"

/** Whether people read it: colours and live lines, unless `NO_COLOR` is set. */
export const colours = Boolean(process.stdout.isTTY) && !process.env["NO_COLOR"]

export const style = (code: number, text: string): string =>
  colours ? `\u001b[${code}m${text}\u001b[0m` : text

/** A count for reading: `33 047`. */
export const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, " ")

/** A span of seconds for reading: `3 s`, `4 min`, `5 h`, `2 d`. */
export const span = (seconds: number): string => {
  if (seconds < 120) return `${Math.max(Math.round(seconds), 0)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`
}

let gone = false

/** Whether there is nobody any more who reads: no failure, and no reason to hide one. */
export const isUnread = (): boolean => gone

const onError = (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  gone = true
}

/** Writes lines and waits until there is room for more. */
export const writeLines = (lines: ReadonlyArray<string>): Effect.Effect<void> =>
  lines.length === 0 || gone
    ? Effect.void
    : Effect.callback<void>((resume) => {
        const { stdout } = process
        // Not before: the service's own log is not to be silent.
        if (stdout.listenerCount("error", onError) === 0) stdout.on("error", onError)
        const done = () => {
          stdout.off("drain", done).off("error", done)
          resume(Effect.void)
        }
        if (stdout.write(`${lines.join("\n")}\n`)) return done()
        stdout.once("drain", done)
        stdout.once("error", done)
        return Effect.sync(() => void stdout.off("drain", done).off("error", done))
      })
