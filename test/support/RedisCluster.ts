/** A Redis Cluster of three masters, each with a replica that takes its place soon after it has ended. */
import { Effect, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import type { RedisConfig } from "../../src/config/AppConfig.ts"
import * as RedisServer from "./RedisServer.ts"
import { standalone } from "./redisStore.ts"

type Role = readonly [role: string, host: string, port: number, state: string]

const roleOf = ({ client }: RedisServer.RedisServer) =>
  Effect.promise(() => client.role() as unknown as Promise<Role>)

/** Waits until a node is a master. */
export const promoted = (node: RedisServer.RedisServer) =>
  Effect.repeat(roleOf(node), {
    until: ([role]) => role === "master",
    schedule: Schedule.spaced("50 millis"),
  })

/** Waits until a node is a replica that has what its master has. */
export const replicates = (node: RedisServer.RedisServer) =>
  Effect.repeat(roleOf(node), {
    until: ([role, , , state]) => role === "slave" && state === "connected",
    schedule: Schedule.spaced("50 millis"),
  })

/** The first three nodes that are started are the masters. */
export const start = Effect.gen(function* () {
  const options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
  const nodes = yield* Effect.replicateEffect(RedisServer.start(options), 6)
  const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
  const create = ["--cluster", "create", ...addresses, "--cluster-replicas", "1", "--cluster-yes"]
  execFileSync("redis-cli", create, { stdio: "ignore" })
  const masters = nodes.slice(0, 3)
  const replicas = nodes.slice(3)
  yield* Effect.forEach(replicas, replicates)
  const config: RedisConfig = standalone(nodes[0]!.port, {
    mode: "cluster",
    nodes: nodes.map(({ port }) => ({ host: "127.0.0.1", port })),
  })
  return {
    config,
    url: nodes.map(({ url }) => url).join(),
    /** The replica of a master. */
    replicaOf: (master: RedisServer.RedisServer) =>
      Effect.gen(function* () {
        for (const replica of replicas) if ((yield* roleOf(replica))[2] === master.port) return replica
        return yield* Effect.die(new Error(`the node at port ${master.port} has no replica`))
      }),
    /** The master that holds a key of this name, and all keys that it holds. */
    holderOf: (name: RegExp) =>
      Effect.gen(function* () {
        for (const master of masters) {
          const keys = yield* Effect.promise(() => master.client.keys("*"))
          if (keys.some((key) => name.test(key))) return { master, keys }
        }
        return yield* Effect.die(new Error(`no master holds a key like ${name}`))
      }),
  }
})
