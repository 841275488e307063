/** `npm run simulate -- --seeds 10000 --first 1`: the simulation for a night, or one seed of it again. */
import { spawnSync } from "node:child_process"
import { parseArgs } from "node:util"

const count = (name, value) => {
  if (/^[1-9]\d{0,8}$/.test(value)) return value
  console.error(`--${name}: a whole number from 1 on, not "${value}"`)
  process.exit(64)
}
const { values } = parseArgs({
  options: { seeds: { type: "string", default: "10000" }, first: { type: "string", default: "1" } },
})
const { status } = spawnSync("vitest", ["run", "test/system/simulation.test.ts", "-t", "virtual time"], {
  stdio: "inherit",
  env: {
    ...process.env,
    SIMULATION_SEEDS: count("seeds", values.seeds),
    SIMULATION_FIRST: count("first", values.first),
  },
})
process.exit(status ?? 1)
