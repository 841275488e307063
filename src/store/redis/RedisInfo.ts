/** What INFO says of one server, or of all masters of a cluster. */
import { Cluster } from "ioredis"
import { evictsStreams } from "../StoreAdmin.ts"
import type { Client } from "./RedisConnection.ts"

/** Parses the `key:value` lines of INFO. */
export const infoOf = (text: string): Record<string, string> =>
  Object.fromEntries(
    text.split("\r\n").flatMap((line) => {
      const at = line.indexOf(":")
      return at > 0 ? [[line.slice(0, at), line.slice(at + 1)]] : []
    }),
  )

/** The INFO of each master. In a cluster at least one must answer. */
export const infos = async (client: Client): Promise<ReadonlyArray<string>> => {
  if (!(client instanceof Cluster)) return [await client.info()]
  const answers = await Promise.allSettled(client.nodes("master").map((node) => node.info()))
  const texts = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []))
  const refused = answers.find((answer) => answer.status === "rejected")
  if (texts.length === 0) throw refused?.reason ?? new Error("no master of the cluster is known")
  return texts
}

/** Aggregates several masters: the memory of the fullest, the most dangerous policy, the weakest persistence. */
export const worstOf = (masters: ReadonlyArray<Record<string, string>>): Record<string, string> => {
  const memoryUse = (info: Record<string, string>) =>
    Number(info["maxmemory"]) === 0 ? 0 : Number(info["used_memory"]) / Number(info["maxmemory"])
  const fullest = masters.reduce((one, other) => (memoryUse(other) > memoryUse(one) ? other : one))
  const unsafe = masters.find((info) => evictsStreams(info["maxmemory_policy"]))
  const withoutAof = masters.find((info) => info["aof_enabled"] !== "1")
  return {
    ...fullest,
    ...(unsafe && { maxmemory_policy: unsafe["maxmemory_policy"]! }),
    ...(withoutAof && { aof_enabled: "0" }),
  }
}

export const persistenceOf = (info: Record<string, string>): string =>
  info["aof_enabled"] === "1" ? "append-only file" : "snapshots only, if any (no append-only file)"
