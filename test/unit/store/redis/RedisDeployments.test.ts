/** The supported Redis deployments, each started for real. The README claims these and no others. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Schedule } from "effect"
import type { Scope } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import { block, blocks } from "../../../support/blocks.ts"
import { directory } from "../../../support/directory.ts"
import { replayOf } from "../../../support/oracle.ts"
import type { Client } from "../../../support/ingestor.ts"
import * as RedisSentinel from "../../../support/RedisSentinel.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, standalone } from "../../../support/redisStore.ts"

const fixture = (name: string) => fileURLToPath(new URL(`../../../fixtures/tls/${name}`, import.meta.url))

const filter = "none"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 60_000)

/** Push, pop, finalize, read: every command that the service uses. */
const works = Effect.fnUntraced(function* (store: Client, chain: number) {
  yield* store.ping(7)
  for (const push of pushes(emptyHead(1), blocks(1, "a", [2, 0, 3, 1200]), false))
    yield* store.push(chain, filter, push)
  const top = (yield* store.load(chain))!.head
  yield* store.pop(chain, filter, { _tag: "Pop", expected: top })
  const part = (yield* store.load(chain))!.head
  yield* store.pop(chain, filter, { _tag: "Pop", expected: part })
  const { head } = (yield* store.load(chain))!
  assert.strictEqual(head.number, 3)
  yield* store.finalize(chain, filter, {
    _tag: "Finalize",
    expected: head,
    number: 2,
    hash: block(2, "a", 0).hash,
  })
  yield* store.changeFilter(chain, filter)
  yield* store.trim(chain)
  yield* store.seek(chain, 3)
  const replay = yield* replayOf(store, chain)
  assert.deepStrictEqual(replay.faults, [])
  assert.deepStrictEqual(
    replay.blocks.map(({ logs }) => logs.length),
    [2, 3],
  )
  assert.strictEqual((yield* store.stats(chain)).entries, replay.entries)
  yield* store.info
})

/** Retries until it succeeds. */
const eventually = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.retry(effect, { schedule: Schedule.spaced("100 millis"), times: 200 })

describe("RedisStore works", () => {
  test(
    "standalone",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      yield* works(yield* openRedis(standalone(server.port)), 1)
    }),
  )

  test(
    "with a password and a numbered database",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--requirepass", "p@ss word"])
      const config = standalone(server.port, { password: Redacted.make("p@ss word"), database: 3 })
      yield* works(yield* openRedis(config), 1)
      const wrong = yield* openRedis(standalone(server.port, { password: Redacted.make("wrong") }))
      const error = yield* Effect.flip(wrong.ping(7))
      assert.strictEqual(error.reason, "refused")
      assert.notInclude(error.message, "wrong")
    }),
  )

  test(
    "as a user that may use only these keys, without CONFIG and INFO",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const rules = ["on", ">secret", "~events:*", "~{events:*", "+@all", "-@dangerous", "-@admin"]
      const grant = (...rights: ReadonlyArray<string>) =>
        Effect.promise(() => server.client.call("ACL", "SETUSER", "ingestor", ...rights))
      yield* grant(...rules)
      const config = standalone(server.port, { username: "ingestor", password: Redacted.make("secret") })
      const store = yield* openRedis(config)
      yield* works(store, 1)
      assert.match((yield* store.info).version, /may not run INFO/)
      yield* grant("+info")
      assert.strictEqual((yield* store.info).evictionPolicy, "noeviction")
      const elsewhere = yield* openRedis(config, "others")
      assert.strictEqual((yield* Effect.flip(elsewhere.load(1))).reason, "refused")
    }),
  )

  test(
    "over TLS with a private certificate authority",
    Effect.gen(function* () {
      const port = yield* RedisServer.freePort
      const place = yield* directory
      const files = ["--tls-cert-file", fixture("server.crt"), "--tls-key-file", fixture("server.key")]
      const tls = [
        "--port",
        "0",
        "--tls-port",
        String(port),
        ...files,
        "--tls-ca-cert-file",
        fixture("ca.crt"),
      ]
      const quiet = ["--bind", "127.0.0.1", "--save", "", "--dir", place, "--tls-auth-clients", "no"]
      yield* Effect.acquireRelease(RedisServer.spawnServer([...tls, ...quiet]), RedisServer.endProcess)
      yield* works(yield* openRedis(standalone(port, { tls: true, caFile: fixture("ca.crt") })), 1)
      for (const caFile of [fixture("other-ca.crt"), undefined]) {
        const untrusting = yield* openRedis(standalone(port, { tls: true, caFile }))
        const error = yield* Effect.flip(untrusting.ping(7))
        assert.match(error.message, /certificate/)
      }
      const plain = yield* openRedis(standalone(port))
      assert.strictEqual((yield* Effect.flip(plain.ping(7))).reason, "unreachable")
    }),
  )

  test(
    "behind Sentinel, and continues the journal on a promoted replica",
    Effect.gen(function* () {
      const master = yield* RedisServer.start()
      const { port, replica, knowsReplica } = yield* RedisSentinel.start(master)
      const config = standalone(port, { mode: "sentinel", sentinelMaster: RedisSentinel.name })
      const store = yield* openRedis(config)
      yield* eventually(works(store, 1))
      yield* eventually(
        Effect.flatMap(
          Effect.promise(() => replica.client.xlen("events:1")),
          (length) => (length > 0 ? Effect.void : Effect.fail("not replicated yet")),
        ),
      )
      yield* knowsReplica
      master.kill("SIGKILL")
      const push = Effect.gen(function* () {
        const journal = (yield* store.load(1))!
        const next = block(journal.head.number + 1, "a", 4, journal.head.hash as never)
        yield* store.push(1, filter, [...pushes(journal.head, [next], false)][0]!)
      })
      assert.include(
        ["unreachable", "timeout"],
        (yield* Effect.flip(Effect.repeat(push, { times: 50 }))).reason,
      )
      yield* eventually(push)
      assert.strictEqual(
        yield* Effect.promise(() => replica.client.xlen("events:1")),
        (yield* store.stats(1)).entries,
      )
      const replay = yield* replayOf(store, 1)
      assert.deepStrictEqual(replay.faults, [])
    }),
  )

  test(
    "in a cluster of three nodes, with each chain's keys in one slot",
    Effect.gen(function* () {
      const nodes = yield* Effect.forEach([1, 2, 3], () => RedisServer.start(["--cluster-enabled", "yes"]))
      const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
      execFileSync("redis-cli", ["--cluster", "create", ...addresses, "--cluster-yes"], { stdio: "ignore" })
      const config = standalone(nodes[0]!.port, { mode: "cluster" })
      const store = yield* openRedis(config)
      yield* eventually(store.ping(7))
      for (let chain = 1; chain <= 12; chain++) yield* eventually(works(store, chain))
      const counts = yield* Effect.forEach(nodes, ({ client }) => Effect.promise(() => client.dbsize()))
      assert.isTrue(
        counts.every((count) => count > 0),
        `chains on every node: ${counts.join(", ")}`,
      )
    }),
  )

  // Debian 12 has no Valkey: it is tested only where it is installed.
  if (spawnSync("valkey-server", ["--version"]).status === 0) {
    test(
      "Valkey",
      Effect.gen(function* () {
        const port = yield* RedisServer.freePort
        const args = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", yield* directory]
        yield* Effect.acquireRelease(RedisServer.spawnServer(args, "valkey-server"), RedisServer.endProcess)
        const store = yield* openRedis(standalone(port))
        yield* works(store, 1)
        assert.match((yield* store.info).version, /^valkey/)
      }),
    )
  }
})
