/** `chains`: lists the built-in chains. Needs no configuration. */
import { Command } from "effect/cli"
import { knownChains, variablePrefix } from "../config/Chains.ts"
import type { KnownChain } from "../config/Chains.ts"
import { jsonFlag, withExamples } from "./Flags.ts"
import { writeLines, writeRecords } from "./Output.ts"
import { table } from "./Table.ts"
import type { Column } from "./Table.ts"

const rowOf = ({ name, id, blockTime, finalityDepth, publicEndpoints }: KnownChain) => ({
  name,
  id,
  block_time_s: blockTime / 1000,
  finality_depth: finalityDepth,
  has_public_endpoint: publicEndpoints.length > 0,
  variables: `${variablePrefix(name)}_…`,
})

const columns: ReadonlyArray<Column> = [
  { title: "name" },
  { title: "chain id", isNumber: true },
  { title: "block time", isNumber: true },
  { title: "finality" },
  { title: "variables" },
  { title: "endpoint" },
]

const cellsOf = (chain: ReturnType<typeof rowOf>): ReadonlyArray<string> => [
  chain.name,
  String(chain.id),
  `${chain.block_time_s} s`,
  `tag, else ${chain.finality_depth} blocks`,
  chain.variables,
  chain.has_public_endpoint ? "public" : `needs ${variablePrefix(chain.name)}_WS_URL`,
]

export const chains = Command.make(
  "chains",
  { json: jsonFlag("One JSON object per line and chain") },
  ({ json }) => {
    const rows = knownChains.map(rowOf)
    return json
      ? writeRecords(rows, true, () => [])
      : writeLines(table(columns, rows.map(cellsOf), process.stdout.columns))
  },
).pipe(
  Command.withDescription("List the built-in chains, which need no <NAME>_CHAIN_ID"),
  withExamples({
    "event-ingestor chains": "The names that CHAINS accepts, and how the variables of each chain begin",
    "event-ingestor chains --json": "The same as JSON",
  }),
)
