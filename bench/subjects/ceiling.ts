import { Effect } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { Chain } from "../chain.ts"
import type { Load } from "../provider.ts"
import { verify } from "../store.ts"

/** Two connections with 100 commands in flight each: more of either is not faster. */
const pipeline = ["-c", "2", "-P", "100"]

/** The limit of Redis itself: `redis-benchmark` repeats one entry. In events a second. */
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
    // "test","rps",…: the test's name is the command, which contains quotes and commas.
    return Number(/","([\d.]+)","[\d.]+","[\d.]+","[\d.]+","[\d.]+","[\d.]+","[\d.]+"\s*$/.exec(stdout)![1])
  }).pipe(Effect.scoped)
