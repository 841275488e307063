#!/bin/sh
":" //; exec node --max-semi-space-size=16 --no-allocation-site-pretenuring --expose-gc "$(readlink -f "$0")" "$@"
/**
 * The executable. It must load in any Node since 12, so that an old Node gets one clear line instead of a stack trace.
 *
 * Line 2 is a command for the shell, and a directive without effect for Node. `env -S` would do the same but does not
 * exist in BusyBox. The flags save memory and CPU, under load and without (docs/decisions/0012).
 */
const { existsSync } = require("fs")
const { join } = require("path")

/** The oldest supported Node: `node:sqlite` works without a flag, and Effect runs. */
const oldest = [22, 19]

const [major, minor] = process.versions.node.split(".").map(Number)

if (major > oldest[0] || (major === oldest[0] && minor >= oldest[1])) {
  import(existsSync(join(__dirname, "main.js")) ? "./main.js" : "./main.ts")
} else {
  process.stderr.write(
    `event-ingestor needs Node ${oldest.join(".")} or newer, this is ${process.versions.node}: install a newer one, or run npm ci without --ignore-scripts, which brings one for npm start\n`,
  )
  process.exitCode = 78
}
