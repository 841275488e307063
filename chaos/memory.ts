/** How much memory a service holds that is not garbage. */
import { Effect } from "effect"
import type { Process } from "../test/support/Service.ts"

/** What a service needs in its environment so that it can be asked. */
export const observed = {
  NODE_OPTIONS: `--expose-gc --import ${new URL("inside.ts", import.meta.url).href}`,
}

const asked = new WeakMap<Process, number>()

/** The resident memory of a running service without its garbage, in bytes. */
export const memoryOf = (process: Process): Effect.Effect<number> =>
  Effect.suspend(() => {
    const times = (asked.get(process) ?? 0) + 1
    asked.set(process, times)
    process.kill("SIGWINCH")
    return Effect.map(process.says(new RegExp(`memory ${times}: (\\d+) bytes`)), ([, bytes]) => Number(bytes))
  })
