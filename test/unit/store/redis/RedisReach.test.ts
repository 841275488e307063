/** Failures to connect to Redis: the error names the cause, and the store connects once the cause is gone. */
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
import { emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import type { Position } from "../../../../src/store/Journal.ts"
import { evictsStreams } from "../../../../src/store/StoreAdmin.ts"
import type { StoreReason } from "../../../../src/store/StoreError.ts"
import { block } from "../../../support/blocks.ts"
import { directory } from "../../../support/directory.ts"
import { replayOf } from "../../../support/oracle.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, standalone } from "../../../support/redisStore.ts"

const fixture = (name: string) => fileURLToPath(new URL(`../../../fixtures/tls/${name}`, import.meta.url))

const caFile = fixture("ca.crt")

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

/** A server with a plain port and a TLS port that requires client certificates. */
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

/** Repeats the attempt, since a race decides how the client reports the end of a connection. */
const failsWith = Effect.fnUntraced(function* (
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

describe("connecting to Redis", () => {
  test(
    "names the setting to change when only one side speaks TLS [G-120]",
    Effect.gen(function* () {
      const { server, tlsPort } = yield* withTls
      for (const mode of [{}, { mode: "cluster" as const }, sentinels]) {
        yield* failsWith(
          standalone(tlsPort, mode),
          "unreachable",
          /the server speaks TLS at this port: set rediss:/,
        )
        const config = standalone(server.port, { tls: true, caFile, ...mode })
        yield* failsWith(config, "unreachable", /the server speaks without TLS at this port: set redis:/, 1)
      }
    }),
  )

  test(
    "reports that the server requires a client certificate, and sends it when configured [G-121]",
    Effect.gen(function* () {
      const { tlsPort } = yield* withTls
      const config = standalone(tlsPort, { tls: true, caFile })
      for (const mode of [{}, sentinels])
        yield* failsWith({ ...config, ...mode }, "unreachable", /certificate required.*set REDIS_CERT_FILE/)
      const ours = { certFile: fixture("server.crt"), keyFile: fixture("server.key") }
      const store = yield* openRedis({ ...config, ...ours })
      yield* store.ping(7)
    }),
  )

  test(
    "fails with a typed error when a certificate file is deleted after the start",
    Effect.gen(function* () {
      const { tlsPort } = yield* withTls
      const file = join(yield* directory, "ca.crt")
      writeFileSync(file, "")
      rmSync(file)
      yield* failsWith(standalone(tlsPort, { tls: true, caFile: file }), "unreachable", /ENOENT.*ca\.crt/)
    }),
  )

  test(
    "passes on the server's message about its connection limit, and connects below the limit [G-122]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--maxclients", "1"])
      yield* Effect.promise(() => server.client.ping())
      const words = /max number of clients reached/
      const password = Redacted.make("secret")
      for (const overrides of [{}, { password }, { database: 2 }, { mode: "cluster" as const }, sentinels])
        yield* failsWith(standalone(server.port, overrides), "unreachable", words)
      const waiting = yield* openRedis(standalone(server.port))
      assert.match((yield* Effect.flip(waiting.ping(7))).message, words)
      server.client.disconnect()
      yield* Effect.retry(waiting.ping(7), { schedule: Schedule.spaced("50 millis"), times: 100 })
    }),
  )

  test(
    "reports `unreachable` when the server closes connections, not the NOAUTH of the diagnosis",
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
      yield* failsWith(config, "unreachable", /EPIPE|ECONNRESET|closed/)
      assert.strictEqual(connections, 6)
    }),
  )

  test(
    "refuses writes without evicting entries on a full server with a volatile policy [G-125]",
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
    "names the setting to change for a replica or a cluster node [G-123]",
    Effect.gen(function* () {
      const master = yield* RedisServer.start()
      const replica = yield* RedisServer.start(["--replicaof", "127.0.0.1", String(master.port)])
      yield* failsWith(
        standalone(replica.port),
        "read-only",
        /^READONLY .*\(this is a replica: name its master/,
      )
      yield* failsWith(
        standalone(master.port, { mode: "cluster" }),
        "refused",
        /cluster support disabled \(set REDIS_CLUSTER only for a cluster\)/,
      )
      const misconfigured = yield* openRedis(standalone(master.port, { mode: "cluster" }))
      assert.strictEqual(
        (yield* Effect.flip(misconfigured.info)).reason,
        "refused",
        "not a server without INFO",
      )
      const nodes = yield* Effect.forEach([1, 2, 3], () => RedisServer.start(["--cluster-enabled", "yes"]))
      const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
      execFileSync("redis-cli", ["--cluster", "create", ...addresses, "--cluster-yes"], { stdio: "ignore" })
      // Of eight chains at least one belongs to another node; the nodes need a moment to agree on that.
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
          return yield* Effect.fail("no node has answered with MOVED")
        }).pipe(Effect.scoped),
        { schedule: Schedule.spaced("100 millis"), times: 50 },
      )
      assert.match(moved.message, /\(refused\): MOVED \d+ .*\(.*node of a cluster: set REDIS_CLUSTER=true\)/)

      // Each master is queried: the store's policy is the worst of them.
      const cluster = yield* openRedis(standalone(nodes[0]!.port, { mode: "cluster" }))
      const policy = (of: RedisServer.RedisServer, name: string) =>
        Effect.promise(() => of.client.config("SET", "maxmemory-policy", name))
      const currentPolicy = Effect.map(cluster.info, ({ evictionPolicy }) => evictionPolicy)
      const settled = Effect.retry(cluster.info, { schedule: Schedule.spaced("100 millis"), times: 100 })
      assert.strictEqual((yield* settled).evictionPolicy, "noeviction")
      for (const node of nodes) {
        yield* policy(node, "allkeys-lru")
        for (let i = 0; i < 5; i++) assert.strictEqual(yield* currentPolicy, "allkeys-lru")
        yield* policy(node, "noeviction")
      }
      assert.strictEqual(yield* currentPolicy, "noeviction")
      // A failed master does not hide the others.
      yield* policy(nodes[1]!, "volatile-ttl")
      yield* policy(nodes[2]!, "allkeys-random")
      nodes[0]!.client.disconnect()
      nodes[0]!.kill("SIGKILL")
      yield* Effect.retry(
        Effect.filterOrFail(currentPolicy, (name) => name === "allkeys-random"),
        { schedule: Schedule.spaced("100 millis"), times: 50 },
      )
    }),
  )

  test(
    "connects through sentinels with their own user and password",
    Effect.gen(function* () {
      const master = yield* RedisServer.start(["--requirepass", "masters"])
      const port = yield* sentinelOf(master.port, [
        "sentinel auth-pass main masters",
        "requirepass watchers",
        "user watcher on >watchers ~* &* +@all",
      ])
      const config = standalone(port, { ...sentinels, password: Redacted.make("masters") })
      const hint = /set REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD/
      yield* failsWith(config, "refused", /NOAUTH/)
      yield* failsWith(config, "refused", hint)
      const sentinelPassword = Redacted.make("watchers")
      yield* failsWith({ ...config, sentinelPassword: Redacted.make("masters") }, "refused", hint)
      for (const sentinelUsername of [undefined, "watcher"])
        yield* (yield* openRedis({ ...config, sentinelPassword, sentinelUsername })).ping(7)
      // An error of the master itself is not attributed to a sentinel.
      yield* failsWith({ ...config, sentinelPassword, password: undefined }, "refused", /^NOAUTH [^(]*$/)
    }),
  )

  test(
    "rereads a rotated password file when the server refuses the password, and never shows it [G-124]",
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
      // While the file is missing, the last known password stays in use.
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
    "disconnects once when a connection ends, however many commands are in flight",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const connection = yield* RedisConnection.make(standalone(server.port))
      let disconnects = 0
      yield* connection.command("watch", async (client) => {
        const disconnect = client.disconnect.bind(client)
        client.disconnect = (again?: boolean) => {
          disconnects++
          disconnect(again)
        }
      })
      yield* Effect.promise(() => server.client.ping())
      server.client.disconnect()
      server.kill("SIGSTOP")
      const failures = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, i) => i),
        (i) =>
          Effect.flip(connection.command("ask", (client) => client.get(String(i)), Duration.millis(200))),
        { concurrency: "unbounded" },
      )
      assert.strictEqual(failures.length, 50)
      assert.isTrue(failures.every(({ reason }) => reason === "timeout" || reason === "unreachable"))
      assert.strictEqual(disconnects, 1)
      server.kill("SIGCONT")
      yield* connection.command("ask", (client) => client.ping())
    }),
  )
})
