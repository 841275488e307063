import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Logger, Redacted, References, identity } from "effect"
import type { Scope } from "effect"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { TestClock } from "effect/testing"
import { connect } from "../../../src/endpoint/WebSocketConnection.ts"
import type { ConnectionOptions } from "../../../src/endpoint/Connection.ts"
import { errorKind } from "../../../src/endpoint/EndpointError.ts"
import type { EndpointError } from "../../../src/endpoint/EndpointError.ts"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import { Transport } from "../../../src/endpoint/Socket.ts"
import type { Hex } from "../../../src/Domain.ts"
import * as GetLogs from "../../../src/logs/GetLogs.ts"
import * as Eth from "../../../src/endpoint/Eth.ts"
import { Redaction, makeRedactor } from "../../../src/Redactor.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode, Raw, Refused, layerTransport, silence } from "../../support/FakeNode.ts"

const options: ConnectionOptions = { requestTimeout: Duration.seconds(10), wsMaxPayload: 1024 * 1024 }

const connectTo = (url: string, id: number | undefined = 31337, overrides: Partial<ConnectionOptions> = {}) =>
  connect({ id }, { name: "fake", url: Redacted.make(url), keyless: false }, { ...options, ...overrides })

const reason = (error: EndpointError) => error.reason

/** A test with a real socket to a scripted node. */
const socketTest = (
  title: string,
  body: (node: FakeNode, url: string) => Effect.Effect<unknown, unknown, Transport | Scope.Scope>,
) =>
  it.live(title, () =>
    Effect.gen(function* () {
      const node = new FakeNode(new FakeChain())
      yield* body(node, yield* node.serve)
    }).pipe(Effect.scoped, Effect.provide(Transport.layerWebSocket)),
  )

describe("a connection", () => {
  socketTest("matches concurrent responses to their requests in any order", (node, url) =>
    Effect.gen(function* () {
      node.chain.extend(1, 2, 3)
      let held: (() => void) | undefined
      node.intercept = (method, params, proceed) => {
        if (params[0] !== "0x1") {
          if (method === "eth_getBlockByNumber") queueMicrotask(() => held?.())
          return proceed()
        }
        const answer = proceed()
        held = () => node.broadcast(JSON.stringify({ jsonrpc: "2.0", id: 2, result: answer }))
        return silence
      }
      const connection = yield* connectTo(url)
      const ask = (number: string) =>
        Effect.map(
          connection.request("eth_getBlockByNumber", [number, false]),
          (block) => (block as { number: string }).number,
        )
      assert.deepStrictEqual(yield* Effect.all([ask("0x1"), ask("0x2"), ask("0x3")], { concurrency: 3 }), [
        "0x1",
        "0x2",
        "0x3",
      ])
    }),
  )

  socketTest("ends at an exception in a callback, without ending the process", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      yield* connection.subscribe(["newHeads"], () => {
        throw new TypeError("a mistake")
      })
      node.chain.extend(1)
      const error = yield* Effect.flip(connection.ended)
      assert.strictEqual(reason(error)._tag, "Defect")
      assert.match(error.message, /TypeError: a mistake/)
    }),
  )

  socketTest("returns batch answers in the order of the calls, with errors per call", (_, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      const answers = yield* connection.batch([
        { method: "eth_blockNumber", params: [] },
        { method: "eth_nonsense", params: [] },
        { method: "eth_chainId", params: [] },
      ])
      assert.deepStrictEqual(
        answers.map(({ _tag }) => _tag),
        ["Result", "Rejected", "Result"],
      )
      const [, refused] = answers
      assert.strictEqual(refused?._tag === "Rejected" && reason(refused.error)._tag, "Rejected")
      assert.deepStrictEqual(yield* connection.batch([]), [])
      assert.strictEqual((yield* connection.batch([{ method: "eth_chainId", params: [] }])).length, 1)
    }),
  )

  socketTest("rejects every call of a batch that is refused as a whole", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      let said = false
      node.intercept = () => {
        if (said) return silence
        said = true
        return new Raw(
          JSON.stringify({ jsonrpc: "2.0", id: null, error: { code: -32600, message: "batch too large" } }),
        )
      }
      const call = { method: "eth_blockNumber", params: [] }
      const answers = yield* connection.batch([call, call])
      assert.isTrue(answers.every((answer) => answer._tag === "Rejected"))
      node.intercept = (_method, _params, proceed) => proceed()
      assert.strictEqual(yield* connection.request("eth_blockNumber", []), "0x0")
    }),
  )

  socketTest(
    "rejects every call of a batch whose first call is refused, as geth does for large batches",
    (node, url) =>
      Effect.gen(function* () {
        node.mostCalls = 2
        const connection = yield* connectTo(url)
        const call = { method: "eth_blockNumber", params: [] }
        const answers = yield* connection.batch([call, call, call])
        assert.deepStrictEqual(
          answers.map((answer) => answer._tag === "Rejected" && errorKind(answer.error)),
          ["RangeTooLarge", "RangeTooLarge", "RangeTooLarge"],
        )
        assert.strictEqual((yield* connection.batch([call, call])).length, 2)
      }),
  )

  socketTest("rejects the calls that the response to a batch leaves out", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      node.intercept = (_method, params, proceed) => (params.length > 0 ? silence : proceed())
      const answers = yield* connection.batch([
        { method: "eth_blockNumber", params: [1] },
        { method: "eth_blockNumber", params: [] },
      ])
      assert.deepStrictEqual(
        answers.map(({ _tag }) => _tag),
        ["Rejected", "Result"],
      )
      assert.match(answers[0]?._tag === "Rejected" ? answers[0].error.message : "", /not answered/)
    }),
  )

  const withoutId = (message: string, code = -32005) =>
    new Raw(JSON.stringify({ jsonrpc: "2.0", id: null, error: { code, message } }))

  socketTest("throttles and rejects the oldest request at a rate limit error without an id", (node, url) =>
    Effect.gen(function* () {
      let throttled = 0
      const rateLimiter = { withTokens: () => identity, rate: () => 1, throttled: () => void throttled++ }
      const connection = yield* connectTo(url, 31337, { rateLimiter })
      let left = 1
      node.intercept = (_method, _params, proceed) =>
        left-- > 0 ? withoutId("project ID request rate exceeded") : proceed()
      assert.strictEqual(yield* connection.request("eth_blockNumber", []), "0x0")
      assert.strictEqual(throttled, 1)
      node.broadcast(withoutId("slow down").text)
      assert.strictEqual(yield* connection.request("eth_blockNumber", []), "0x0")
      assert.strictEqual(throttled, 2)
    }),
  )

  socketTest("rejects the oldest request at any other error without an id", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      let left = 1
      node.intercept = (_method, _params, proceed) => (left-- > 0 ? withoutId("invalid", -32600) : proceed())
      const error = yield* Effect.flip(connection.request("eth_blockNumber", []))
      assert.strictEqual(reason(error)._tag, "Rejected")
      assert.strictEqual(yield* connection.request("eth_blockNumber", []), "0x0")
    }),
  )

  socketTest("reports why a request was refused, without secrets", (node, url) =>
    Effect.gen(function* () {
      node.intercept = (method, _params, proceed) => {
        if (method === "eth_getLogs")
          throw new Refused(-32005, "daily request count exceeded for SECRETKEY1\n, request rate limited")
        return proceed()
      }
      const connection = yield* connectTo(url)
      const error = yield* Effect.flip(connection.request("eth_getLogs", [{}]))
      assert.deepInclude(reason(error), {
        method: "eth_getLogs",
        code: -32005,
        refusal: { kind: "RateLimited" },
      })
      assert.strictEqual(
        error.message,
        "fake: eth_getLogs was refused (-32005): daily request count exceeded for *** , request rate limited",
      )
    }).pipe(Effect.provideService(Redaction, makeRedactor({ urls: [], words: ["SECRETKEY1"] }))),
  )

  socketTest("ignores a late response", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      node.broadcast(JSON.stringify({ jsonrpc: "2.0", id: 1, result: "0x1" }))
      assert.strictEqual(yield* connection.request("eth_blockNumber", []), "0x0")
    }),
  )

  socketTest("delivers the notifications of its own subscriptions only", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      const done = yield* Deferred.make<void>()
      const heads: Array<string> = []
      yield* connection.subscribe(["newHeads"], (head) => {
        heads.push((head as { number: string }).number)
        if (heads.length === 2) Deferred.doneUnsafe(done, Exit.void)
      })
      node.broadcast(
        JSON.stringify({
          jsonrpc: "2.0",
          method: "eth_subscription",
          params: { subscription: "0xother", result: { number: "0x99" } },
        }),
      )
      node.chain.extend(0, 1)
      yield* Deferred.await(done)
      assert.deepStrictEqual(heads, ["0x1", "0x2"])
    }),
  )

  socketTest("delivers a notification that arrives before the response to eth_subscribe", (node, url) =>
    Effect.gen(function* () {
      node.intercept = (method, _params, proceed) => {
        const id = proceed()
        if (method === "eth_subscribe") node.chain.extend(0)
        return id
      }
      const connection = yield* connectTo(url)
      const heads: Array<unknown> = []
      yield* connection.subscribe(["newHeads"], (head) => heads.push((head as { number: string }).number))
      assert.deepStrictEqual(heads, ["0x1"])
    }),
  )

  socketTest("fails to connect if the endpoint serves another chain", (_, url) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(connectTo(url, 1))
      assert.deepInclude(reason(error), { _tag: "WrongChain", expected: 1, actual: 31337 })
      assert.strictEqual(error.message, "fake: serves chain 31337, not 1")
      yield* connectTo(url, undefined)
    }),
  )

  socketTest(
    "sends fewer addresses and smaller batches after the server closed at a large request",
    (node, url) =>
      Effect.gen(function* () {
        node.chain.extend(...Array.from({ length: 20 }, () => 1))
        node.mostCharacters = 1000
        const capabilities = new Capabilities()
        const addresses = Array.from({ length: 64 }, (_, i): Hex => `0x${String(i).padStart(40, "0")}`)
        const { hash: blockHash } = node.chain.head
        const logs = Effect.flatMap(connectTo(url), (connection) =>
          GetLogs.make(connection, { addresses, topics: [] }, capabilities)({ blockHash }),
        )
        const error = yield* Effect.flip(logs)
        assert.deepInclude(reason(error), { _tag: "Disconnected", code: 1009 })
        assert.strictEqual(errorKind(error), "TooManyAddresses")
        assert.strictEqual(capabilities.addresses.current, 32)
        yield* Effect.flip(logs)
        assert.deepStrictEqual(yield* logs, [])
        assert.strictEqual(capabilities.addresses.current, 16)
        const numbers = Array.from({ length: 20 }, (_, i) => i + 1)
        const headers = Effect.flatMap(connectTo(url), (connection) =>
          Eth.blocksByNumber(connection, numbers, capabilities),
        )
        yield* Effect.flip(headers)
        assert.strictEqual(capabilities.headers.current, 10)
        assert.strictEqual((yield* headers).length, 20)
      }),
  )

  socketTest("ends when the socket is cut, and fails pending requests", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      node.intercept = () => silence
      const waiting = yield* Effect.forkChild(Effect.flip(connection.request("eth_blockNumber", [])), {
        startImmediately: true,
      })
      node.drop()
      const error = yield* Effect.flip(connection.ended)
      assert.strictEqual(reason(error)._tag, "Disconnected")
      assert.match(error.message, /code 1006/)
      assert.strictEqual(yield* Fiber.join(waiting), error)
      assert.strictEqual(yield* Effect.flip(connection.request("eth_blockNumber", [])), error)
    }),
  )

  for (const [title, frame] of [
    ["a frame that is not JSON", "{nonsense"],
    [
      "an error without a pending request",
      JSON.stringify({ jsonrpc: "2.0", id: null, error: { code: -32700, message: "Parse error" } }),
    ],
    ["an answer without a result", JSON.stringify({ jsonrpc: "2.0", id: 1 })],
  ] as const) {
    socketTest(`ends at ${title}`, (node, url) =>
      Effect.gen(function* () {
        const connection = yield* connectTo(url)
        node.broadcast(frame)
        assert.strictEqual(reason(yield* Effect.flip(connection.ended))._tag, "Malformed")
      }),
    )
  }

  socketTest("ends at a frame above the size limit", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      node.broadcast(JSON.stringify({ junk: "x".repeat(2 * 1024 * 1024) }))
      const error = yield* Effect.flip(connection.ended)
      assert.strictEqual(error.message, "fake: frame larger than 1048576 bytes")
    }),
  )

  for (const id of [4711, 0, -1, 1.5, 1e300]) {
    socketTest(`ends at a response to request ${id}, which was never sent`, (node, url) =>
      Effect.gen(function* () {
        const connection = yield* connectTo(url)
        node.broadcast(JSON.stringify({ jsonrpc: "2.0", id, result: "0x1" }))
        const error = yield* Effect.flip(connection.ended)
        assert.strictEqual(error.message, "fake: malformed: a response to an unknown request id")
      }),
    )
  }

  for (const [what, message] of [
    ["late responses", { id: 1, result: "0x1" }],
    [
      "notifications without a subscription",
      { method: "eth_subscription", params: { subscription: "0x99" } },
    ],
    ["messages of other kinds", { method: "net_hello", params: [] }],
  ] as const) {
    socketTest(`tolerates 1 000 ${what} per second, and ends above that`, (node, url) =>
      Effect.gen(function* () {
        const connection = yield* connectTo(url)
        const frame = JSON.stringify(message)
        for (let i = 0; i < 900; i++) node.broadcast(frame)
        assert.strictEqual(yield* connection.request("eth_blockNumber", []), "0x0")
        for (let i = 0; i < 3000; i++) node.broadcast(frame)
        assert.match((yield* Effect.flip(connection.ended)).message, /unsolicited messages per second/)
      }),
    )
  }

  socketTest("keeps up to 64 early notifications, and drops long ones", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      const notify = (result: string) =>
        node.broadcast(
          JSON.stringify({ method: "eth_subscription", params: { subscription: "0x1", result } }),
        )
      for (let i = 0; i < 100; i++) notify(String(i))
      notify("x".repeat(100_000))
      const heads: Array<unknown> = []
      yield* connection.subscribe(["newHeads"], (head) => heads.push(head))
      assert.deepStrictEqual(
        heads,
        Array.from({ length: 64 }, (_, i) => String(36 + i)),
      )
    }),
  )

  socketTest("rejects a subscription id of a megabyte", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      node.intercept = () => "x".repeat(1_000_000)
      const error = yield* Effect.flip(connection.subscribe(["newHeads"], () => {}))
      assert.match(error.message, /eth_subscribe did not return an id/)
    }),
  )

  socketTest("ends at an exception in a notification handler", (node, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      yield* connection.subscribe(["newHeads"], () => {
        throw new Error("oh")
      })
      node.chain.extend(1)
      assert.deepInclude(reason(yield* Effect.flip(connection.ended)), {
        _tag: "Defect",
        detail: "Error: oh",
      })
    }),
  )

  socketTest("ends once, with the reason given by the caller", (_, url) =>
    Effect.gen(function* () {
      const connection = yield* connectTo(url)
      const error = yield* Effect.flip(connectTo(url, 1))
      yield* connection.end(error.reason)
      connection.endUnsafe({ ...error.reason, _tag: "Timeout" } as never)
      assert.strictEqual(reason(yield* Effect.flip(connection.ended))._tag, "WrongChain")
    }),
  )

  it.live("fails to connect to a closed port, and follows no redirect", () =>
    Effect.gen(function* () {
      const refused = yield* Effect.flip(connectTo("ws://127.0.0.1:1"))
      assert.match(refused.message, /^fake: connection lost: .*ECONNREFUSED/)
      const redirecting = yield* Effect.acquireRelease(
        Effect.callback<AddressInfo & { close: () => void }>((resume) => {
          const server = createServer((socket) =>
            socket.end("HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n"),
          )
          server.listen(0, "127.0.0.1", () =>
            resume(Effect.succeed({ ...(server.address() as AddressInfo), close: () => server.close() })),
          )
        }),
        ({ close }) => Effect.sync(close),
      )
      const redirected = yield* Effect.flip(connectTo(`ws://127.0.0.1:${redirecting.port}`))
      assert.match(redirected.message, /302/)
    }).pipe(Effect.scoped, Effect.provide(Transport.layerWebSocket)),
  )

  it.live("fails when the handshake exceeds the timeout", () =>
    Effect.gen(function* () {
      const silent = yield* Effect.acquireRelease(
        Effect.callback<{ port: number; close: () => void }>((resume) => {
          const sockets = new Set<{ destroy: () => void }>()
          const server = createServer((socket) => void sockets.add(socket))
          const close = () => {
            for (const socket of sockets) socket.destroy()
            server.close()
          }
          server.listen(0, "127.0.0.1", () =>
            resume(Effect.succeed({ port: (server.address() as AddressInfo).port, close })),
          )
        }),
        ({ close }) => Effect.sync(close),
      )
      const error = yield* Effect.flip(
        connectTo(`ws://127.0.0.1:${silent.port}`, 31337, { requestTimeout: Duration.millis(100) }),
      )
      assert.match(error.message, /timed out/)
    }).pipe(Effect.scoped, Effect.provide(Transport.layerWebSocket)),
  )
})

describe("a connection in virtual time", () => {
  const virtual = (
    title: string,
    body: (node: FakeNode) => Effect.Effect<unknown, unknown, Transport | Scope.Scope>,
  ) =>
    it.effect(title, () => {
      const node = new FakeNode(new FakeChain())
      return body(node).pipe(Effect.provide(layerTransport({ fake: node })))
    })
  const open = Effect.gen(function* () {
    const connecting = yield* Effect.forkChild(connectTo("ws://fake"), { startImmediately: true })
    yield* TestClock.adjust("1 second")
    return yield* Fiber.join(connecting)
  })

  virtual("times out a request and stays open", (node) =>
    Effect.gen(function* () {
      const connection = yield* open
      node.intercept = () => silence
      const waiting = yield* Effect.forkChild(Effect.flip(connection.request("eth_blockNumber", [])), {
        startImmediately: true,
      })
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepInclude(reason(yield* Fiber.join(waiting)), {
        _tag: "Timeout",
        method: "eth_blockNumber",
        millis: 10_000,
      })
      node.intercept = (_method, _params, proceed) => proceed()
      const next = yield* Effect.forkChild(connection.request("eth_blockNumber", []), {
        startImmediately: true,
      })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(next), "0x0")
    }),
  )

  virtual("detects a half-open socket by an unanswered ping", (node) =>
    Effect.gen(function* () {
      const connection = yield* open
      yield* TestClock.adjust("5 minutes")
      node.answers = false
      const ended = yield* Effect.forkChild(Effect.flip(connection.ended), { startImmediately: true })
      yield* TestClock.adjust("31 seconds")
      assert.deepInclude(reason(yield* Fiber.join(ended)), { _tag: "Timeout", method: "a ping" })
    }),
  )

  virtual("stays open without pongs while messages arrive", (node) =>
    Effect.gen(function* () {
      const connection = yield* open
      node.answers = false
      const ended = yield* Effect.forkChild(Effect.flip(connection.ended), { startImmediately: true })
      for (let i = 0; i < 60; i++) {
        node.broadcast('{"method":"net_hello","params":[]}')
        yield* TestClock.adjust("5 seconds")
      }
      assert.isUndefined(ended.pollUnsafe())
    }),
  )

  virtual("ignores blank frames, and accepts numeric subscription ids", (node) =>
    Effect.gen(function* () {
      node.intercept = (method, _params, proceed) => (method === "eth_subscribe" ? 7 : proceed())
      const connection = yield* open
      const seen: Array<unknown> = []
      const subscribed = yield* Effect.forkScoped(
        connection.subscribe(["newHeads"], (head) => seen.push(head)),
        { startImmediately: true },
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(subscribed)
      node.broadcast("")
      node.broadcast(" \n")
      node.broadcast('{"method":"eth_subscription","params":{"subscription":7,"result":"a"}}')
      node.broadcast('{"method":"eth_subscription","params":{"subscription":"7","result":"b"}}')
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen, ["a", "b"])
    }),
  )

  virtual("logs its end with endpoint, duration and counts", () =>
    Effect.gen(function* () {
      const lines: Array<Record<string, unknown>> = []
      const logger = Logger.make(({ message, fiber }) => {
        lines.push({ message: String(message), ...fiber.getRef(References.CurrentLogAnnotations) })
      })
      yield* Effect.scoped(Effect.andThen(open, TestClock.adjust("9 seconds"))).pipe(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "Debug"),
      )
      assert.deepStrictEqual(lines.at(-1), {
        message: "connection closed",
        endpoint: "fake",
        seconds: 10,
        requests: 1,
        notifications: 0,
        reason: "by us",
      })
    }),
  )
})
