/** Writes docs/METRICS.md from the definitions; with `--check` only says whether it is up to date. */
import { readFileSync, writeFileSync } from "node:fs"
import { definitions } from "../src/Metrics.ts"

const path = "docs/METRICS.md"

const units = { 1: "", s: "seconds", By: "bytes" }

const row = ({ name, type, unit, labels, help, buckets }) =>
  `| \`${name}\` | ${type} | ${units[unit] ?? unit.slice(1, -1)} | ${labels.map((label) => `\`${label}\``).join(", ")} | ${help}${
    buckets ? `. Buckets: ${buckets.join(", ")}` : ""
  } |`

export const text = `# Metrics

Made from \`src/Metrics.ts\` by \`npm run metrics\`. \`/metrics\` and OTLP say the same: names, types, labels. Every series of a
configured chain exists from the start, at 0. Labels are bounded: chain, endpoint _name_, method, error type; never a URL,
a hash or a height.

| name | type | unit | labels | |
|---|---|---|---|---|
${definitions.map(row).join("\n")}
`

if (process.argv.includes("--check")) {
  if (readFileSync(path, "utf8") !== text) {
    console.error(`${path} is out of date: npm run metrics`)
    process.exit(1)
  }
} else writeFileSync(path, text)
