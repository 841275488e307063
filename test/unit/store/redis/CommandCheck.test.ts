/** Missing rights, commands and libraries of a server: what `check` reports, and that the rest continues to work. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { Redis } from "ioredis"
import { readdirSync, readFileSync } from "node:fs"
import { emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import { blocks } from "../../../support/blocks.ts"
import type { Client } from "../../../support/ingestor.ts"
import { replayOf } from "../../../support/oracle.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, pollStore, standalone } from "../../../support/redisStore.ts"

const chain = 31337
const filter = "none"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

const write = Effect.fnUntraced(function* (store: Client) {
  for (const move of pushes(emptyHead(1), blocks(1, "a", [2, 0, 3]), false))
    assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Pushed")
})

/** The refused commands by name; those that the service can do without are in brackets. Redis 6.2 has no `redis.acl_check_cmd`. */
const namesOf = (store: Client) =>
  Effect.map(store.refused(chain), (all) =>
    all
      .filter(({ name }) => name !== "redis.acl_check_cmd")
      .map(({ name, lost }) => (lost === undefined ? name : `(${name})`)),
  )

/** A client that sends no command by itself. */
const bare = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => new Redis({ port, enableReadyCheck: false, disableClientInfo: true })),
    (client) => Effect.sync(() => client.disconnect()),
  )

const source = (name: string) =>
  readFileSync(new URL(`../../../../src/store/redis/lua/${name}.lua`, import.meta.url), "utf8")

const needed =
  "xadd xlen xrange xrevrange xtrim exists hset hmget hgetall zadd zrange zrevrange zrangebyscore zrem " +
  "zremrangebyscore set rpush lrem ltrim eval evalsha"
const optional = {
  info: "INFO",
  xinfo: "XINFO",
  memory: "MEMORY USAGE",
  client: "CLIENT SETNAME",
  hincrby: "HINCRBY",
  del: "DEL",
}

describe("RedisStore", () => {
  test(
    "names each missing right, without touching data or leaving test keys behind [G-143]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const { client } = server
      const rights = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => client.call("ACL", "SETUSER", "me", ...words))
      yield* rights("on", ">secret", "~events:*", "~{events:*", "+@all", "-@dangerous", "-@admin")
      yield* rights("+info", "+client")
      const store = yield* openRedis(
        standalone(server.port, { username: "me", password: Redacted.make("secret") }),
      )
      yield* write(store)
      const keys = yield* Effect.promise(() => client.keys("*"))
      const stored = Effect.promise(async () => {
        const dumps = []
        for (const key of keys) dumps.push((await client.dumpBuffer(key))!.toString("hex"))
        return { all: (await client.keys("*")).sort(), dumps }
      })
      const before = yield* stored
      assert.deepStrictEqual(yield* namesOf(store), [])
      for (const command of needed.split(" ")) {
        yield* rights(`-${command}`)
        assert.include(yield* namesOf(store), command.toUpperCase())
        yield* rights(`+${command}`)
      }
      for (const [command, name] of Object.entries(optional)) {
        yield* rights(`-${command}`)
        assert.deepStrictEqual(yield* namesOf(store), [`(${name})`])
        yield* rights(`+${command}`)
      }
      assert.deepStrictEqual(yield* stored, before)
      yield* rights("resetkeys", "~{events:*")
      const elsewhere = yield* store.refused(chain)
      assert.include(
        elsewhere.map(({ name }) => name),
        "XRANGE",
      )
      assert.match(elsewhere[0]!.detail, /NOPERM.*key/)
    }),
  )

  it("checks every command that a script calls", () => {
    const tried = source("check")
    const files = readdirSync(new URL("../../../../src/store/redis/lua/", import.meta.url))
    const called = files.flatMap((file) =>
      [...source(file.replace(".lua", "")).matchAll(/redis\.p?call\('(\w+)'/g)].map(
        ([, command]) => command!,
      ),
    )
    assert.isAbove(new Set(called).size, 20)
    for (const command of new Set(called)) assert.include(tried, `'${command}', `)
  })

  test(
    "does not report a full server as a missing right: the probe fails instead",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const store = yield* openRedis(standalone(server.port))
      yield* Effect.promise(() => server.client.config("SET", "maxmemory", "1"))
      assert.deepStrictEqual(yield* namesOf(store), [])
      assert.strictEqual((yield* Effect.flip(store.ping(chain))).reason, "full")
      assert.deepStrictEqual(yield* Effect.promise(() => server.client.keys("*")), [])
    }),
  )

  test(
    "names missing script libraries and functions",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const lacking = `${source("common")}\n${source("retention")}\n${source("check")}`
        .replaceAll("cmsgpack.", "cmsgpack_of_none.")
        .replaceAll("cjson.", "cjson_of_none.")
        .replaceAll("redis.acl_check_cmd end", "redis.acl_check_of_none end")
      const keys = ["stream", "head", "window", "missed", "readers", "filters"].map((name) => `{a}:${name}`)
      const found = yield* Effect.promise(
        () => server.client.eval(lacking, keys.length, ...keys) as Promise<ReadonlyArray<string>>,
      )
      assert.deepStrictEqual(
        found,
        ["cmsgpack", "cjson", "redis.acl_check_cmd"].flatMap((name) => [
          name,
          `ERR the server's scripts have no ${name}`,
        ]),
      )
      assert.deepStrictEqual(yield* Effect.promise(() => server.client.keys("*")), [])
    }),
  )

  test(
    "applies a move that trims as a whole without cjson, without counting what readers missed [G-145]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const keys = [
        "events:7",
        ..."head window missed readers filters".split(" ").map((k) => `{events:7}:${k}`),
      ]
      for (let i = 0; i < 500; i++) yield* Effect.promise(() => server.client.xadd(keys[0]!, "*", "a", "b"))
      yield* Effect.promise(() => server.client.hset(keys[4]!, "me", '{"id":"1-1"}'))
      const trimmed = yield* Effect.promise(() =>
        server.client.eval(
          `${source("common")}\n${source("retention")}\nreturn dropOldest(100, retentionOf('100\\n400'))`.replaceAll(
            "cjson.",
            "cjson_of_none.",
          ),
          keys.length,
          ...keys,
        ),
      )
      assert.isAbove(Number(trimmed), 200)
    }),
  )

  test(
    "leaves no head behind on Redis 6.2, where the probe tries to write one",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const names = ["stream", "head", "window", "missed", "readers", "filters", "ping"]
      const keys = names.map((name) => `{a}:${name}`)
      const probe = `${source("common")}\n${source("retention")}\n${source("probe")}`.replaceAll(
        "redis.acl_check_cmd",
        "(nil)",
      )
      yield* Effect.promise(() => server.client.eval(probe, keys.length, ...keys))
      assert.deepStrictEqual(yield* Effect.promise(() => server.client.keys("*")), ["{a}:ping"])
      yield* Effect.promise(() => server.client.hset("{a}:head", "number", "7"))
      yield* Effect.promise(() => server.client.eval(probe, keys.length, ...keys))
      assert.strictEqual(yield* Effect.promise(() => server.client.hget("{a}:head", "number")), "7")
    }),
  )

  /** Once on a server without the command, once with a user that may not run it. */
  for (const [name, renamed] of [
    ["INFO", "INFO"],
    ["XINFO", "XINFO"],
    ["MEMORY USAGE", "MEMORY"],
    ["CLIENT SETNAME", "CLIENT"],
    ["CONFIG, ACL, BGREWRITEAOF, MULTI, SCRIPT or SELECT", "CONFIG ACL BGREWRITEAOF MULTI SCRIPT SELECT"],
  ] as const)
    it.effect(`shows the other figures without ${name}, and logs nothing [G-144]`, () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start(
          renamed.split(" ").flatMap((command) => ["--rename-command", command, ""]),
        )
        const store = yield* openRedis(standalone(server.port), "events", 0, "1 hour")
        yield* write(store)
        assert.deepStrictEqual((yield* replayOf(store, chain)).faults, [])
        assert.deepStrictEqual(yield* namesOf(store), /^(CONFIG)/.test(name) ? [] : [`(${name})`])
        const client = yield* bare(server.port)
        yield* Effect.promise(() => client.xgroup("CREATE", `events:${chain}`, "mine", "0"))
        const { status, logged } = yield* pollStore(store, server.url, { devnet: chain })
        const one = status.chains[0]!
        for (let poll = 0; poll < 3; poll++) {
          // The server answers in real time.
          while (one.stats === undefined || status.store.info === undefined)
            yield* Effect.promise(() => client.ping())
          const { entries, bytes, groups } = one.stats
          assert.strictEqual(entries, 5)
          assert.strictEqual(bytes === undefined, name === "MEMORY USAGE")
          assert.strictEqual(groups.length, name === "XINFO" ? 0 : 1)
          assert.strictEqual(status.store.info.evictionPolicy, name === "INFO" ? undefined : "noeviction")
          one.stats = undefined
          status.store.info = undefined
          yield* TestClock.adjust("10 seconds")
        }
        assert.deepStrictEqual(logged, [])
      }).pipe(Effect.scoped),
    )

  for (const [what, groups, limit, warnings] of [
    ["warns once when a group is pinned and Redis has no memory limit", "mine", "0", 1],
    ["does not warn when Redis has a memory limit", "mine", "100mb", 0],
    ["does not warn when no reader is pinned", undefined, "0", 0],
  ] as const)
    it.effect(what, () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start(["--maxmemory", limit])
        const store = yield* openRedis(standalone(server.port), "events", 0, "1 hour")
        const { status, logged } = yield* pollStore(
          store,
          server.url,
          { devnet: chain },
          { STREAM_GROUPS: groups },
        )
        const one = status.chains[0]!
        for (let poll = 0; poll < 3; poll++) {
          while (one.stats === undefined || status.store.info === undefined)
            yield* Effect.promise(() => server.client.ping())
          one.stats = undefined
          yield* TestClock.adjust("10 seconds")
        }
        assert.strictEqual(logged.length, warnings)
        if (warnings > 0)
          assert.match(String(logged[0]), /^maxmemory is 0, .* STREAM_GROUPS=mine .*: set maxmemory/)
      }).pipe(Effect.scoped),
    )

  it.effect("shows the figures of other chains when the stream of one has another type [G-146]", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const store = yield* openRedis(standalone(server.port), "events", 0, "1 hour")
      yield* write(store)
      yield* Effect.promise(() => server.client.set("events:7", "mine"))
      const { chain: statusOf } = (yield* pollStore(store, server.url, { odd: 7, devnet: chain })).status
      while (statusOf("devnet").stats === undefined) yield* Effect.promise(() => server.client.ping())
      assert.isUndefined(statusOf("odd").stats)
    }).pipe(Effect.scoped),
  )
})
