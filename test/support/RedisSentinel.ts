/** A Sentinel that promotes the replica of a server soon after the server has ended. */
import { Effect, Schedule } from "effect"
import { Redis } from "ioredis"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { directory } from "./directory.ts"
import * as RedisServer from "./RedisServer.ts"

/** By which name it knows the server. */
export const name = "main"

/** Watches a server, which gets a replica. */
export const start = Effect.fnUntraced(function* (master: RedisServer.RedisServer) {
  const replica = yield* RedisServer.start(["--replicaof", "127.0.0.1", String(master.port)])
  const port = yield* RedisServer.freePort
  const place = yield* directory
  const file = join(place, "sentinel.conf")
  writeFileSync(
    file,
    [
      `port ${port}`,
      `dir ${place}`,
      `sentinel monitor ${name} 127.0.0.1 ${master.port} 1`,
      `sentinel down-after-milliseconds ${name} 500`,
      `sentinel failover-timeout ${name} 2000`,
    ].join("\n"),
  )
  yield* Effect.acquireRelease(RedisServer.spawnServer([file, "--sentinel"]), RedisServer.endProcess)
  const sentinel = yield* Effect.acquireRelease(
    Effect.sync(() => new Redis({ port })),
    (client) => Effect.sync(() => client.disconnect()),
  )
  const replicas = Effect.promise(
    () => sentinel.call("SENTINEL", "REPLICAS", name) as Promise<Array<unknown>>,
  )
  return {
    port,
    replica,
    /** Waits until it knows the replica, which it can then promote. */
    knowsReplica: Effect.repeat(replicas, {
      until: ({ length }) => length === 1,
      schedule: Schedule.spaced("100 millis"),
    }),
  }
})
