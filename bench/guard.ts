/**
 * `npm run guard`: fails when an event costs the service 15 % more CPU than recorded, relative to the bare loop in the same
 * run.
 *
 * It compares the CPU per event of the two, not absolute times, so it works on any machine. They take turns, and the median
 * of the rounds' ratios counts. bench/README.md says how often the result is wrong.
 */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { parseArgs } from "node:util"
import { load, throughput } from "./run.ts"
import { median } from "./statistics.ts"
import { bare } from "./subjects/bare.ts"
import { ours } from "./subjects/ours.ts"

/** CPU of the bare loop as a share of ours, when this constant was last updated: `npm run guard` prints it. */
const recorded = 0.49
const tolerated = 0.15

const rounds = 5
/** Blocks of 200 logs on four chains, with bloom equality: the load exercises every check. */
const work = load(200, 300, 4)

const { values } = parseArgs({ options: { times: { type: "string", default: "1" } } })

const share = Effect.gen(function* () {
  const shares: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    const barely = yield* throughput(bare, work)
    shares.push(barely.cpu / (yield* throughput(ours, work)).cpu)
  }
  const share = median(shares)
  const change = share / recorded - 1
  console.log(
    `CPU of bare as a share of ours: ${share.toFixed(3)} (${shares.map((one) => one.toFixed(2)).join(", ")}), ` +
      `recorded ${recorded}: ${change < 0 ? "−" : "+"}${Math.abs(change * 100).toFixed(0)} %`,
  )
  return share
})

execFileSync(process.execPath, ["scripts/build.mjs"], { stdio: "inherit" })
const shares = await Effect.runPromise(Effect.replicateEffect(share, Number(values.times)))
const failed = shares.filter((one) => one < recorded * (1 - tolerated)).length
if (shares.length > 1) console.log(`${failed} of ${shares.length} runs failed`)
if (failed > 0) {
  console.log(`an event costs more CPU than recorded: the limit is −${tolerated * 100} %`)
  process.exitCode = 1
}
