/**
 * `node bench/retention.ts`: the cost of housekeeping for Redis (64 chains with 20 groups each, trimmed every second), and
 * the memory of a backfill of two million entries that keeps 50 000, compared with a stream that never had more.
 */
import { Effect } from "effect"
import { emptyHead } from "../src/store/Journal.ts"
import { pushes } from "../src/store/Pushes.ts"
import type { Position } from "../src/store/Journal.ts"
import type { Store } from "../src/store/Store.ts"
import { afterPush } from "../src/store/Journal.ts"
import { block } from "../test/support/blocks.ts"
import * as RedisServer from "../test/support/RedisServer.ts"
import { openRedis, standalone } from "../test/support/redisStore.ts"

const logsPerBlock = 1000
const filter = "none"

/** Pushes blocks of final logs until this many entries were added. `most`: called with the memory after each push. */
const fill = Effect.fnUntraced(function* (
  store: Store,
  chain: number,
  entries: number,
  onBlock: Effect.Effect<void>,
) {
  let at: Position = emptyHead(1)
  for (let number = 1; number <= entries / logsPerBlock; number++) {
    const next = block(number, "a", logsPerBlock, at.hash || undefined)
    for (const move of pushes(at, [next], true)) {
      yield* store.push(chain, filter, move)
      at = afterPush(move)
    }
    yield* onBlock
  }
})

const infoOf = (server: RedisServer.RedisServer, section: string, field: string) =>
  Effect.promise(async () => {
    const text = await server.client.info(section)
    return Number(new RegExp(`^${field}:([\\d.]+)`, "m").exec(text)?.[1] ?? 0)
  })

const cpuOf = (server: RedisServer.RedisServer) =>
  Effect.zipWith(
    infoOf(server, "cpu", "used_cpu_user"),
    infoOf(server, "cpu", "used_cpu_sys"),
    (user, system) => user + system,
  )

const memory = Effect.gen(function* () {
  const keep = 50_000
  const bare = yield* RedisServer.start()
  const before = yield* infoOf(bare, "memory", "used_memory")
  yield* fill(yield* openRedis(standalone(bare.port), "events", 0), 1, keep, Effect.void)
  const kept = (yield* infoOf(bare, "memory", "used_memory")) - before
  const server = yield* RedisServer.start()
  let most = 0
  const store = yield* openRedis(standalone(server.port), "events", keep)
  yield* fill(
    store,
    1,
    2_000_000,
    Effect.map(
      infoOf(server, "memory", "used_memory"),
      (used) => void (most = Math.max(most, used - before)),
    ),
  )
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`
  console.log(
    `2 000 000 entries with STREAM_MAXLEN=${keep}: at most ${megabytes(most)}, ${(most / kept).toFixed(2)} times the ${megabytes(kept)} of ${keep} entries`,
  )
}).pipe(Effect.scoped)

const housekeeping = Effect.gen(function* () {
  const chains = Array.from({ length: 64 }, (_, i) => i + 1)
  const server = yield* RedisServer.start()
  const keep = 2000
  const store = yield* openRedis(standalone(server.port), "events", {
    maxLength: keep,
    groups: ["group-0"],
    backlog: keep * 4,
  })
  for (const chain of chains) {
    const groups = server.client.pipeline()
    for (let i = 0; i < 20; i++) groups.xgroup("CREATE", `events:${chain}`, `group-${i}`, "0", "MKSTREAM")
    yield* Effect.promise(() => groups.exec())
    yield* fill(store, chain, keep + 1000, Effect.void)
  }
  const rounds = 200
  const trimAll = Effect.forEach(chains, (chain) => store.trim(chain), { discard: true })
  const cost = Effect.fnUntraced(function* (title: string) {
    yield* trimAll
    const before = yield* cpuOf(server)
    for (let i = 0; i < rounds; i++) yield* trimAll
    const used = (yield* cpuOf(server)) - before
    console.log(
      `${title}: ${((used / rounds) * 100).toFixed(2)} % of a core, ${((used / rounds / chains.length) * 1e6).toFixed(0)} µs per trim`,
    )
  })
  yield* cost("64 chains, 20 groups, a pinned one delays trimming, every second")
  for (const chain of chains)
    yield* Effect.promise(() => server.client.xgroup("DESTROY", `events:${chain}`, "group-0"))
  yield* trimAll
  yield* cost("64 chains, 19 groups, nothing to trim, every second")
}).pipe(Effect.scoped)

await Effect.runPromise(Effect.scoped(Effect.andThen(housekeeping, memory)))
