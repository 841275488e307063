/** The memory of a service without its garbage. */
import { Effect } from "effect"
import type { Process } from "../test/support/Service.ts"

/** The environment that a service needs for these measurements. */
export const observed = {
  NODE_OPTIONS: `--expose-gc --import ${new URL("inside.ts", import.meta.url).href}`,
}

const measurements = new WeakMap<Process, number>()

/** The resident memory of a running service without its garbage, in bytes. */
export const memoryOf = (process: Process): Effect.Effect<number> =>
  Effect.suspend(() => {
    const times = (measurements.get(process) ?? 0) + 1
    measurements.set(process, times)
    process.kill("SIGWINCH")
    return Effect.map(process.says(new RegExp(`memory ${times}: (\\d+) bytes`)), ([, bytes]) => Number(bytes))
  })
