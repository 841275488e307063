/** The recorded streams, on a real Redis: a reader sees exactly the changes that each of them lists. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { changes } from "../../clients/typescript/src/Changes.ts"
import { memory } from "../../clients/typescript/src/checkpoints/Memory.ts"
import { ConsumerError } from "../../clients/typescript/src/Errors.ts"
import type { Finality } from "../../clients/typescript/src/Plan.ts"
import * as RedisServer from "../support/RedisServer.ts"

const directory = join(import.meta.dirname, "../fixtures/streams")

type Change = readonly [
  kind: string,
  number: number,
  hash: string,
  logs: ReadonlyArray<number>,
  finalized: boolean,
]

type Line =
  | { readonly op: "stream"; readonly about: string }
  | {
      readonly op: "append"
      readonly entries: ReadonlyArray<readonly [id: string, fields: Readonly<Record<string, string>>]>
      readonly head: Readonly<Record<string, string>>
    }
  | { readonly op: "trim"; readonly lowest: string }
  | { readonly op: "restore" }
  | ({ readonly op: "expect" } & Readonly<Record<string, ReadonlyArray<Change> | { readonly error: string }>>)

const linesOf = (name: string): ReadonlyArray<Line> =>
  readFileSync(join(directory, name), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))

const finalityOf = (text: string): Finality => (text === "2" ? 2 : (text as "latest" | "finalized"))

/** Reads until a look at the stream that begins after this call finds nothing, and returns what it saw. */
const readAll = async (url: string, finality: Finality, checkpoint: ReturnType<typeof memory>) => {
  const seen: Array<Change> = []
  const done = new AbortController()
  let quiet = 0
  let timer: NodeJS.Timeout | undefined
  try {
    const iteration = changes({
      redis: url,
      chain: 1,
      name: `reader-${finality}`,
      from: "earliest",
      finality,
      checkpoint,
      signal: done.signal,
      onProgress: () => void (quiet = 0),
      onWarning: (warning) => {
        throw warning
      },
    })
    // A reader that has nothing to do says so by its progress, which does not change any more.
    timer = setInterval(() => ++quiet > 3 && done.abort(), 50)
    for await (const { type, block, commit } of iteration) {
      quiet = 0
      seen.push([type, block.number, block.hash, block.logs.map(({ index }) => index), block.finalized])
      await commit()
    }
    return seen
  } catch (error) {
    if (error instanceof ConsumerError) return { error: error.code }
    throw error
  } finally {
    clearInterval(timer)
  }
}

describe("a reader of a recorded stream sees exactly its changes", () => {
  for (const file of readdirSync(directory)) {
    const lines = linesOf(file)
    const [first] = lines
    const about = first?.op === "stream" ? first.about : ""
    it.live(
      `${file.replace(".jsonl", "")}: ${about}`,
      () =>
        Effect.gen(function* () {
          const { client, url } = yield* RedisServer.start()
          const checkpoints = { latest: memory(), finalized: memory(), "2": memory() }
          for (const line of lines) {
            if (line.op === "restore") yield* Effect.promise(() => client.del("events:1", "{events:1}:head"))
            if (line.op === "trim")
              yield* Effect.promise(() => client.xtrim("events:1", "MINID", line.lowest))
            if (line.op === "append") {
              const all = client.multi()
              for (const [id, fields] of line.entries)
                all.xadd("events:1", id, ...Object.entries(fields).flat())
              all.del("{events:1}:head").hset("{events:1}:head", line.head)
              yield* Effect.promise(() => all.exec())
            }
            if (line.op !== "expect") continue
            const results = yield* Effect.forEach(
              Object.entries(checkpoints),
              ([name, checkpoint]) =>
                Effect.map(
                  Effect.promise(() => readAll(url, finalityOf(name), checkpoint)),
                  (seen) => [name, seen] as const,
                ),
              { concurrency: 3 },
            )
            for (const [name, seen] of results)
              assert.deepStrictEqual(seen, line[name] as typeof seen, `finality ${name}`)
          }
        }).pipe(Effect.scoped),
      60_000,
    )
  }
})
