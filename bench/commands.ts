/**
 * `node bench/commands.ts`: how many commands the service asks of a Redis, and in a month. Some servers are paid by the
 * command; `test/unit/store/redis/RedisWire.test.ts` holds the figures.
 */
import { Effect } from "effect"
import { emptyHead, pushes } from "../src/store/Journal.ts"
import { block, blocks } from "../test/support/blocks.ts"
import { counting } from "../test/support/commandCount.ts"
import * as RedisServer from "../test/support/RedisServer.ts"
import { openRedis, standalone } from "../test/support/redisStore.ts"

const chain = 1
const filter = "none"

const month = 30 * 24 * 3600

/** Seconds between two looks of the service, and between two moves of the floor at least. */
const lookInterval = 10
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
    // What a block costs depends on the one below, too.
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
  rows["the floor is raised"] = yield* of(
    store.finalize(chain, filter, { _tag: "Finalize", expected: at, number: below.number, hash: below.hash }),
  )
  rows["a block of 100 logs is undone"] = yield* of(store.pop(chain, filter, { _tag: "Pop", expected: at }))
  // The first one says that the ingestor is alive.
  yield* store.trim(chain)
  rows["a look for what to trim"] = yield* of(store.trim(chain))
  rows["a look at a chain"] = yield* of(store.stats(chain))
  rows["a look at the server"] = yield* of(store.info)
  rows["a probe, while writes fail"] = yield* of(store.ping(chain))
  return rows
})

const rows = await Effect.runPromise(Effect.scoped(measure))
console.table(rows)

const look = rows["a look at a chain"]!
const trim = rows["a look for what to trim"]!
const server = rows["a look at the server"]!
const raised = rows["the floor is raised"]!
console.log(
  `every ${lookInterval} s: ${server.wire}, and ${look.wire + trim.wire} + ${look.inside + trim.inside} for each chain`,
)
for (const logs of [0, 10, 100]) {
  const push = rows[`a block of ${logs} logs`]!
  const table: Record<string, Record<string, number>> = {}
  for (const seconds of [12, 2, 0.25]) {
    const sum = (what: "wire" | "inside") =>
      Math.round(
        (month / seconds) * push[what] +
          (month / finalizeInterval) * raised[what] +
          (month / lookInterval) * (look[what] + trim[what]),
      )
    table[`a block every ${seconds} s`] = {
      sent: sum("wire"),
      "with those in scripts": sum("wire") + sum("inside"),
    }
  }
  console.log(`a chain in a month, ${logs} logs a block:`)
  console.table(table)
}
