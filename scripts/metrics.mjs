/** Writes docs/METRICS.md from the definitions; with `--check` only says whether it is up to date. */
import { readFileSync, writeFileSync } from "node:fs"
import { definitions } from "../src/observability/Metrics.ts"
import { namesOf } from "../src/observability/MetricFamily.ts"

const path = "docs/METRICS.md"

const units = { 1: "", s: "seconds", By: "bytes" }

const code = (text) => `\`${text}\``

const row = ({ type, unit, labels, help, buckets, ...names }) =>
  `| ${namesOf(names).map(code).join(", also ")} | ${type} | ${units[unit] ?? unit.slice(1, -1)} | ${labels.map(code).join(", ")} | ${help}${
    buckets ? `. Buckets: ${buckets.join(", ")}` : ""
  } |`

export const text = `# Metrics

Made from the definitions that \`src/observability/Metrics.ts\` lists by \`npm run metrics\`. \`/metrics\` and OTLP say the same: names, types, labels. Every series of a
configured chain exists from the start, at 0. Labels are bounded: chain, endpoint _name_, method, error type; never a URL,
a hash or a height.

Names are in the namespace \`event_ingestor_\`. The seven of the original system have their bare names as well, with the
same figures. What any Node process reports has the name that Prometheus' client for Node gives it. The other names of
version 0.1 come for one version from the recording rules in \`deploy/prometheus/old-names.yaml\`; the table of both is in
[CHANGELOG.md](../CHANGELOG.md).

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
