/** The content of a run's Redis: its size during the run, and its correctness at the end. */
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { checksumOf, entryNames } from "./chain.ts"
import type { Contents } from "./chain.ts"

export const keyOf = (chain: number): string => `events:${chain}`

/** Entries in all streams. */
export const lengthOf = async (redis: Redis, chains: ReadonlyArray<number>): Promise<number> => {
  const lengths = await Promise.all(chains.map((chain) => redis.xlen(keyOf(chain))))
  return lengths.reduce((sum, length) => sum + length, 0)
}

/** CPU seconds of the server so far. */
export const redisCpuSeconds = async (redis: Redis): Promise<number> => {
  const info = await redis.info("cpu")
  const read = (field: string) => Number(new RegExp(`^${field}:([\\d.]+)`, "m").exec(info)![1])
  return read("used_cpu_sys") + read("used_cpu_user")
}

const page = 2000

/** A position that rises from log to log: height, then index. */
const positionOf = (values: ReadonlyArray<string>) =>
  Number(values[entryNames.indexOf("block_number")]) * 1e6 + Number(values[entryNames.indexOf("log_index")])

type Entries = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

/**
 * Counts all entries of the streams. An entry counts by its compared fields, whatever else it carries; an entry out of order
 * does not count.
 */
export const contentsOf = async (redis: Redis, chains: ReadonlyArray<number>): Promise<Contents> => {
  let count = 0
  let checksum = 0
  for (const chain of chains) {
    let before = -1
    for (let from = "-"; ;) {
      const entries = (await redis.xrange(keyOf(chain), from, "+", "COUNT", page)) as Entries
      for (const [, fields] of entries) {
        const values: Array<string> = []
        for (let i = 0; i < 2 * entryNames.length; i += 2) values.push(fields[i + 1]!)
        const place = positionOf(values)
        if (place <= before) continue
        before = place
        count++
        checksum += checksumOf(values)
      }
      if (entries.length < page) break
      from = `(${entries.at(-1)![0]}`
    }
  }
  return { count, checksum }
}

/** Dies unless the store holds exactly what it should: speed by loss does not count. */
export const verify = (what: string, held: Contents, expected: Contents): Effect.Effect<void> =>
  held.count === expected.count && held.checksum === expected.checksum
    ? Effect.void
    : Effect.die(
        new Error(
          `${what}: the store holds ${held.count} entries (checksum ${held.checksum}) instead of ${expected.count} (${expected.checksum})`,
        ),
      )
