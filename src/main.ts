#!/usr/bin/env -S node --max-semi-space-size=16 --heap-growing-percent=300
/**
 * The process: an old Node is told so in one line before anything else is loaded, and then the command runs.
 *
 * The first line: 100 MB less under load, and less CPU at a small one (docs/decisions/0012).
 */
import { tooOld } from "./NodeVersion.ts"

const problem = tooOld(process.versions.node)
if (problem === undefined) {
  const { main } = await import("./commands/main.ts")
  main(process.argv.slice(2))
} else {
  process.stderr.write(`${problem}\n`)
  process.exitCode = 78
}
