/**
 * A provider that sends arbitrary input: each gets an error of a known type and costs the provider its connection; the
 * process, the store and the other chain are not affected.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { createServer } from "node:http"
import type { ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { TestClock } from "effect/testing"
import type { ErrorType } from "../../src/endpoint/EndpointError.ts"
import { hash } from "../support/blocks.ts"
import { errorsOf } from "../../chaos/errors.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { answerHttp } from "../support/FakeHttp.ts"
import { FakeNode, Raw, Refused, silence } from "../support/FakeNode.ts"
import { directory } from "../support/directory.ts"
import { fetchFrom, jsonFrom } from "../support/http.ts"
import { caughtUp, eventually, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"
import { assertComplete } from "../support/oracle.ts"
import { openSqlite } from "../support/devnet.ts"
import * as Service from "../support/Service.ts"

type Answer = Record<string, unknown>

/** Changes the responses to one method until it is reset. */
const answering = (method: string, change: (answer: never) => unknown) => (node: FakeNode) => {
  node.intercept = (asked, _params, proceed) => (asked === method ? change(proceed() as never) : proceed())
  node.chain.extend(2)
}

const firstLog = (change: Answer) =>
  answering("eth_getLogs", ([first, ...rest]: ReadonlyArray<Answer>) => [{ ...first, ...change }, ...rest])

const saying = (text: string) => (node: FakeNode) => node.broadcast(text)

/** Announces a header with arbitrary JSON. */
const announcing = (change: (json: string) => string) => (node: FakeNode) => {
  node.announces = false
  node.chain.extend(2)
  for (const { send, subscriptions } of node.sessions) {
    for (const subscription of subscriptions.keys()) {
      const { number, timestamp, ...rest } = node.chain.head
      const header = { ...rest, number: `0x${number.toString(16)}`, timestamp: `0x${timestamp.toString(16)}` }
      const result = change(JSON.stringify(header))
      send(
        `{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"${subscription}","result":${result}}}`,
      )
    }
  }
  node.announces = true
}

const headerWith = (field: string, value: string) =>
  announcing((json) => json.replace(new RegExp(`"${field}":"[^"]*"`), `"${field}":${value}`))

const digits = (count: number) => `0x${"f".repeat(count)}`

const megabytes = (count: number) => count * 1024 * 1024

const rejecting = (error: string) => (node: FakeNode) => {
  node.intercept = (method, _params, proceed) =>
    /Logs|Receipt/.test(method) ? new Raw(`{"jsonrpc":"2.0","id":%id,"error":${error}}`) : proceed()
  node.chain.extend(2)
}

const attacks: ReadonlyArray<readonly [title: string, attack: (node: FakeNode) => void, type: ErrorType]> = [
  ["a giant log index", firstLog({ logIndex: "0xffffffffffff" }), "malformed"],
  ["a log index of 1 000 digits", firstLog({ logIndex: digits(1000) }), "malformed"],
  ["a log of nulls", firstLog({ address: null, topics: null, data: null }), "malformed"],
  ["a log with a lone surrogate for data", firstLog({ data: "0x\ud800" }), "malformed"],
  ["a log with control characters", firstLog({ transactionHash: "0x\u0000\u001b[31m" }), "malformed"],
  ["topics in topics", firstLog({ topics: [[hash("topic")]] }), "malformed"],
  ["a frame of 100 MB", saying(`{"junk":"${"x".repeat(megabytes(100))}"}`), "malformed"],
  ["deep JSON", saying(`${"[".repeat(megabytes(10))}${"]".repeat(megabytes(10))}`), "malformed"],
  [
    "deep JSON for an error",
    saying(`{"id":null,"error":${"[".repeat(500_000)}${"]".repeat(500_000)}}`),
    "malformed",
  ],
  ["an error that cannot be a text", rejecting('[{"toString":1,"valueOf":1}]'), "rejected"],
  [
    "an error with a code beyond all numbers",
    rejecting('{"code":1e400,"message":"\\ud800\\u0000"}'),
    "rejected",
  ],
  ["an error of 20 MB", rejecting(`{"code":-1,"message":"${"no ".repeat(megabytes(7))}"}`), "rejected"],
  [
    "an error with deep data",
    rejecting(`{"code":-1,"message":"","data":${"[".repeat(400_000)}${"]".repeat(400_000)}}`),
    "rejected",
  ],
  ["a header with a height of 1 000 digits", headerWith("number", `"${digits(1000)}"`), "malformed"],
  ["a header of nulls", headerWith("hash", "null"), "malformed"],
  ["a header with a lone surrogate", headerWith("hash", `"0x\\ud800${"0".repeat(63)}"`), "malformed"],
  ["a header with a duplicate key, the second invalid", headerWith("hash", `"0x00","hash":{}`), "malformed"],
  ["a head at the maximum height", headerWith("number", '"0x1fffffffffffff"'), "unverified"],
  ["null for a header", announcing(() => "null"), "malformed"],
  ["null", saying("null"), "malformed"],
  ["a batch of nulls", saying(`[${"null,".repeat(100_000)}null]`), "malformed"],
  ["control characters", saying('{"id":\u0000 1}'), "malformed"],
  ["an answer to no request", saying('{"jsonrpc":"2.0","id":99999,"result":[]}'), "malformed"],
  ["an answer whose id is a word", saying('{"jsonrpc":"2.0","id":"one","result":[]}'), "malformed"],
  [
    "a subscription without a name",
    saying('{"method":"eth_subscription","params":{"__proto__":{"subscription":"1"}}}'),
    "malformed",
  ],
  [
    "10 000 messages in a second",
    (node) => {
      for (let i = 0; i < 10_000; i++) node.broadcast('{"method":"net_hello","params":[]}')
    },
    "malformed",
  ],
  [
    "10 000 heads in a second",
    (node) => {
      for (let i = 0; i < 10_000; i++) node.announce({ ...node.chain.head, hash: hash("flood", i) })
    },
    "malformed",
  ],
]

/** Odd but valid input. */
const oddities: ReadonlyArray<readonly [title: string, attack: (node: FakeNode) => void]> = [
  [
    "unknown fields",
    announcing((json) => json.replace("{", '{"__proto__":{"number":"0x0"},"constructor":null,"x":[[]],')),
  ],
  ["a log with such fields", firstLog({ toString: null, hasOwnProperty: 1, "": { a: [] } })],
  ["a log of another block while the receipts are correct", firstLog({ blockHash: hash("other") })],
  ["a duplicate key, the second valid", announcing((json) => json.replace("{", '{"number":{},"hash":null,'))],
  ["a height with leading zeros", announcing((json) => json.replace('"number":"0x', '"number":"0x00000000'))],
  [
    "an error for a method that has a fallback",
    (node) => {
      node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs") throw new Refused(1e20, "\u0000\ud800".repeat(1000), { deep: [[[]]] })
        return proceed()
      }
      node.chain.extend(2)
    },
  ],
]

const world = Effect.gen(function* () {
  const [chain, other] = [new FakeChain({ finality: 16 }), new FakeChain({ id: 31338, finality: 16 })]
  const [hostile, good] = [new FakeNode(chain), new FakeNode(other)]
  const store = yield* memoryStore()
  chain.extend(3, 0, 2)
  other.extend(1, 2)
  const variables = variablesFor({ devnet: [chain, "hostile"], beside: [other, "good"] })
  const { all } = yield* startIngestor(store, { hostile, good }, variables)
  const [status, beside] = [all[0]!, all[1]!]
  yield* caughtUp(store, chain, status)
  yield* caughtUp(store, other, beside)
  /** The other chain takes no longer than without the attack, and both are complete in the end. */
  const unaffected = Effect.gen(function* () {
    other.extend(3)
    yield* eventually("the other chain continues", () => beside.stored === other.head.number, 1)
    hostile.intercept = (_method, _params, proceed) => proceed()
    chain.extend(1)
    yield* caughtUp(store, chain, status)
    yield* caughtUp(store, other, beside)
    assert.strictEqual(good.connections, 1)
    assert.deepStrictEqual(beside.failures, [])
    assert.isTrue(status.failures.every(({ text }) => text.length <= 1000))
  })
  return { hostile, status, unaffected }
})

describe("a hostile provider", () => {
  for (const [title, attack, type] of attacks) {
    it.effect(`gets the error ${type} and loses its connection: ${title}`, () =>
      Effect.gen(function* () {
        const { hostile, status, unaffected } = yield* world
        const before = hostile.connections
        attack(hostile)
        // A refusal may mean that the block is not available yet: it counts only once it persists.
        yield* eventually("it is counted", () => status.errors[type] > 0, type === "rejected" ? 15 : 1)
        assert.strictEqual(status.failures[0]!.type, type)
        assert.strictEqual(
          Object.values(status.errors).reduce((sum, count) => sum + count),
          1,
        )
        yield* eventually("it reconnects", () => hostile.connections > before, 10)
        yield* unaffected
      }),
    )
  }

  for (const [title, attack] of oddities) {
    it.effect(`keeps its connection: ${title}`, () =>
      Effect.gen(function* () {
        const { hostile, status, unaffected } = yield* world
        attack(hostile)
        yield* eventually("it is stored", () => status.stored === hostile.chain.head.number, 5)
        yield* TestClock.adjust("1 minute")
        yield* unaffected
        assert.strictEqual(hostile.connections, 1)
        assert.deepStrictEqual(status.failures, [])
      }),
    )
  }

  it.live(
    "does not stop a real process over a real socket [G-073]",
    () =>
      Effect.gen(function* () {
        const [chain, other] = [new FakeChain(), new FakeChain({ id: 31338 })]
        const [hostile, good] = [new FakeNode(chain), new FakeNode(other)]
        const database = join(yield* directory, "events.db")
        const service = yield* Service.start({
          env: {
            CHAINS: "devnet,beside",
            DEVNET_CHAIN_ID: String(chain.id),
            DEVNET_WS_URL: yield* hostile.serve,
            BESIDE_CHAIN_ID: String(other.id),
            BESIDE_WS_URL: yield* good.serve,
            START_BLOCK: "0",
            DATABASE_PATH: database,
          },
        })
        const port = yield* service.port
        interface Report {
          readonly chains: ReadonlyArray<{ readonly name: string; readonly stored: number | null }>
        }
        const stored = Effect.repeat(jsonFrom(port, "/status"), {
          until: ({ body }) =>
            (body as Report).chains.every(
              ({ name, stored }) => stored === (name === "devnet" ? chain : other).head.number,
            ),
        })
        yield* stored
        const malformed = Effect.map(fetchFrom(port, "/metrics"), ({ text }) =>
          Number(
            /event_ingestor_event_processing_errors_total\{chain="devnet",error_type="malformed"[^}]*\} (\d+)/.exec(
              text,
            )?.[1],
          ),
        )
        for (const [i, title] of ["a frame of 100 MB", "deep JSON", "10 000 heads in a second"].entries()) {
          attacks.find(([name]) => name === title)![1](hostile)
          yield* Effect.repeat(malformed, { until: (count) => count === i + 1 })
          other.extend(3)
          chain.extend(2)
          yield* stored
        }
        assert.strictEqual(good.connections, 1)
        assert.strictEqual((yield* fetchFrom(port, "/ready")).status, 200)
        for (const one of [chain, other]) yield* assertComplete(yield* openSqlite(database), one)
        service.kill("SIGTERM")
        assert.strictEqual(yield* service.exit, 0)
      }).pipe(Effect.scoped),
    60_000,
  )
})

/** Responses to `eth_getLogs` over HTTP. */
const answers: ReadonlyArray<readonly [title: string, text: string, type: ErrorType]> = [
  ["an answer over the limit", `{"id":%id,"result":["${"x".repeat(megabytes(33))}"]}`, "malformed"],
  ["a page", "<!doctype html><title>502</title>", "malformed"],
  ["control characters", "\u0000\ud800\u001b[31m", "malformed"],
  ["deep JSON", `${"[".repeat(megabytes(10))}${"]".repeat(megabytes(10))}`, "malformed"],
  ["a deep result", `{"id":%id,"result":${"[".repeat(500_000)}${"]".repeat(500_000)}}`, "malformed"],
  ["logs of nulls", '{"id":%id,"result":[null,{"address":null}]}', "malformed"],
  ["a number", "1e400", "malformed"],
]

describe("a hostile HTTP endpoint", () => {
  const blocks = Array.from({ length: 60 }, (_, i) => i % 3)

  for (const [title, text, type] of answers) {
    it.effect(`gets the error ${type}, and the WebSocket is used instead: ${title}`, () =>
      Effect.gen(function* () {
        const chain = new FakeChain({ finality: 16 })
        const [good, hostile] = [new FakeNode(chain), new FakeNode(chain)]
        chain.extend(...blocks)
        hostile.intercept = (method, _params, proceed) =>
          method === "eth_getLogs" ? new Raw(text) : proceed()
        const store = yield* memoryStore()
        const variables = { ...variablesFor({ devnet: [chain, "good"] }), DEVNET_RPC_URL: "http://hostile" }
        const { status } = yield* startIngestor(store, { good, hostile }, variables)
        yield* caughtUp(store, chain, status)
        chain.extend(...blocks)
        yield* caughtUp(store, chain, status)
        assert.isAbove(status.errors[type], 0)
        assert.strictEqual(
          Object.values(status.errors).reduce((sum, count) => sum + count),
          status.errors[type],
        )
        for (const { text } of status.failures) assert.match(text, /^hostile:80: .{0,400}$/)
        assert.strictEqual(good.connections, 1)
      }),
    )
  }

  it.live(
    "does not stop a real process with an endless response, of which at most the limit is read [G-074]",
    () =>
      Effect.gen(function* () {
        const chain = new FakeChain({ finality: 16 })
        const [good, hostile] = [new FakeNode(chain), new FakeNode(chain)]
        chain.extend(...blocks)
        let sent = 0
        const flood = (response: ServerResponse) => {
          const megabyte = Buffer.alloc(megabytes(1), "[")
          const more = () => {
            sent++
            if (!response.destroyed) response.write(megabyte, more)
          }
          more()
        }
        const server = createServer((request, response) => {
          hostile.intercept = (method, _params, proceed) => {
            if (method !== "eth_getLogs") return proceed()
            flood(response)
            return silence
          }
          answerHttp(hostile, request, response)
        })
        yield* Effect.acquireRelease(
          Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
          () =>
            Effect.sync(() => {
              server.closeAllConnections()
              server.close()
            }),
        )
        const database = join(yield* directory, "events.db")
        const service = yield* Service.start({
          env: {
            CHAINS: "devnet",
            DEVNET_CHAIN_ID: String(chain.id),
            DEVNET_WS_URL: yield* good.serve,
            DEVNET_RPC_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
            START_BLOCK: "0",
            DATABASE_PATH: database,
            WS_MAX_PAYLOAD: String(megabytes(4)),
            AUDIT: "off",
          },
        })
        const port = yield* service.port
        yield* Effect.repeat(errorsOf(service, "devnet", "malformed"), { until: (count) => count > 0 })
        const store = yield* openSqlite(database)
        const head = Effect.map(store.load(chain.id), (journal) => journal?.head.number)
        yield* Effect.repeat(head, {
          until: (number) => number === chain.head.number,
          schedule: Schedule.spaced("20 millis"),
        })
        yield* assertComplete(store, chain)
        // The limit, plus the buffers of two sockets.
        assert.isAtLeast(sent, 4)
        assert.isBelow(sent, 32)
        assert.strictEqual(good.connections, 1)
        assert.strictEqual((yield* fetchFrom(port, "/ready")).status, 200)
      }).pipe(Effect.scoped),
    60_000,
  )
})
