/** Standard output that waits when the reader is slow and stops quietly when it goes away (`tail | head`). */
import { Effect } from "effect"
import { exitCode } from "../Process.ts"

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(exitCode.ok)
  throw error
})

/** Whether people read it: colours and live lines, unless `NO_COLOR` is set. */
export const colours = Boolean(process.stdout.isTTY) && !process.env["NO_COLOR"]

export const style = (code: number, text: string): string =>
  colours ? `\u001b[${code}m${text}\u001b[0m` : text

/** Writes lines and waits until there is room for more. */
export const writeLines = (lines: ReadonlyArray<string>): Effect.Effect<void> =>
  lines.length === 0
    ? Effect.void
    : Effect.callback<void>((resume) => {
        const done = () => resume(Effect.void)
        if (process.stdout.write(`${lines.join("\n")}\n`)) done()
        else process.stdout.once("drain", done)
      })
