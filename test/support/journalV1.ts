/**
 * The store of version 0.1: the same Redis keys, written by its scripts (`test/fixtures/journal-v1`), which have neither
 * part digests nor epochs.
 */
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { readFileSync } from "node:fs"
import type { Hex } from "../../src/Domain.ts"
import type { Position } from "../../src/store/Journal.ts"
import { pack } from "../../src/store/redis/MessagePack.ts"
import type { Client } from "./ingestor.ts"

type Reply = ReadonlyArray<string | number>

const source = (name: string) =>
  readFileSync(new URL(`../fixtures/journal-v1/${name}.lua`, import.meta.url), "utf8")

const place = ({ number, hash, part }: Position) => [String(number), hash, String(part)]

/**
 * @param redis where the scripts run
 * @param current a store on the same data, for operations that the scripts do not cover
 */
export const journalV1 = (redis: Redis, current: Client, prefix = "events"): Client => {
  const script = (name: string, chain: number, ...args: ReadonlyArray<string | Buffer>) => {
    const key = `{${prefix}:${chain}}`
    const keys = [`${prefix}:${chain}`, `${key}:head`, `${key}:window`]
    return Effect.promise(
      () => redis.eval(`${source("journal")}\n${source(name)}`, 3, ...keys, ...args) as Promise<Reply>,
    )
  }
  const declined = ([answer, number, hash, part]: Reply) => {
    if (answer === "filter") return { _tag: "FilterChanged", filter: String(number) } as const
    const head =
      hash === undefined ? undefined : { number: Number(number), hash: hash as Hex, part: Number(part) }
    return { _tag: "Conflict", head } as const
  }
  return {
    ...current,
    load: (chain) =>
      Effect.map(current.load(chain), (journal) => {
        if (journal === undefined) return undefined
        const { digest: _, ...head } = journal.head
        return { ...journal, head }
      }),
    push: (chain, filter, { expected, blocks, final }) => {
      const about = blocks.flatMap(({ number, hash, parentHash, timestamp, whole, logs }) => [
        String(number),
        hash,
        parentHash,
        String(timestamp),
        whole ? "1" : "0",
        "",
        String(logs.length),
      ])
      // One by one: version 1 has the transaction hash of each log.
      const packed = Buffer.concat(blocks.flatMap(({ logs }) => logs.map((log) => pack([{ logs: [log] }]))))
      const args = [filter, ...place(expected), String(chain), "0", final ? "1" : "0", String(blocks.length)]
      return Effect.map(script("push", chain, ...args, packed, ...about), (reply) => {
        if (reply[0] === "pushed") return { _tag: "Pushed" }
        return reply[0] === "duplicate" ? { _tag: "Duplicate" } : declined(reply)
      })
    },
    pop: (chain, filter, { expected }) =>
      Effect.map(script("pop", chain, filter, ...place(expected), String(current.limits.logs)), (reply) =>
        reply[0] === "popped"
          ? { _tag: "Popped", removed: Number(reply[1]), missing: Number(reply[2]) }
          : declined(reply),
      ),
    finalize: (chain, filter, { expected, number, hash }) =>
      Effect.map(script("finalize", chain, filter, ...place(expected), String(number), hash, "0"), (reply) =>
        reply[0] === "finalized" ? { _tag: "Finalized" } : declined(reply),
      ),
    changeFilter: (chain, filter) => Effect.as(script("takeover", chain, filter), "changed" as const),
    trim: (chain) =>
      Effect.map(script("trim", chain, "0"), (reply) => ({ dropped: Number(reply), holder: undefined })),
  }
}
