/** `chains`: lists the built-in chains. Needs no configuration. */
import { Effect } from "effect"
import { Command } from "effect/cli"
import { knownChains, variablePrefix } from "../config/Chains.ts"
import { jsonFlag } from "./Flags.ts"
import { writeLines } from "./Output.ts"

const rows = knownChains.map(({ name, id, blockTime, finalityDepth, publicEndpoints }) => ({
  name,
  id,
  block_time_s: blockTime / 1000,
  finality_depth: finalityDepth,
  has_public_endpoint: publicEndpoints.length > 0,
  variables: `${variablePrefix(name)}_…`,
}))

const renderText = rows.map(({ name, id, block_time_s: time, has_public_endpoint: isPublic, variables }) =>
  [
    name.padEnd(10),
    String(id).padStart(9),
    `block time ${time} s`.padEnd(22),
    (isPublic ? "public endpoints" : `needs ${variables.slice(0, -1)}WS_URL`).padEnd(24),
    variables,
  ].join("  "),
)

export const chains = Command.make(
  "chains",
  { json: jsonFlag("One JSON object per line and chain") },
  Effect.fnUntraced(function* ({ json }) {
    yield* writeLines(json ? rows.map((row) => JSON.stringify(row)) : renderText)
  }),
).pipe(
  Command.withDescription("List the built-in chains, which need no <NAME>_CHAIN_ID"),
  Command.withExamples([
    { command: "event-ingestor chains", description: "The names that CHAINS accepts" },
    { command: "event-ingestor chains --json", description: "The same as JSON" },
  ]),
)
