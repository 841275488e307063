/** A checkpoint in Redis: at least once. */
import type { Checkpoint, ReaderId } from "../Checkpoint.ts"
import type { RedisClient } from "../RedisSource.ts"

/** Saves a position in place of the one that was loaded, which another process may have replaced since. */
const saving = `
if (redis.call("GET", KEYS[1]) or "") ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[2])
local removed = tonumber(ARGV[3])
for i = 4, 3 + removed do redis.call("HDEL", KEYS[2], ARGV[i]) end
for i = 4 + removed, #ARGV, 2 do redis.call("HSET", KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
`

/**
 * Stores the state in Redis, which cannot share a transaction with what the handler writes elsewhere: at least once. A handler
 * recognizes a repeated log by its `key`.
 *
 * @param client for these keys only: a client of `ioredis`
 * @param prefix of the keys `<prefix>:{<chain>:<name>}:…`
 */
export const redis = (client: RedisClient, prefix = "consumer"): Checkpoint<undefined> => {
  const keysOf = ({ name, chain }: ReaderId) => {
    const tag = `${prefix}:{${chain}:${name}}`
    return { position: `${tag}:position`, blocks: `${tag}:blocks`, letters: `${tag}:dead-letters` }
  }
  /** The positions that the open transactions have loaded. */
  const loaded = new Map<string, string>()
  return {
    atLeastOnce: true,
    transaction: (run) => run(undefined),
    load: async (_, reader) => {
      const { position } = keysOf(reader)
      const text = await client.get(position)
      loaded.set(position, text ?? "")
      return text === null ? undefined : JSON.parse(text)
    },
    blocks: async (_, reader) =>
      Object.entries(await client.hgetall(keysOf(reader).blocks))
        .map(([number, data]) => ({ number: Number(number), data }))
        .sort((a, b) => a.number - b.number),
    save: async (_, reader, { position, remove, put }) => {
      const keys = keysOf(reader)
      const text = JSON.stringify(position)
      const blocks = put.flatMap(({ number, data }) => [String(number), data])
      const args = [loaded.get(keys.position) ?? "", text, remove.length, ...remove, ...blocks]
      const isSaved = await client.eval(saving, 2, keys.position, keys.blocks, ...args)
      if (isSaved !== 1) throw new Error(`another process has moved the position of ${reader.name}`)
      loaded.set(keys.position, text)
    },
    deadLetter: async (_, reader, letter) => {
      await client.rpush(keysOf(reader).letters, JSON.stringify(letter))
    },
  }
}
