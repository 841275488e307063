/** A checkpoint in Redis: at least once. */
import type { Checkpoint, ReaderId } from "../Checkpoint.ts"
import type { RedisClient } from "../RedisSource.ts"

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
  const done = async (replies: Promise<Array<[error: Error | null, result: unknown]> | null>) => {
    for (const [error] of (await replies) ?? []) if (error) throw error
  }
  return {
    atLeastOnce: true,
    transaction: (run) => run(undefined),
    load: async (_, reader) => {
      const text = await client.get(keysOf(reader).position)
      return text === null ? undefined : JSON.parse(text)
    },
    blocks: async (_, reader) =>
      Object.entries(await client.hgetall(keysOf(reader).blocks))
        .map(([number, data]) => ({ number: Number(number), data }))
        .sort((a, b) => a.number - b.number),
    save: async (_, reader, { position, remove, put }) => {
      const keys = keysOf(reader)
      const all = client.multi()
      if (remove.length > 0) all.hdel(keys.blocks, ...remove.map(String))
      for (const { number, data } of put) all.hset(keys.blocks, String(number), data)
      await done(all.set(keys.position, JSON.stringify(position)).exec())
    },
    deadLetter: async (_, reader, letter) => {
      await client.rpush(keysOf(reader).letters, JSON.stringify(letter))
    },
  }
}
