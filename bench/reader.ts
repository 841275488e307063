/**
 * When each block becomes readable: a blocked `XREAD` on all streams, as a consumer has it.
 *
 * A block is readable when its last entry is. Each wake-up returns one entry and is followed by a read of the newest entry
 * of that stream, so that the reader costs the same for any block size and never falls behind unnoticed: blocks that it
 * missed count as readable at the time of the read that returns a later one.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { Redis } from "ioredis"
import { base } from "./chain.ts"
import { now } from "./child.ts"
import { keyOf } from "./store.ts"

type Entry = readonly [id: string, fields: ReadonlyArray<string>]

/** `[number of the block, index of the log]` */
const positionOf = ([, fields]: Entry) =>
  [
    Number(fields[fields.indexOf("block_number") + 1]),
    Number(fields[fields.indexOf("log_index") + 1]),
  ] as const

/** For each chain, when its block at `base + 1 + i` was readable (milliseconds, the clock of `now`). */
export const follow = (
  port: number,
  chains: ReadonlyArray<number>,
  logsPerBlock: number,
): Effect.Effect<ReadonlyArray<ReadonlyArray<number>>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const connect = Effect.acquireRelease(
      Effect.sync(() => {
        const redis = new Redis({ port })
        redis.on("error", () => {})
        return redis
      }),
      (redis) => Effect.sync(() => redis.disconnect()),
    )
    const blocked = yield* connect
    const newestClient = yield* connect
    const readable = chains.map((): Array<number> => [])
    const last = chains.map(() => "0-0")
    const keys = chains.map(keyOf)

    const readNewest = async (i: number) => {
      const [newest] = (await newestClient.xrevrange(keys[i]!, "+", "-", "COUNT", 1)) as unknown as [Entry]
      const at = now()
      const [number, index] = positionOf(newest)
      last[i] = newest[0]
      const through = index === logsPerBlock - 1 ? number : number - 1
      for (let block = base + 1 + readable[i]!.length; block <= through; block++) readable[i]!.push(at)
    }

    const read = async () => {
      for (;;) {
        const found = await blocked.xread("COUNT", 1, "BLOCK", 0, "STREAMS", ...keys, ...last)
        for (const [key] of found as ReadonlyArray<readonly [string, unknown]>)
          await readNewest(keys.indexOf(key))
      }
    }
    // Ends when its connection is closed.
    read().catch(() => {})
    return readable
  })
