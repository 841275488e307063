/** The calls of `fleet.lua`, and the keys that it works on. */
import { Effect } from "effect"
import type { Duration } from "effect"
import { createHash } from "node:crypto"
import type { ChainConfig, RedisConfig } from "../config/AppConfig.ts"
import { fingerprint } from "../logs/Filter.ts"
import * as RedisConnection from "../store/redis/RedisConnection.ts"
import type { View } from "./Fleet.ts"
import type { Answer, FleetStorageOptions } from "./FleetStorage.ts"
import * as Sharding from "./Sharding.ts"

/** Calls the fleet's script. */
export type Call = FleetStorageOptions["call"]

/** All that changes a journal. Replicas that differ in it are two fleets, each of which follows all of its chains. */
const identityOf = ({ name, id, filter, events, startBlock, ...rest }: ChainConfig): string =>
  JSON.stringify([
    name,
    id,
    fingerprint(filter),
    events ?? null,
    startBlock,
    rest.confirmations,
    rest.finality,
    rest.finalityDepth,
    rest.logsBloom,
  ])

/** The beginning of a fleet's keys. Its hash tag keeps them in one slot of a Cluster. */
export const keyPrefix = (prefix: string, fleet: string, chains: ReadonlyArray<ChainConfig>): string => {
  const identities = chains.map(identityOf).toSorted()
  const digest = createHash("sha256").update(identities.join("\n")).digest("hex").slice(0, 8)
  return `{${prefix}:fleet:${fleet}:${digest}}`
}

/** A connection that calls the fleet's script on the keys with this prefix. */
export const makeCall = (config: RedisConfig, keys: string, timeout: Duration.Duration) =>
  Effect.map(
    RedisConnection.make(config, timeout),
    ({ command }): Call =>
      (operation, ...args) =>
        command(
          `fleet ${operation}`,
          (client) =>
            client.fleet(`${keys}:members`, `${keys}:holds`, `${keys}:reports`, ...args) as Promise<Answer>,
        ),
  )

/** Reads who is present, and who follows which chain. */
export const list = (call: Call, chains: ReadonlyArray<string>) => {
  const shards = Sharding.shardsOf(chains)
  const chainOf = new Map([...shards].map(([chain, shard]) => [`default:${shard}`, chain]))
  return Effect.map(
    call("list", "list", "0", "", ""),
    ([held, present]): Pick<View, "members" | "holders"> => {
      const holders = held.flatMap((line) => {
        const [shard = "", ...who] = line.split(" ")
        const chain = chainOf.get(shard)
        return chain === undefined ? [] : [[chain, who.join(" ").replace(/:1$/, "")] as const]
      })
      return { members: present.map(Sharding.nameIn).toSorted(), holders: new Map(holders) }
    },
  )
}
