/**
 * `node bench/commands.ts`: how many commands the service sends to Redis, and how many in a month. Some servers charge per
 * command. `test/unit/store/redis/RedisWire.test.ts` asserts the figures.
 */
import { Effect } from "effect"
import { emptyHead } from "../src/store/Journal.ts"
import { pushes } from "../src/store/Pushes.ts"
import { block, blocks } from "../test/support/blocks.ts"
import { counting } from "../test/support/commandCount.ts"
import * as RedisServer from "../test/support/RedisServer.ts"
import { openRedis, standalone } from "../test/support/redisStore.ts"

const chain = 1
const filter = "none"

const month = 30 * 24 * 3600

/** Seconds between two polls of the store, and the minimum between two finalizations. */
const pollInterval = 10
const finalizeInterval = 60

const measure = Effect.gen(function* () {
  const server = yield* RedisServer.start()
  const store = yield* openRedis(standalone(server.port), "events", 1000)
  const counts = yield* counting(server)
  const of = <A, E>(work: Effect.Effect<A, E>) =>
    Effect.gen(function* () {
      yield* counts.take
      yield* work
      const { wire, inside } = yield* counts.take
      return { wire: Object.values(wire).reduce((sum, one) => sum + one, 0), inside }
    })
  let at = emptyHead(1)
  const push = (logs: number) => {
    const next = block(at.number + 1, "a", logs, at.hash || undefined)
    const [move] = [...pushes(at, [next], false)]
    at = { number: next.number, hash: next.hash, part: 0 }
    return store.push(chain, filter, move!)
  }
  yield* push(1)
  const rows: Record<string, { readonly wire: number; readonly inside: number }> = {}
  for (const logs of [0, 1, 10, 100]) {
    // The cost of a block also depends on the block below it.
    yield* push(logs)
    rows[`a block of ${logs} logs`] = yield* of(push(logs))
  }
  const sparse = blocks(
    1,
    "b",
    Array.from({ length: 500 }, () => 2),
  )
  for (const [title, final] of [
    ["500 blocks of 2 logs, not final", false],
    ["500 blocks of 2 logs, final", true],
  ] as const) {
    const [move] = [...pushes(emptyHead(1), sparse, final)]
    rows[title] = yield* of(store.push(final ? 2 : 3, filter, move!))
  }
  const below = (yield* store.load(chain))!.window.at(-2)!
  rows["a block is finalized"] = yield* of(
    store.finalize(chain, filter, { _tag: "Finalize", expected: at, number: below.number, hash: below.hash }),
  )
  rows["a block of 100 logs is retracted"] = yield* of(
    store.pop(chain, filter, { _tag: "Pop", expected: at }),
  )
  // The first trim also writes the heartbeat.
  yield* store.trim(chain)
  rows["housekeeping, nothing to trim"] = yield* of(store.trim(chain))
  rows["statistics of a chain"] = yield* of(store.stats(chain))
  rows["info of the server"] = yield* of(store.info)
  rows["a probe, while writes fail"] = yield* of(store.ping(chain))
  return rows
})

const rows = await Effect.runPromise(Effect.scoped(measure))
console.table(rows)

const chainStats = rows["statistics of a chain"]!
const trim = rows["housekeeping, nothing to trim"]!
const server = rows["info of the server"]!
const finalized = rows["a block is finalized"]!
console.log(
  `every ${pollInterval} s: ${server.wire}, and ${chainStats.wire + trim.wire} + ${chainStats.inside + trim.inside} per chain`,
)
for (const logs of [0, 10, 100]) {
  const push = rows[`a block of ${logs} logs`]!
  const table: Record<string, Record<string, number>> = {}
  for (const seconds of [12, 2, 0.25]) {
    const sum = (what: "wire" | "inside") =>
      Math.round(
        (month / seconds) * push[what] +
          (month / finalizeInterval) * finalized[what] +
          (month / pollInterval) * (chainStats[what] + trim[what]),
      )
    table[`a block every ${seconds} s`] = {
      sent: sum("wire"),
      "including those in scripts": sum("wire") + sum("inside"),
    }
  }
  console.log(`one chain per month, ${logs} logs per block:`)
  console.table(table)
}
