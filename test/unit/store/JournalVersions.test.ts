/**
 * A rolling update: ingestors of version 0.1 and of this version write one journal at the same time. This version continues
 * a version 1 journal in place, and neither loses or duplicates what the other wrote.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Random } from "effect"
import type { Block } from "../../../src/Domain.ts"
import { callLimits, emptyJournal, applied, emptyHead } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import type { Push } from "../../../src/store/Journal.ts"
import { blocks } from "../../support/blocks.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode } from "../../support/FakeNode.ts"
import { accelerated } from "../../support/acceleratedClock.ts"
import { startIngestor, variablesFor } from "../../support/ingestor.ts"
import type { Client } from "../../support/ingestor.ts"
import { journalV1 } from "../../support/journalV1.ts"
import { judge, replayOf } from "../../support/oracle.ts"
import * as RedisServer from "../../support/RedisServer.ts"
import { openRedis, standalone } from "../../support/redisStore.ts"

const limits = { ...callLimits, logs: 3 }
const filter = "none"
const chainId = 7

const below = (n: number) => Random.nextIntBetween(0, n - 1)

/**
 * The clients make one move after the other in random order, as ingestors do: a client continues a part if it knows the
 * part's logs, and retracts it otherwise. Some moves come too late.
 *
 * @returns the blocks with logs that a reader must end up with, and how many logs each has
 */
const walk = Effect.fnUntraced(function* (clients: readonly [old: Client, current: Client], steps: number) {
  const made = new Map<string, Block>()
  const final: Array<readonly [hash: string, logs: number]> = []
  let journal = emptyJournal(1, filter)
  let late: Push | undefined
  for (let step = 0; step < steps; step++) {
    const who = yield* below(2)
    const store = clients[who]!
    const head = (yield* store.load(chainId))?.head ?? emptyHead(1)
    const { number, hash, part } = head
    assert.deepInclude(journal.head, { number, hash, part })
    const choice = yield* below(10)
    const isUnknownPart = part < 0 || (part > 0 && store === clients[1] && head.digest === undefined)
    if (isUnknownPart || (choice < 2 && journal.window.length > 0)) {
      const pop = { _tag: "Pop", expected: head } as const
      assert.strictEqual((yield* store.pop(chainId, filter, pop))._tag, "Popped")
      journal = applied(journal, pop, limits.logs)
    } else if (choice < 8) {
      const sizes = [yield* below(9), yield* below(5)]
      const next = part > 0 ? [made.get(hash)!] : blocks(number + 1, `fork ${step}`, sizes, hash || undefined)
      for (const one of next) made.set(one.hash, one)
      const [call] = [...pushes(head, next, false, limits)] as [Push]
      assert.strictEqual((yield* store.push(chainId, filter, call))._tag, "Pushed")
      journal = applied(journal, call)
      late = call
    } else if (choice === 8) {
      const record = journal.window[0]
      if (part !== 0 || record === undefined || journal.window.length < 3) continue
      const finalize = {
        _tag: "Finalize",
        expected: head,
        number: record.number,
        hash: record.hash,
      } as const
      yield* store.finalize(chainId, filter, finalize)
      if (record.count > 0) final.push([record.hash, record.count])
      journal = applied(journal, finalize)
    } else if (late !== undefined && (late.expected.number !== number || late.expected.hash !== hash)) {
      assert.notStrictEqual((yield* store.push(chainId, filter, late))._tag, "Pushed")
    }
  }
  return [
    ...final,
    ...journal.window.flatMap(({ hash, count }) => (count > 0 ? [[hash, count] as const] : [])),
  ]
})

const withServer = (
  body: (stores: readonly [Client, Client], server: RedisServer.RedisServer) => Effect.Effect<void, unknown>,
) =>
  Effect.gen(function* () {
    const server = yield* RedisServer.start()
    const current = yield* openRedis(standalone(server.port), "events", 0, "100 seconds", limits)
    yield* body([journalV1(server.client, current), current], server)
  }).pipe(Effect.scoped)

describe("version 1 and version 2 of the journal", () => {
  it.live(
    "take turns on one chain, move by move, without losing or duplicating a log [G-168]",
    () =>
      withServer((stores, server) =>
        Effect.gen(function* () {
          for (let seed = 0; seed < 12; seed++) {
            yield* Effect.promise(() => server.client.flushall())
            const expected = yield* Random.withSeed(walk(stores, 120), seed)
            const replay = yield* replayOf(stores[1], chainId)
            assert.deepStrictEqual(replay.faults, [])
            assert.deepStrictEqual(
              replay.blocks.map(({ hash, logs }) => [hash, logs.length]),
              expected.map(([hash, count]) => [hash, count]),
            )
          }
        }),
      ),
    20_000,
  )

  it.live(
    "stay consistent under two ingestors at once, through forks and partially written blocks",
    () =>
      withServer(([old, current]) =>
        Effect.gen(function* () {
          const chain = new FakeChain({ finality: 40 })
          const nodes = { one: new FakeNode(chain), two: new FakeNode(chain) }
          yield* startIngestor(old, nodes, variablesFor({ devnet: [chain, "one,two"] }))
          yield* startIngestor(current, nodes, variablesFor({ devnet: [chain, "two,one"] }))
          for (let i = 0; i < 40; i++) {
            if (i % 6 === 5) chain.fork(1 + (i % 4), 4, 11, 0, 2, 7)
            else chain.extend([5, 0, 13, 1][i % 4]!)
            yield* Effect.sleep("3 seconds")
          }
          const isThere = Effect.map(
            current.load(chain.id),
            (journal) => journal?.head.hash === chain.head.hash && journal.head.part === 0,
          )
          yield* Effect.repeat(Effect.delay(isThere, "1 second"), { until: (there) => there })
          const { lost, doubled, faults } = yield* judge(current, chain)
          assert.deepStrictEqual({ lost, doubled, faults }, { lost: 0, doubled: 0, faults: [] })
          assert.strictEqual((yield* current.stats(chain.id)).epoch?.reason, "begun")
        }).pipe(Effect.scoped, accelerated(20), Effect.provide(Layer.fresh(Logger.layer([])))),
      ),
    30_000,
  )

  it.live("upgrades a journal of version 1 in place", () =>
    withServer(([old, current], server) =>
      Effect.gen(function* () {
        const [first, second] = [...pushes(emptyHead(1), blocks(1, "a", [2, 8]), false, limits)] as [
          Push,
          Push,
        ]
        yield* old.push(chainId, filter, first)
        yield* old.push(chainId, filter, second)
        const { head } = (yield* current.load(chainId))!
        assert.deepStrictEqual(head, { number: 2, hash: second.blocks[0].hash, part: 3 })
        assert.isUndefined((yield* current.stats(chainId)).epoch)
        // The part has no digest: it is not continued, but retracted.
        assert.strictEqual(
          (yield* current.push(chainId, filter, { ...second, expected: { ...head, digest: "x" } }))._tag,
          "Conflict",
        )
        yield* current.trim(chainId)
        const { epoch, firstNumber } = yield* current.stats(chainId)
        assert.deepStrictEqual([epoch?.reason, firstNumber], ["begun", 1])
        assert.strictEqual(
          (yield* current.pop(chainId, filter, { _tag: "Pop", expected: head }))._tag,
          "Popped",
        )
        const fields = yield* Effect.promise(() => server.client.hgetall(`{events:${chainId}}:head`))
        assert.deepInclude(fields, { version: "2", abi: "", paused: "0", added: "8" })
      }),
    ),
  )
})
