/** `npm run bounds -- --seconds 600`: Redis is away for so many seconds of 5 000 logs each; prints what was measured. */
import { spawnSync } from "node:child_process"
import { parseArgs } from "node:util"

const { values } = parseArgs({ options: { seconds: { type: "string", default: "600" } } })
if (!/^[1-9]\d{0,4}$/.test(values.seconds)) {
  console.error(`--seconds: a whole number from 1 on, not "${values.seconds}"`)
  process.exit(64)
}
const { status } = spawnSync("vitest", ["run", "test/system/bounds.test.ts"], {
  stdio: "inherit",
  env: { ...process.env, BOUNDS_SECONDS: values.seconds, BOUNDS_FIGURES: "1" },
})
process.exit(status ?? 1)
