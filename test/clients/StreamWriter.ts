/** Writes a stream as the ingestor does: by the scripts of its store, on a real Redis. */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { Block, Filter } from "../../src/Domain.ts"
import { description, fingerprint } from "../../src/logs/Filter.ts"
import { callLimits, emptyHead } from "../../src/store/Journal.ts"
import { pushes } from "../../src/store/Pushes.ts"
import { block } from "../support/blocks.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"

/** The stream of chain 1. Blocks are named by their number and fork: `7a`. */
export interface StreamWriter extends RedisServer.RedisServer {
  readonly push: (blocks: ReadonlyArray<string | Block>, final?: boolean) => Promise<void>
  /** Removes blocks until the head is at this number or below. */
  readonly popTo: (number: number) => Promise<void>
  readonly finalize: (name: string) => Promise<void>
  readonly trim: () => Promise<void>
  /** Continues with another filter, as a restarted ingestor does. */
  readonly changeFilter: (filter: Filter) => Promise<void>
}

/** The block of a name. @param logs how many logs it has */
export const named = (name: string, logs = 2): Block => {
  const [, number, fork] = /^(\d+)([a-z]+)$/.exec(name)!
  return block(Number(number), fork!, logs)
}

/** Starts a Redis with an empty stream. @param keep how many entries are kept; 0: all */
export const start = Effect.fnUntraced(function* (
  args: ReadonlyArray<string> = [],
  keep = 0,
): Effect.fn.Return<StreamWriter, never, Scope.Scope> {
  const server = yield* RedisServer.start(args)
  const store = yield* openRedis(standalone(server.port), "events", keep, "10 seconds", {
    ...callLimits,
    bytes: 1e8,
  })
  let filter = "none"
  const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(effect)
  const head = async () => (await run(store.load(1)))?.head
  const assertDone = ({ _tag }: { readonly _tag: string }) => {
    if (["Conflict", "FilterChanged", "Paused"].includes(_tag)) throw new Error(_tag)
  }
  return {
    ...server,
    push: async (names, final = false) => {
      const blocks = names.map((name) => (typeof name === "string" ? named(name) : name))
      const position = (await head()) ?? emptyHead(blocks[0]!.number)
      for (const push of pushes(position, blocks, final)) assertDone(await run(store.push(1, filter, push)))
    },
    popTo: async (number) => {
      for (let at = (await head())!; at.number > number; at = (await head())!)
        assertDone(await run(store.pop(1, filter, { _tag: "Pop", expected: at })))
    },
    finalize: async (name) => {
      const { number, hash } = named(name)
      const expected = (await head())!
      assertDone(await run(store.finalize(1, filter, { _tag: "Finalize", expected, number, hash })))
    },
    trim: async () => void (await run(store.trim(1))),
    changeFilter: async (next) => {
      filter = fingerprint(next)
      await run(store.changeFilter(1, filter, description(next)))
    },
  }
})
