import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { directory } from "../../test/support/directory.ts"
import { flagsOf } from "../../test/support/Service.ts"
import { start } from "../child.ts"
import { base } from "../chain.ts"
import type { Subject, SubjectOptions } from "./Subject.ts"

/** The environment of the service: it follows the provider's chains into the Redis of the run. */
export const variables = ({
  redisPort,
  providerPort,
  chains,
  env,
}: SubjectOptions): Record<string, string> => ({
  REDIS_URL: `redis://127.0.0.1:${redisPort}`,
  CHAINS: chains.map((id) => `bench-${id}`).join(","),
  ...Object.fromEntries(
    chains.flatMap((id) => [
      [`BENCH_${id}_CHAIN_ID`, String(id)],
      [`BENCH_${id}_WS_URL`, `ws://127.0.0.1:${providerPort}/${id}`],
    ]),
  ),
  START_BLOCK: String(base + 1),
  // Everything that was written is compared afterwards, so nothing may be trimmed.
  STREAM_MAXLEN: "0",
  HTTP_PORT: "0",
  LOG_LEVEL: "warn",
  ...env,
})

const main = new URL("../../dist/start.cjs", import.meta.url)

/** The flags with which the service runs Node: those of the source, which the build copies. */
export const nodeFlags = flagsOf(fileURLToPath(new URL("../../src/start.cjs", import.meta.url)))

/** The built service with these variables, from a file: 10 000 addresses are too long for an environment variable. */
export const startService = Effect.fnUntraced(function* (variables: Readonly<Record<string, string>>) {
  const cwd = yield* directory
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}\n`)
  writeFileSync(join(cwd, ".env"), lines.join(""))
  return yield* start(main, [], {}, { nodeArgs: nodeFlags, cwd })
})

/** The built service, with all checks, metrics and breakers on. */
export const ours: Subject = {
  name: "ours",
  start: (where) => startService(variables(where)),
}
