/** What INFO says of one server, or of all masters of a cluster. */
import { Cluster } from "ioredis"
import { evictsStreams } from "../StoreAdmin.ts"
import type { Info } from "../StoreAdmin.ts"
import type { Client } from "./RedisConnection.ts"

/** The INFO of each master. In a cluster at least one must answer. */
export const infos = async (client: Client): Promise<ReadonlyArray<string>> => {
  if (!(client instanceof Cluster)) return [await client.info()]
  const answers = await Promise.allSettled(client.nodes("master").map((node) => node.info()))
  const texts = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []))
  const refused = answers.find((answer) => answer.status === "rejected")
  if (texts.length === 0) throw refused?.reason ?? new Error("no master of the cluster is known")
  return texts
}

/** Parses the `key:value` lines of INFO. */
const fieldsOf = (text: string): Record<string, string> =>
  Object.fromEntries(
    text.split("\r\n").flatMap((line) => {
      const at = line.indexOf(":")
      return at > 0 ? [[line.slice(0, at), line.slice(at + 1)]] : []
    }),
  )

const memoryUse = (master: Record<string, string>) =>
  Number(master["maxmemory"]) === 0 ? 0 : Number(master["used_memory"]) / Number(master["maxmemory"])

/** Aggregates several masters: the memory of the fullest, the most dangerous policy, the weakest persistence. */
export const infoOf = (texts: ReadonlyArray<string>): Info => {
  const masters = texts.map(fieldsOf)
  const fullest = masters.reduce((one, other) => (memoryUse(other) > memoryUse(one) ? other : one))
  const policies = masters.map((master) => master["maxmemory_policy"])
  const haveAof = masters.every((master) => master["aof_enabled"] === "1")
  const { valkey_version: valkey, redis_version: redis } = fullest
  return {
    version: valkey === undefined ? `redis ${redis}` : `valkey ${valkey}`,
    bytes: Number(fullest["used_memory"]),
    limit: Number(fullest["maxmemory"]),
    evictionPolicy: policies.find(evictsStreams) ?? fullest["maxmemory_policy"],
    persistence: haveAof ? "append-only file" : "snapshots only, if any (no append-only file)",
  }
}

/** What is known of a server whose user may not run INFO. */
export const withheldInfo: Info = {
  version: "redis (its user may not run INFO)",
  bytes: undefined,
  limit: undefined,
  evictionPolicy: undefined,
  persistence: undefined,
}
