/** The command line on a pseudo-terminal, by `script` of util-linux. */
import { Effect } from "effect"
import { once } from "node:events"
import * as Service from "./Service.ts"
import { shell } from "./shell.ts"

export interface Size {
  readonly columns: number
  readonly rows: number
}

// oxlint-disable-next-line no-control-regex -- escape sequences begin with a control character
const sequences = /\u001b\[[?\d;]*[a-zA-Z]/g

/** A text without its escape sequences. */
export const plain = (text: string): string => text.replaceAll(sequences, "")

/** Runs a command on a terminal of this size. */
export const onTerminal = Effect.fnUntraced(function* (
  args: ReadonlyArray<string>,
  env: Record<string, string>,
  { columns, rows }: Size,
) {
  const command = `stty cols ${columns} rows ${rows}; exec node ${[Service.main, ...args].join(" ")}`
  const { child, output, says } = yield* shell(
    `exec script --quiet --return --command '${command}' /dev/null`,
    {
      TERM: "xterm",
      ...env,
    },
  )
  const closed = once(child, "close")
  return {
    /** Everything it has written so far, with escape sequences. */
    output,
    /** Waits until it has written something that matches. */
    says,
    /** Types keys. */
    types: (keys: string) => Effect.sync(() => void child.stdin.write(keys)),
    exit: Effect.promise(() => closed.then(([code]) => code as number)),
  }
})
