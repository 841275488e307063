/** `chains`: lists the built-in chains. Needs no configuration. */
import { Command } from "effect/cli"
import { knownChains, variablePrefix } from "../config/Chains.ts"
import type { KnownChain } from "../config/Chains.ts"
import { jsonFlag, withExamples } from "./Flags.ts"
import { writeRecords } from "./Output.ts"

const rowOf = ({ name, id, blockTime, finalityDepth, publicEndpoints }: KnownChain) => ({
  name,
  id,
  block_time_s: blockTime / 1000,
  finality_depth: finalityDepth,
  has_public_endpoint: publicEndpoints.length > 0,
  variables: `${variablePrefix(name)}_…`,
})

const renderText = ({ name, id, block_time_s, has_public_endpoint, variables }: ReturnType<typeof rowOf>) =>
  [
    name.padEnd(10),
    String(id).padStart(9),
    `block time ${block_time_s} s`.padEnd(22),
    (has_public_endpoint ? "public endpoints" : `needs ${variables.slice(0, -1)}WS_URL`).padEnd(24),
    variables,
  ].join("  ")

export const chains = Command.make(
  "chains",
  { json: jsonFlag("One JSON object per line and chain") },
  ({ json }) => writeRecords(knownChains.map(rowOf), json, renderText),
).pipe(
  Command.withDescription("List the built-in chains, which need no <NAME>_CHAIN_ID"),
  withExamples({
    "event-ingestor chains": "The names that CHAINS accepts",
    "event-ingestor chains --json": "The same as JSON",
  }),
)
