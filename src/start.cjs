#!/bin/sh
":" //; exec node --max-semi-space-size=16 --heap-growing-percent=300 "$(readlink -f "$0")" "$@"
/**
 * The first file: it has to load in any Node since 12, so that an old one is told so in one line instead of a stack trace.
 *
 * Line 2 is for the shell, and a directive without meaning for Node. An `env -S` would do the same where there is one
 * (BusyBox has none). The flags: 100 MB less under load, and less CPU at a small one (docs/decisions/0012).
 */
const { existsSync } = require("fs")
const { join } = require("path")

/** The oldest Node that the service runs on: `node:sqlite` without a flag, and what Effect needs. */
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
