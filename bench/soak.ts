/**
 * `npm run soak`: ten minutes of a steady load on four chains, and the slope of the service's memory. The heap size after
 * a forced collection would be more precise, but services do not run like that; a flat line over many minutes is enough.
 */
import { Effect } from "effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { parseArgs } from "node:util"
import { now, residentMemory } from "./child.ts"
import type { Load } from "./provider.ts"
import { goalsOf } from "./goals.ts"
import type { Results } from "./results.ts"
import { running } from "./run.ts"
import { slope } from "./statistics.ts"
import { ours } from "./subjects/ours.ts"

const { values } = parseArgs({ options: { minutes: { type: "string", default: "10" } } })
const minutes = Number(values.minutes)

const perSecond = 10_000
const logs = 100
/** The share of the time until V8's old generation reaches its full size: three minutes at this load. */
const settling = 0.4

const load: Load = {
  chains: [900_001, 900_002, 900_003, 900_004],
  shape: { logs, bloom: true },
  history: 0,
  // The last heads come after the end.
  blocks: Math.ceil(((minutes + 1) * 60 * perSecond) / logs / 4),
  pace: perSecond / logs,
}

const soak = Effect.gen(function* () {
  const { provider, pid } = yield* running(ours, load, { STREAM_MAXLEN: "100000" })
  return yield* Effect.promise(async () => {
    await provider.subscribed
    provider.order("go")
    const since = now()
    const points: Array<readonly [minute: number, megabytes: number]> = []
    for (;;) {
      await sleep(1000)
      const minute = (now() - since) / 60_000
      if (minute >= minutes) return points
      points.push([minute, residentMemory(pid)])
      if (points.length % 60 === 0)
        console.error(`${minute.toFixed(1)} min: ${points.at(-1)![1].toFixed(0)} MB`)
    }
  })
}).pipe(Effect.scoped)

const points = await Effect.runPromise(soak)
const settled = points.filter(([minute]) => minute >= minutes * settling)
const rising = slope(settled)
console.log(
  `${minutes} min at ${perSecond} events/s: from ${settled[0]![1].toFixed(0)} to ${settled.at(-1)![1].toFixed(0)} MB, ${rising.toFixed(2)} MB/min`,
)

const file = new URL("results.json", import.meta.url)
if (existsSync(file)) {
  const results: Results = { ...(JSON.parse(readFileSync(file, "utf8")) as Results), slope: rising }
  results.goals = goalsOf(results)
  writeFileSync(file, `${JSON.stringify(results, undefined, 2)}\n`)
}
