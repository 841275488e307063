/** Ways to Redis that are not open, or not any more: what is said then, and that they are taken when they open. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Redacted, Schedule } from "effect"
import type { Scope } from "effect"
import { execFileSync } from "node:child_process"
import { rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { fromVariables } from "../../../../src/config/AppConfig.ts"
import type { RedisConfig } from "../../../../src/config/AppConfig.ts"
import { Redaction } from "../../../../src/Redactor.ts"
import * as RedisConnection from "../../../../src/store/redis/RedisConnection.ts"
import { emptyHead, pushes } from "../../../../src/store/Journal.ts"
import type { Position } from "../../../../src/store/Journal.ts"
import { evictsStreams } from "../../../../src/store/Store.ts"
import type { StoreReason } from "../../../../src/store/Store.ts"
import { block } from "../../../support/blocks.ts"
import { directory } from "../../../support/directory.ts"
import { replayOf } from "../../../support/oracle.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, standalone } from "../../../support/redisStore.ts"

const fixture = (name: string) => fileURLToPath(new URL(`../../../fixtures/tls/${name}`, import.meta.url))

const caFile = fixture("ca.crt")

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

/** A server that speaks plainly at one port, and at another TLS with clients that have a certificate. */
const withTls = Effect.gen(function* () {
  const tlsPort = yield* RedisServer.freePort
  const files = ["--tls-cert-file", fixture("server.crt"), "--tls-key-file", fixture("server.key")]
  const listen = ["--tls-port", String(tlsPort), "--tls-ca-cert-file", caFile]
  const server = yield* RedisServer.start([...listen, ...files])
  return { server, tlsPort }
})

const sentinelOf = Effect.fnUntraced(function* (master: number, lines: ReadonlyArray<string>) {
  const port = yield* RedisServer.freePort
  const place = yield* directory
  const file = join(place, "sentinel.conf")
  const all = [`port ${port}`, `dir ${place}`, `sentinel monitor main 127.0.0.1 ${master} 1`, ...lines]
  writeFileSync(file, all.join("\n"))
  yield* Effect.acquireRelease(RedisServer.spawnServer([file, "--sentinel"]), RedisServer.endProcess)
  return port
})

/** Each time, since a race decides what the client sees of an end of the connection. */
const says = Effect.fnUntraced(function* (
  config: RedisConfig,
  reason: StoreReason,
  words: RegExp,
  times = 3,
) {
  for (let i = 0; i < times; i++) {
    const store = yield* openRedis(config)
    const error = yield* Effect.flip(store.ping(7))
    if (error._tag !== "StoreError") return assert.fail(String(error))
    assert.match(error.detail, words)
    assert.strictEqual(error.reason, reason)
  }
})

const sentinels = { mode: "sentinel", sentinelMaster: "main" } as const

describe("reaching Redis", () => {
  test(
    "without TLS where the server speaks it, or the other way round, tells what to set [G-120]",
    Effect.gen(function* () {
      const { server, tlsPort } = yield* withTls
      for (const mode of [{}, { mode: "cluster" as const }, sentinels]) {
        yield* says(
          standalone(tlsPort, mode),
          "unreachable",
          /the server speaks TLS at this port: set rediss:/,
        )
        const config = standalone(server.port, { tls: true, caFile, ...mode })
        yield* says(config, "unreachable", /the server speaks without TLS at this port: set redis:/, 1)
      }
    }),
  )

  test(
    "that asks for a certificate says so, and takes ours [G-121]",
    Effect.gen(function* () {
      const { tlsPort } = yield* withTls
      const config = standalone(tlsPort, { tls: true, caFile })
      for (const mode of [{}, sentinels])
        yield* says({ ...config, ...mode }, "unreachable", /certificate required.*set REDIS_CERT_FILE/)
      const ours = { certFile: fixture("server.crt"), keyFile: fixture("server.key") }
      const store = yield* openRedis({ ...config, ...ours })
      yield* store.ping(7)
    }),
  )

  test(
    "with a certificate file that went away after the start is an error and no bug",
    Effect.gen(function* () {
      const { tlsPort } = yield* withTls
      const file = join(yield* directory, "ca.crt")
      writeFileSync(file, "")
      rmSync(file)
      yield* says(standalone(tlsPort, { tls: true, caFile: file }), "unreachable", /ENOENT.*ca\.crt/)
    }),
  )

  test(
    "that has no place for another client keeps the server's sentence, and is reached when there is one [G-122]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--maxclients", "1"])
      yield* Effect.promise(() => server.client.ping())
      const words = /max number of clients reached/
      const password = Redacted.make("secret")
      for (const overrides of [{}, { password }, { database: 2 }, { mode: "cluster" as const }, sentinels])
        yield* says(standalone(server.port, overrides), "unreachable", words)
      const waiting = yield* openRedis(standalone(server.port))
      assert.match((yield* Effect.flip(waiting.ping(7))).message, words)
      server.client.disconnect()
      yield* Effect.retry(waiting.ping(7), { schedule: Schedule.spaced("50 millis"), times: 100 })
    }),
  )

  test(
    "that ends the connection stays unreachable: that a look without our password is refused says nothing",
    Effect.gen(function* () {
      let connections = 0
      const server = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const made = createServer((socket) => {
            socket.on("error", () => {})
            if (connections++ % 2 === 0) socket.destroy()
            else socket.end("-NOAUTH Authentication required.\r\n")
          })
          made.listen(0, "127.0.0.1", () => resume(Effect.succeed(made)))
        }),
        (made) => Effect.sync(() => made.close()),
      )
      const config = standalone((server.address() as AddressInfo).port, { password: Redacted.make("secret") })
      yield* says(config, "unreachable", /EPIPE|ECONNRESET|closed/)
      assert.strictEqual(connections, 6)
    }),
  )

  test(
    "that is full and has a volatile policy refuses writes, and deletes nothing of ours [G-125]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--maxmemory", "4mb", "--maxmemory-policy", "volatile-lru"])
      const store = yield* openRedis(standalone(server.port))
      yield* store.ping(7)
      let head: Position = emptyHead(1)
      const fill = Effect.gen(function* () {
        const next = block(head.number + 1, "a", 500, head.hash || undefined)
        for (const move of pushes(head, [next], false)) yield* store.push(7, "none", move)
        head = { number: next.number, hash: next.hash, part: 0 }
      })
      const error = yield* Effect.flip(Effect.repeat(fill, { times: 100 }))
      assert.propertyVal(error, "reason", "full")
      const replay = yield* replayOf(store, 7)
      assert.deepStrictEqual(replay.faults, [])
      assert.strictEqual(replay.entries, head.number * 500)
      const unsafe = ["noeviction", "volatile-lru", "volatile-ttl", "allkeys-lru", "allkeys-random"].filter(
        (name) => evictsStreams(name),
      )
      assert.deepStrictEqual(unsafe, ["allkeys-lru", "allkeys-random"])
      assert.isFalse(evictsStreams((yield* store.info).evictionPolicy))
    }),
  )

  test(
    "at a replica, or at a node of a cluster, tells what to set [G-123]",
    Effect.gen(function* () {
      const master = yield* RedisServer.start()
      const replica = yield* RedisServer.start(["--replicaof", "127.0.0.1", String(master.port)])
      yield* says(standalone(replica.port), "read-only", /^READONLY .*\(this is a replica: name its master/)
      yield* says(
        standalone(master.port, { mode: "cluster" }),
        "refused",
        /cluster support disabled \(set REDIS_CLUSTER only for a cluster\)/,
      )
      const asked = yield* openRedis(standalone(master.port, { mode: "cluster" }))
      assert.strictEqual((yield* Effect.flip(asked.info)).reason, "refused", "and is no server without INFO")
      const nodes = yield* Effect.forEach([1, 2, 3], () => RedisServer.start(["--cluster-enabled", "yes"]))
      const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
      execFileSync("redis-cli", ["--cluster", "create", ...addresses, "--cluster-yes"], { stdio: "ignore" })
      // Of eight chains one node at least has not all; the nodes need a moment to learn that.
      const moved = yield* Effect.retry(
        Effect.gen(function* () {
          for (const { port } of nodes) {
            const store = yield* openRedis(standalone(port))
            for (let chain = 1; chain <= 8; chain++) {
              const result = yield* Effect.result(store.load(chain))
              if (result._tag === "Failure" && result.failure.detail.startsWith("MOVED"))
                return result.failure
            }
          }
          return yield* Effect.fail("no node has sent us to another one")
        }).pipe(Effect.scoped),
        { schedule: Schedule.spaced("100 millis"), times: 50 },
      )
      assert.match(moved.message, /\(refused\): MOVED \d+ .*\(.*node of a cluster: set REDIS_CLUSTER=true\)/)

      // Each master is asked: the worst policy of any is that of the store.
      const cluster = yield* openRedis(standalone(nodes[0]!.port, { mode: "cluster" }))
      const policy = (of: RedisServer.RedisServer, name: string) =>
        Effect.promise(() => of.client.config("SET", "maxmemory-policy", name))
      const told = Effect.map(cluster.info, ({ evictionPolicy }) => evictionPolicy)
      const settled = Effect.retry(cluster.info, { schedule: Schedule.spaced("100 millis"), times: 100 })
      assert.strictEqual((yield* settled).evictionPolicy, "noeviction")
      for (const node of nodes) {
        yield* policy(node, "allkeys-lru")
        for (let i = 0; i < 5; i++) assert.strictEqual(yield* told, "allkeys-lru")
        yield* policy(node, "noeviction")
      }
      assert.strictEqual(yield* told, "noeviction")
      // One that is gone hides nothing of the others.
      yield* policy(nodes[1]!, "volatile-ttl")
      yield* policy(nodes[2]!, "allkeys-random")
      nodes[0]!.client.disconnect()
      nodes[0]!.kill("SIGKILL")
      yield* Effect.retry(
        Effect.filterOrFail(told, (name) => name === "allkeys-random"),
        { schedule: Schedule.spaced("100 millis"), times: 50 },
      )
    }),
  )

  test(
    "through sentinels that have a password and a user of their own",
    Effect.gen(function* () {
      const master = yield* RedisServer.start(["--requirepass", "masters"])
      const port = yield* sentinelOf(master.port, [
        "sentinel auth-pass main masters",
        "requirepass watchers",
        "user watcher on >watchers ~* &* +@all",
      ])
      const config = standalone(port, { ...sentinels, password: Redacted.make("masters") })
      const hint = /set REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD/
      yield* says(config, "refused", /NOAUTH/)
      yield* says(config, "refused", hint)
      const sentinelPassword = Redacted.make("watchers")
      yield* says({ ...config, sentinelPassword: Redacted.make("masters") }, "refused", hint)
      for (const sentinelUsername of [undefined, "watcher"])
        yield* (yield* openRedis({ ...config, sentinelPassword, sentinelUsername })).ping(7)
      // And the master's own refusal is none of a sentinel.
      yield* says({ ...config, sentinelPassword, password: undefined }, "refused", /^NOAUTH [^(]*$/)
    }),
  )

  test(
    "with a password in a file that is rotated: read again when the server refuses it, and never shown [G-124]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const setPassword = (password: string) =>
        Effect.promise(() =>
          server.client.call(
            "ACL",
            "SETUSER",
            "me",
            "on",
            "resetpass",
            `>${password}`,
            "~*",
            "+@all",
            "-client",
          ),
        )
      yield* setPassword("the-first-one")
      const file = join(yield* directory, "password")
      writeFileSync(file, "the-first-one\n")
      const settings = yield* fromVariables({
        REDIS_URL: server.url.replace("//", "//me@"),
        REDIS_PASSWORD_FILE: file,
      })
      const connection = yield* RedisConnection.make(settings.store as RedisConfig).pipe(
        Effect.provideContext(Context.make(Redaction, settings.redact) as never),
      )
      const ping = connection.command("ping", (client) => client.ping())
      yield* ping
      yield* setPassword("the-second-one")
      const dropConnections = Effect.promise(() =>
        server.client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
      )
      yield* dropConnections
      const refusal = yield* Effect.flip(
        Effect.repeat(ping, { schedule: Schedule.spaced("20 millis"), times: 50 }),
      )
      if (refusal.reason !== "refused")
        assert.match((yield* Effect.flip(ping)).detail, /^WRONGPASS/, "after the end of the connection")
      assert.strictEqual((yield* Effect.flip(ping)).reason, "refused")
      writeFileSync(file, "the-second-one\n")
      yield* Effect.retry(ping, { schedule: Schedule.spaced("20 millis"), times: 50 })
      // A file that is gone for a moment leaves what was known.
      rmSync(file)
      yield* dropConnections
      yield* Effect.retry(ping, { schedule: Schedule.spaced("20 millis"), times: 50 })
      const repeated = yield* Effect.flip(
        connection.command("repeat", () => Promise.reject(new Error("ERR the-second-one and the-first-one"))),
      )
      assert.strictEqual(repeated.detail, "ERR *** and ***")
    }),
  )

  test(
    "a connection that ends is given up once, however many commands are on their way over it",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const connection = yield* RedisConnection.make(standalone(server.port))
      let given = 0
      yield* connection.command("watch", async (client) => {
        const disconnect = client.disconnect.bind(client)
        client.disconnect = (again?: boolean) => {
          given++
          disconnect(again)
        }
      })
      yield* Effect.promise(() => server.client.ping())
      server.client.disconnect()
      server.kill("SIGSTOP")
      const asked = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, i) => i),
        (i) =>
          Effect.flip(connection.command("ask", (client) => client.get(String(i)), Duration.millis(200))),
        { concurrency: "unbounded" },
      )
      assert.strictEqual(asked.length, 50)
      assert.isTrue(asked.every(({ reason }) => reason === "timeout" || reason === "unreachable"))
      assert.strictEqual(given, 1)
      server.kill("SIGCONT")
      yield* connection.command("ask", (client) => client.ping())
    }),
  )
})
