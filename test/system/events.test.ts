/** Decoded events, from a node to the entries of either store. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { toEventSelector } from "viem"
import type { Hex, Log } from "../../src/Domain.ts"
import { eventsUndecoded } from "../../src/observability/ChainMetrics.ts"
import { directory } from "../support/directory.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import type { Client } from "../support/ingestor.ts"
import { assertComplete } from "../support/oracle.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import { readAll } from "../unit/store/StoreContract.ts"

const word = (value: string | number | bigint): string => BigInt(value).toString(16).padStart(64, "0")

const from = `0x${"a1".repeat(20)}`
const to = `0x${"b2".repeat(20)}`

const transferTopic: Hex = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
const saidTopic = toEventSelector("event Said(string)")

const topicsOf = (topic0: Hex, ...words: ReadonlyArray<string | number>): ReadonlyArray<Hex> => [
  topic0,
  ...words.map((value): Hex => `0x${word(value)}`),
]

/** The data of one string, given as its bytes. */
const stringOf = (bytes: string): Hex => `0x${word(32)}${word(bytes.length / 2)}${bytes.padEnd(64, "0")}`

const signatures =
  "Transfer(address indexed from, address indexed to, uint256 value); Transfer(address indexed from, address indexed to, uint256 indexed id); Said(string text)"

const transfer = "Transfer(address,address,uint256)"
const said = "Said(string)"

/** Logs, and what the entries of each must have. */
const cases: ReadonlyArray<readonly [log: Pick<Log, "topics" | "data">, event: string, args: unknown]> = [
  [{ topics: topicsOf(transferTopic, from, to), data: `0x${word(5)}` }, transfer, { from, to, value: "5" }],
  [{ topics: topicsOf(transferTopic, from, to, 7), data: "0x" }, transfer, { from, to, id: "7" }],
  // Too short, no variant with two topics, an address of more than 20 bytes, no valid UTF-8.
  [{ topics: topicsOf(transferTopic, from, to), data: "0x05" }, transfer, undefined],
  [{ topics: topicsOf(transferTopic, from), data: `0x${word(5)}` }, transfer, undefined],
  [{ topics: topicsOf(transferTopic, `${from}01`, to), data: `0x${word(5)}` }, transfer, undefined],
  [{ topics: [saidTopic], data: stringOf("c328") }, said, undefined],
  [{ topics: [saidTopic], data: stringOf("e4b896e7958c0a") }, said, { text: "世界\n" }],
]

const stores: ReadonlyArray<readonly [name: string, Effect.Effect<Client, unknown, Scope.Scope>]> = [
  ["SQLite", memoryStore()],
  ["Redis", Effect.flatMap(RedisServer.start(), ({ port }) => openRedis(standalone(port), "events"))],
]

/** Waits until a condition holds. */
const until = Effect.fnUntraced(function* (what: string, holds: () => boolean) {
  for (let i = 0; !holds(); i++) {
    if (i === 500) assert.fail(`within 10 s: ${what}`)
    yield* Effect.sleep("20 millis")
  }
})

/** An ingestor that has stored three blocks with each of the logs, and a reorg that replaced the last one. */
const run = Effect.fnUntraced(function* (store: Client, variables: Record<string, string>) {
  const chain = new FakeChain({ logs: cases.map(([log]) => log), began: Math.floor(Date.now() / 1000) - 60 })
  const node = new FakeNode(chain)
  chain.extend(cases.length, cases.length)
  const { status } = yield* startIngestor(
    store,
    { one: node },
    { ...variablesFor({ devnet: [chain, "one"] }), ...variables },
  )
  const isAtHead = () => status.stored === chain.head.number
  yield* until("the first blocks are stored", isAtHead)
  // Two blocks replace one: the reorg is followed at once.
  chain.fork(1, cases.length, cases.length)
  yield* until("the reorg is followed", isAtHead)
  return { chain, status, entries: (yield* readAll(store, chain.id)).map(({ entry }) => entry) }
})

for (const [name, open] of stores)
  describe(`events in ${name}`, () => {
    it.live("are decoded in every entry, in removed copies too, and failures are counted [G-217]", () =>
      Effect.gen(function* () {
        const store = yield* open
        const { chain, entries, status } = yield* run(store, { DEVNET_EVENTS: signatures })
        assert.lengthOf(entries, 5 * cases.length)
        assert.lengthOf(
          entries.filter(({ removed }) => removed === "true"),
          cases.length,
        )
        for (const { args, event, log_index } of entries) {
          const [, wanted, shown] = cases[Number(log_index)]!
          assert.strictEqual(event, wanted)
          assert.deepStrictEqual(args && JSON.parse(args), shown)
        }
        assert.strictEqual(status.count(eventsUndecoded), 4 * 4)
        yield* assertComplete(store, chain)
      }).pipe(Effect.scoped),
    )

    it.live("are absent without EVENTS", () =>
      Effect.gen(function* () {
        const { entries, status } = yield* run(yield* open, {})
        assert.isTrue(entries.every((entry) => !("event" in entry) && !("args" in entry)))
        assert.strictEqual(status.count(eventsUndecoded), 0)
      }).pipe(Effect.scoped),
    )
  })

describe("events", () => {
  it.live("select logs by their first topic, from an ABI file too", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "abi.json")
      const inputs = [{ name: "text", type: "string" }]
      writeFileSync(
        path,
        JSON.stringify({ abi: [{ type: "event", name: "Said", inputs }, { type: "fallback" }] }),
      )
      const { entries } = yield* run(yield* memoryStore(), { EVENTS: path })
      assert.deepStrictEqual([...new Set(entries.map(({ event }) => event))], [said])
      assert.lengthOf(entries, 5 * 2)
    }).pipe(Effect.scoped),
  )
})
