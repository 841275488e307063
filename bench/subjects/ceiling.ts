import { Effect } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { Chain } from "../chain.ts"
import type { Load } from "../provider.ts"
import { verify } from "../store.ts"

/** Two connections with 100 commands on their way each: more of either is not faster. */
const pipeline = ["-c", "2", "-P", "100"]

/** What Redis itself can do: the same entry again and again by `redis-benchmark`, in events a second. */
export const ceiling = (load: Load, events: number): Effect.Effect<number> =>
  Effect.gen(function* () {
    const redis = yield* RedisServer.start()
    const entry = new Chain(load.chains[0]!, { ...load.shape, logs: 1 }).sampleEntry()
    const args = ["-p", String(redis.port), ...pipeline, "-n", String(events), "--csv"]
    const { stdout } = yield* Effect.promise(() =>
      promisify(execFile)("redis-benchmark", [...args, "XADD", "events:ceiling", "*", ...entry]),
    )
    const count = yield* Effect.promise(() => redis.client.xlen("events:ceiling"))
    yield* verify("ceiling", { count, checksum: 0 }, { count: events, checksum: 0 })
    // "test","rps",…: the test's name is the command, which has quotes and commas of its own.
    return Number(/","([\d.]+)","[\d.]+","[\d.]+","[\d.]+","[\d.]+","[\d.]+","[\d.]+"\s*$/.exec(stdout)![1])
  }).pipe(Effect.scoped)
