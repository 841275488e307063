/** Tries each Redis command that the service uses: managed servers lack some, and users lack rights. */
import { Effect } from "effect"
import { clientName } from "./RedisConnection.ts"
import type { Client, RedisConnection } from "./RedisConnection.ts"
import { reasonOf } from "./RedisErrors.ts"
import { StoreError } from "../StoreError.ts"
import type { Refused } from "../StoreAdmin.ts"

/** The commands that the service can do without, and what does not work then. All others are required for writing. */
const consequences: Readonly<Record<string, string>> = {
  INFO: "version, memory, eviction policy and persistence are not shown, and none of them raises an alert",
  "CLIENT SETNAME": "connections have no name in CLIENT LIST",
  XINFO:
    "consumer groups and their lag are not shown, what trimming takes from them is not counted, and a stream that was restored from an older copy is not noticed",
  "MEMORY USAGE": "the bytes of a stream are not shown",
  HINCRBY: "what trimming takes from consumers is not counted",
  cjson: "what trimming takes from readers is not counted",
  "redis.acl_check_cmd":
    "each move first calls its commands in a form that changes nothing, and a missing right to XADD fails only the move itself",
  DEL: "`event-ingestor reset` fails, and the commands of moves could not be checked",
}

const suffixes = ["stream", "head", "window", "missed", "readers", "filters"]

/**
 * Tries all commands. The script that writes test keys also deletes them.
 *
 * @param key the prefix of keys that nothing else uses, in the slot of the stream
 */
export const refusedOf = Effect.fnUntraced(function* (
  command: RedisConnection["command"],
  key: string,
  stream: string,
) {
  const found = new Map<string, Refused>()
  const add = (name: string, detail: string) => {
    if (!found.has(name)) found.set(name, { name, detail, lost: consequences[name] })
  }
  const attempt = (name: string, send: (client: Client) => Promise<unknown>) =>
    Effect.catchIf(
      Effect.asVoid(command(`check of ${name}`, send)),
      ({ reason }) => reason === "refused",
      ({ detail }) => Effect.sync(() => add(name, detail)),
    )
  yield* attempt("EVAL", (client) => client.eval("return 1", 1, stream))
  yield* attempt("EVALSHA", (client) =>
    client.evalsha("0".repeat(40), 1, stream).catch((error: Error) => {
      if (!error.message.startsWith("NOSCRIPT")) throw error
    }),
  )
  yield* attempt("XRANGE", (client) => client.xrange(stream, "-", "+", "COUNT", 1))
  yield* attempt("XREVRANGE", (client) => client.xrevrange(stream, "+", "-", "COUNT", 1))
  yield* attempt("INFO", (client) => client.info())
  yield* attempt("CLIENT SETNAME", (client) => client.client("SETNAME", clientName))
  if (found.has("EVAL") || found.has("EVALSHA")) return [...found.values()]
  const failed = yield* command(
    "check of the move commands",
    (client) =>
      client.check(...suffixes.map((suffix) => `${key}:${suffix}`)) as Promise<ReadonlyArray<string>>,
  )
  for (let i = 0; i < failed.length; i += 2) {
    const [name, detail] = failed.slice(i, i + 2) as [string, string]
    const reason = reasonOf(detail)
    if (reason !== "refused") return yield* new StoreError({ operation: `check of ${name}`, reason, detail })
    add(name, detail)
  }
  return [...found.values()]
})
