#!/usr/bin/env node
/**
 * The process: an old Node is told so in one line before anything else is loaded, and then the command runs.
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
