/** The traffic to Redis: within the limits of managed servers, and few commands, as they are billed per command. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { Scope } from "effect"
import type { Block, Hex } from "../../../../src/Domain.ts"
import { callLimits, emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import type { Push } from "../../../../src/store/Journal.ts"
import { block, blocks } from "../../../support/blocks.ts"
import { counting } from "../../../support/commandCount.ts"
import { FakeChain } from "../../../support/FakeChain.ts"
import { FakeNode } from "../../../support/FakeNode.ts"
import type { Client } from "../../../support/ingestor.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, pollStore, standalone } from "../../../support/redisStore.ts"
import * as Service from "../../../support/Service.ts"
import * as TcpProxy from "../../../support/TcpProxy.ts"
import { RedisRequests, wordsOf } from "../../../support/wire.ts"

const chain = 31337
const filter = "none"

/** The limit of ElastiCache Serverless, the lowest documented one: it refuses requests with more arguments. */
const mostArguments = 3999

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

/** The pushes of one run, divided as a writer does. */
const pushAll = Effect.fnUntraced(function* (store: Client, all: ReadonlyArray<Block>, final = false) {
  const head = (yield* store.load(chain))?.head ?? emptyHead(1)
  const moves = [...pushes(head, all, final)]
  for (const move of moves) assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Pushed")
  return moves
})

const logsOf = ({ blocks }: Push) => blocks.reduce((sum, { logs }) => sum + logs.length, 0)

describe("the traffic to Redis", () => {
  test(
    "stays within the argument limit of managed servers and the byte limit of a push [G-147]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const proxy = yield* TcpProxy.start(server.port, { cutters: { client: () => new RedisRequests() } })
      const seen: Array<{ readonly words: number; readonly bytes: number }> = []
      proxy.tap((data, from) => {
        if (from === "client") seen.push({ words: wordsOf(data).length, bytes: data.length })
        return data
      })
      const most = (what: "words" | "bytes") =>
        seen.splice(0).reduce((highest, one) => Math.max(highest, one[what]), 0)
      const store = yield* openRedis(standalone(proxy.port), "events", 5000)
      // The largest case: every block has logs, each with its parent and time, and traces are on.
      const sparse = blocks(
        1,
        "sparse",
        Array.from({ length: 1200 }, () => 2),
      ).map((one) => ({
        ...one,
        traceparent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
      }))
      const moves = yield* pushAll(store, sparse)
      assert.deepStrictEqual(
        moves.map((move) => [move.blocks.length, logsOf(move)]),
        [
          [500, 1000],
          [500, 1000],
          [200, 400],
        ],
      )
      // EVAL with the script, or EVALSHA; the number of keys, 6 keys, 13 arguments, and 7 of each block.
      assert.strictEqual(most("words"), 3 + 6 + 13 + 7 * 500)
      assert.isBelow(3 + 6 + 13 + 7 * callLimits.blocks, mostArguments)

      const full = block(1201, "full", 1000, sparse.at(-1)!.hash)
      const larger = block(1202, "full", 2500, full.hash)
      assert.strictEqual((yield* pushAll(store, [full, larger])).length, 4)
      assert.isBelow(most("words"), 50)

      // 500 blocks with logs of 1 KiB are divided by size; the overhead is a fraction of that.
      const data: Hex = `0x${"ab".repeat(512)}`
      const heavy = blocks(
        1203,
        "heavy",
        Array.from({ length: 600 }, () => 2),
        larger.hash,
      ).map((one) => ({
        ...one,
        logs: one.logs.map((log) => ({ ...log, data })),
      }))
      assert.isAbove((yield* pushAll(store, heavy)).length, 1)
      const bytes = most("bytes")
      assert.isAbove(bytes, callLimits.bytes * 0.8)
      assert.isBelow(bytes, callLimits.bytes * 1.25)

      const { head, window } = (yield* store.load(chain))!
      const below = window.at(-2)!
      yield* store.finalize(chain, filter, {
        _tag: "Finalize",
        expected: head,
        number: below.number,
        hash: below.hash,
      })
      yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
      yield* store.changeFilter(chain, "other")
      yield* store.ping(chain)
      yield* store.trim(chain)
      yield* store.stats(chain)
      yield* Stream.runCollect(store.after(chain))
      yield* store.seek(chain, 1100)
      yield* store.refused(chain)
      yield* store.info
      yield* store.reset(chain, { from: 1, filter, delete: true })
      assert.isBelow(most("words"), 30)
    }),
  )

  test(
    "is one command for a block, a finalized block, a retracted block, a chain's statistics and the server's info [G-148]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const store = yield* openRedis(standalone(server.port), "events", 1000)
      const start = yield* pushAll(store, blocks(1, "a", [1]))
      // Before Redis 7, moves first try the commands they need: nine calls.
      const hasAclCheck = (yield* store.refused(chain)).every(({ name }) => name !== "redis.acl_check_cmd")
      const tries = hasAclCheck ? 0 : 9
      const counts = yield* counting(server)
      /** Commands on the wire, and inside scripts. */
      const of = <A, E>(work: Effect.Effect<A, E>) => Effect.andThen(work, counts.take)
      const head = () => Effect.map(store.load(chain), (journal) => journal!.head)
      let at = start[0]!.blocks[0].hash
      for (const logs of [0, 1, 10, 100]) {
        const next = block((yield* head()).number + 1, "a", logs, at)
        at = next.hash
        const [move] = [...pushes(yield* head(), [next], false)]
        yield* counts.take
        assert.deepStrictEqual(yield* of(store.push(chain, filter, move!)), {
          wire: { push: 1 },
          // A block on top of one without logs replaces its record; after each hundred entries a trim is tried.
          inside: 7 + tries + logs + (logs > 0 ? 1 : 0) + (logs === 1 ? 1 : 0) + (logs === 100 ? 2 : 0),
        })
      }
      const expected = yield* head()
      const { window } = (yield* store.load(chain))!
      yield* counts.take
      const below = window.at(-2)!
      assert.deepStrictEqual(
        yield* of(
          store.finalize(chain, filter, {
            _tag: "Finalize",
            expected,
            number: below.number,
            hash: below.hash,
          }),
        ),
        { wire: { finalize: 1 }, inside: 9 + tries },
      )
      assert.deepStrictEqual(yield* of(store.pop(chain, filter, { _tag: "Pop", expected })), {
        wire: { pop: 1 },
        inside: 10 + tries + 100,
      })
      assert.deepStrictEqual(yield* of(store.ping(chain)), {
        wire: { probe: 1 },
        inside: 1 + (hasAclCheck ? 0 : tries + 1),
      })

      yield* counts.take
      const { chains } = (yield* pollStore(store, server.url, { devnet: chain, other: 7 })).status
      while (chains.some(({ stats }) => stats === undefined)) yield* Effect.sleep("5 millis")
      assert.deepStrictEqual(yield* counts.take, { wire: { info: 1, stats: 2 }, inside: 17 })
    }),
  )

  test(
    "is one push per block at the head, one per 500 blocks of a backfill, and the polling",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const node = new FakeNode(new FakeChain())
      node.chain.extend(...Array.from({ length: 600 }, () => 1))
      const counts = yield* counting(server)
      const service = yield* Service.start({
        env: {
          CHAINS: "devnet",
          DEVNET_CHAIN_ID: "31337",
          DEVNET_WS_URL: yield* node.serve,
          START_BLOCK: "1",
          AUDIT: "off",
          REDIS_URL: server.url,
        },
      })
      yield* service.port
      const stored = (number: number) =>
        Effect.gen(function* () {
          while (
            Number(yield* Effect.promise(() => server.client.hget("{events:31337}:head", "number"))) < number
          )
            yield* Effect.sleep("5 millis")
        })
      yield* stored(600)
      const begun = (yield* counts.take).wire
      assert.isAtMost(begun["push"]!, 70)
      for (let i = 0; i < 50; i++) {
        node.chain.extend(2)
        yield* stored(601 + i)
      }
      const { wire } = yield* counts.take
      assert.strictEqual(wire["push"], 50)
      delete wire["push"]
      for (const [name, times] of Object.entries(wire)) {
        assert.include(["info", "stats", "finalize"], name)
        assert.isAtMost(times, 2, name)
      }
    }),
  )
})
