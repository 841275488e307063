/**
 * Writes the table of variables in docs/CONFIGURATION.md and all of `.env.example` from the definitions in `src/config`; with `--check` it
 * only checks that they are up to date.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { sections } from "../src/config/AppConfig.ts"

/** The prefix of a variable's name in the documents. */
const prefixes = { chain: "<NAME>_", "chain or all": "<NAME>_" }

const cell = (text) => text.replaceAll("|", "\\|")

const row = ({ prefix }, { name, default: text, shownDefault, meaning }) => {
  const shown = shownDefault ?? (text === undefined ? "" : `\`${text}\``)
  return `| \`${prefixes[prefix] ?? ""}${name}\` | ${cell(shown)} | ${cell(meaning)} |`
}

const table = `| variable | default | meaning |
|---|---|---|
${sections.flatMap((section) => section.variables.map((variable) => row(section, variable))).join("\n")}
`

/** A comment, wrapped between words. */
const comment = (text) => text.replaceAll(/(.{1,118})(?:\s+|$)/g, "# $1\n").trimEnd()

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`

/** A chain that is not built in needs both. */
const beside = { CHAIN_ID: "\n# DEVNET_WS_URL=ws://127.0.0.1:8545" }

/** The chain whose variables are shown. */
const chainOf = { CHAIN_ID: "DEVNET_", WS_URL: "ETHEREUM_", RPC_URL: "ETHEREUM_" }

const example = ({ prefix }, { name, default: text, shownDefault, example, meaning }) => {
  const before = prefix === "chain" ? chainOf[name] : ""
  const shown = shownDefault === undefined ? "" : ` Default: ${shownDefault}.`
  return `${comment(`${sentence(meaning)}${shown}`)}\n# ${before}${name}=${text ?? example ?? ""}${beside[name] ?? ""}`
}

const intro = {
  chain:
    "The prefix is the chain's name, in capitals and with _ for -: ethereum reads ETHEREUM_…, arbitrum-nova ARBITRUM_NOVA_…, the id 4242 CHAIN_4242_….",
  "chain or all":
    "Without a prefix, these variables set the default for all chains; with a chain's prefix (ETHEREUM_START_BLOCK) they apply to that chain.",
}

const dotEnv = `# All variables. Copy this file to .env and uncomment what you need; process variables take precedence over the file, and an
# empty value counts as unset. A secret may also come from a file: set <NAME>_FILE=/run/secrets/… instead. The values shown
# are the defaults, where there are any. Generated from src/config by \`npm run config\`.

# -- For docker-compose.yml only

# What is started beside the ingestor and its Redis, comma-separated: \`observability\` (Collector, Prometheus, Tempo and Grafana),
# \`fleet\` (two more replicas), \`devnet\` (a local chain with traffic).
COMPOSE_PROFILES=observability

# Where the ingestors of the stack send telemetry. Remove it together with \`observability\`, or name a Collector of your own.
STACK_OTLP_ENDPOINT=http://otel-collector:4318

# The password of Grafana's user \`admin\`. There is no default.
GRAFANA_PASSWORD=
${sections
  .map((section) =>
    [
      `\n# -- ${section.title}`,
      ...(section.prefix === undefined ? [] : [comment(intro[section.prefix])]),
      ...section.variables.map((variable) => example(section, variable)),
    ].join("\n\n"),
  )
  .join("\n")}
`

const [begin, end] = [
  "<!-- variables: generated from src/config by `npm run config` -->\n",
  "<!-- /variables -->",
]
const path = "docs/CONFIGURATION.md"
const page = readFileSync(path, "utf8")
const [from, to] = [page.indexOf(begin) + begin.length, page.indexOf(end)]
if (from < begin.length || to < from) throw new Error(`${path} has no place for the table of variables`)

const files = {
  [path]: `${page.slice(0, from)}\n${table}\n${page.slice(to)}`,
  ".env.example": dotEnv,
}

if (process.argv.includes("--check")) {
  const outdated = Object.entries(files).filter(([path, text]) => readFileSync(path, "utf8") !== text)
  for (const [path] of outdated) console.error(`${path} is out of date: npm run config`)
  if (outdated.length > 0) process.exit(1)
} else for (const [path, text] of Object.entries(files)) writeFileSync(path, text)
