/** From a real node to the store: the replayed journal equals the node's logs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import * as Anvil from "../../src/demo/Anvil.ts"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { fetchFrom, jsonFrom } from "../support/http.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"
import * as TcpProxy from "../support/TcpProxy.ts"

/** A store of either kind, and the variables of a service that uses it. */
const stores = {
  sqlite: Effect.gen(function* () {
    const path = join(yield* directory, "events.db")
    return { store: yield* Devnet.openSqlite(path), variables: { DATABASE_PATH: path }, server: undefined }
  }),
  redis: Effect.gen(function* () {
    const server = yield* RedisServer.start()
    return { store: yield* openRedis(standalone(server.port)), variables: { REDIS_URL: server.url }, server }
  }),
}

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 60_000)

for (const kind of ["sqlite", "redis"] as const) {
  describe(`the pipeline from a real node to ${kind}`, () => {
    test(
      "stores history from block 0, then follows live through reorgs and silent rollbacks",
      Effect.gen(function* () {
        const { store, variables } = yield* stores[kind]
        const devnet = yield* Devnet.start()
        for (let i = 0; i < 90; i++) yield* devnet.block(i % 7, (i * 3) % 5)
        const service = yield* Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
        yield* Devnet.reached(store, devnet.head)
        yield* Devnet.assertEqual(store, devnet)

        for (let depth = 1; depth <= 8; depth++) {
          for (let i = 0; i < depth; i++) yield* devnet.block(2 + (i % 3), 1)
          yield* devnet.reorg(depth)
          yield* devnet.block(depth)
        }
        yield* Devnet.reached(store, devnet.head)
        for (const depth of [1, 4, 7]) {
          yield* devnet.block(3, 3)
          yield* Devnet.reached(store, devnet.head)
          yield* devnet.rollback(depth)
          for (let i = 0; i <= depth; i++) yield* devnet.block(i + 1)
          yield* Devnet.reached(store, devnet.head)
        }
        const { replay, logs } = yield* Devnet.assertEqual(store, devnet)
        assert.isAbove(logs, 400)
        assert.isAbove(replay.removed, 30)
        assert.strictEqual(replay.entries - 2 * replay.removed, logs)
        service.kill("SIGTERM")
        assert.strictEqual(yield* service.exit, 0)
      }),
    )

    test(
      "stores a block of 3 000 logs and retracts it",
      Effect.gen(function* () {
        const { store, variables } = yield* stores[kind]
        const devnet = yield* Devnet.start(["--gas-limit", "100000000"])
        yield* Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
        yield* devnet.block(1000, 1000, 1000)
        yield* Devnet.reached(store, devnet.head)
        yield* devnet.reorg(1)
        yield* devnet.block(1)
        yield* Devnet.reached(store, devnet.head)
        const { replay } = yield* Devnet.assertEqual(store, devnet)
        assert.strictEqual(replay.removed, 3000)
      }),
    )
  })

  describe(`the service with ${kind}`, () => {
    test(
      "neither loses nor duplicates a log when the node restarts with its state",
      Effect.gen(function* () {
        const place = yield* directory
        const state = ["--state", join(place, "state.json")]
        const { store, variables } = yield* stores[kind]
        const before = yield* Devnet.start(state)
        yield* Service.start({ env: Devnet.environment(before.anvil.url, variables) })
        for (let i = 0; i < 10; i++) yield* before.block(i % 4)
        yield* Devnet.reached(store, before.head)
        yield* before.anvil.stop("SIGTERM")
        const anvil = yield* Anvil.start({ chainId: Devnet.chainId, port: before.anvil.port, args: state })
        const after = yield* Devnet.attach(anvil, before.emitter)
        for (let i = 0; i < 10; i++) yield* after.block(1 + (i % 4))
        yield* Devnet.reached(store, after.head)
        const { replay } = yield* Devnet.assertEqual(store, after)
        assert.strictEqual(replay.removed, 0)
      }),
    )

    test(
      "neither loses nor duplicates a log when the socket is cut repeatedly in the middle of responses",
      Effect.gen(function* () {
        const { store, variables } = yield* stores[kind]
        const devnet = yield* Devnet.start()
        const proxy = yield* TcpProxy.start(devnet.anvil.port)
        for (let i = 0; i < 40; i++) yield* devnet.block(20, i % 5)
        // The handshake and the response to eth_chainId are smaller: the cut hits the first large response.
        proxy.cutAfter(20_000)
        yield* Service.start({ env: Devnet.environment(`ws://127.0.0.1:${proxy.port}`, variables) })
        yield* Devnet.reached(store, devnet.head)
        assert.isAtLeast(proxy.accepted(), 2)
        for (let i = 0; i < 4; i++) {
          proxy.cutAfter(2000 + i * 700)
          yield* devnet.block(20, 3)
          yield* devnet.reorg(1 + i)
          yield* devnet.block(20)
          yield* Devnet.reached(store, devnet.head)
        }
        assert.isAtLeast(proxy.accepted(), 5)
        yield* Devnet.assertEqual(store, devnet)
      }),
    )
  })

  describe(`the service with ${kind}, under traffic`, () => {
    test(
      "neither loses nor duplicates a log when it is stopped or killed and restarted",
      Effect.gen(function* () {
        const { store, variables } = yield* stores[kind]
        const devnet = yield* Devnet.start()
        const traffic = yield* Effect.forever(Effect.andThen(devnet.block(40, 2), devnet.block(1))).pipe(
          Effect.forkScoped({ startImmediately: true }),
        )
        for (const signal of ["SIGTERM", "SIGINT", "SIGTERM", "SIGKILL", "SIGKILL"] as const) {
          const service = yield* Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
          const before = (yield* store.stats(Devnet.chainId)).entries
          yield* Effect.repeat(store.stats(Devnet.chainId), {
            until: ({ entries }) => entries > before + 100,
          })
          service.kill(signal)
          assert.strictEqual(yield* service.exit, signal === "SIGKILL" ? signal : 0)
        }
        yield* Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
        yield* Fiber.interrupt(traffic)
        yield* Devnet.reached(store, devnet.head)
        const { replay } = yield* Devnet.assertEqual(store, devnet)
        assert.strictEqual(replay.removed, 0)
      }),
    )
  })
}

describe("the service on Redis", () => {
  test(
    "follows heads through an outage of Redis, reports why it is not ready, and loses nothing [G-088]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--appendonly", "yes"])
      const store = yield* openRedis(standalone(server.port))
      const devnet = yield* Devnet.start()
      const service = yield* Service.start({
        env: Devnet.environment(devnet.anvil.url, { REDIS_URL: server.url }),
      })
      const port = yield* service.port
      for (let i = 0; i < 5; i++) yield* devnet.block(3)
      yield* Devnet.reached(store, devnet.head)

      server.kill("SIGKILL")
      for (let i = 0; i < 20; i++) yield* devnet.block(3, 1)
      yield* Effect.repeat(fetchFrom(port, "/ready"), {
        until: ({ status, text }) => status === 503 && /the store accepts no moves: .*unreachable/.test(text),
      })
      yield* devnet.reorg(4)
      yield* devnet.block(2)
      const { number } = yield* devnet.head
      yield* Effect.repeat(jsonFrom(port, "/status"), {
        until: ({ body }) => (body as { chains: [{ head: number }] }).chains[0].head === number,
      })
      assert.strictEqual((yield* fetchFrom(port, "/health")).status, 200)

      yield* server.restart
      yield* Devnet.reached(store, devnet.head)
      yield* Effect.repeat(jsonFrom(port, "/ready"), { until: ({ status }) => status === 200 })
      yield* Devnet.assertEqual(store, devnet)
    }),
  )

  test(
    "starts and stops cleanly while Redis is down",
    Effect.gen(function* () {
      const env = Devnet.environment("ws://127.0.0.1:1", {
        REDIS_URL: `redis://127.0.0.1:${yield* RedisServer.freePort}`,
      })
      const service = yield* Service.start({ env })
      const port = yield* service.port
      assert.strictEqual((yield* fetchFrom(port, "/health")).status, 200)
      assert.strictEqual((yield* fetchFrom(port, "/ready")).status, 503)
      service.kill("SIGTERM")
      assert.strictEqual(yield* service.exit, 0)
    }),
  )

  test(
    "stops within SHUTDOWN_TIMEOUT when Redis freezes with a move in flight",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const devnet = yield* Devnet.start()
      const variables = { REDIS_URL: server.url, SHUTDOWN_TIMEOUT: "1s" }
      const store = yield* openRedis(standalone(server.port))
      const service = yield* Service.start({ env: Devnet.environment(devnet.anvil.url, variables) })
      const port = yield* service.port
      yield* devnet.block(1)
      yield* Devnet.reached(store, devnet.head)
      server.kill("SIGSTOP")
      yield* devnet.block(1)
      yield* Effect.repeat(fetchFrom(port, "/metrics"), {
        until: ({ text }) => /event_ingestor_feed_queue_size\{chain="devnet"\} [1-9]/.test(text),
      })
      service.kill("SIGTERM")
      assert.strictEqual(yield* service.exit, 1)
      assert.match(service.errors(), /shutdown took longer than SHUTDOWN_TIMEOUT/)
      server.kill("SIGCONT")
    }),
  )

  test(
    "writes one consistent journal with two instances, through reorgs and kill -9",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const store = yield* openRedis(standalone(server.port))
      const devnet = yield* Devnet.start()
      const env = Devnet.environment(devnet.anvil.url, { REDIS_URL: server.url })
      yield* Service.start({ env })
      const another = Effect.gen(function* () {
        const service = yield* Service.start({ env })
        yield* service.says(/connected to /)
        return service
      })
      for (let round = 0; round < 4; round++) {
        const second = yield* another
        for (let i = 0; i < 6; i++) {
          yield* devnet.block(5, i)
          if (i % 2 === 0) continue
          yield* Devnet.reached(store, devnet.head)
          yield* devnet.reorg(i)
        }
        second.kill("SIGKILL")
        yield* devnet.block(2)
      }
      yield* Devnet.reached(store, devnet.head)
      const { replay } = yield* Devnet.assertEqual(store, devnet)
      assert.isAbove(replay.removed, 0)
    }),
  )
})
