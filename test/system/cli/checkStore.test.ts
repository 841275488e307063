/** The findings of `check` about the store, on real servers and files. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { execFileSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { emptyHead } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import { block } from "../../support/blocks.ts"
import { directory } from "../../support/directory.ts"
import * as RedisServer from "../../support/RedisServer.ts"
import { openRedis, standalone } from "../../support/redisStore.ts"
import * as Service from "../../support/Service.ts"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

interface Finding {
  readonly subject: string
  readonly level: string
  readonly detail: string
  readonly fix?: string
}

/** Runs `check` with unreachable endpoints and returns the findings about the store. */
const check = Effect.fnUntraced(function* (variables: Record<string, string>) {
  const env = {
    CHAINS: "devnet,other",
    DEVNET_CHAIN_ID: "31337",
    DEVNET_WS_URL: "ws://127.0.0.1:1",
    OTHER_CHAIN_ID: "31338",
    OTHER_WS_URL: "ws://127.0.0.1:1",
  }
  const { code, output, errors } = yield* Service.run({
    args: ["check", "--json"],
    env: { ...env, ...variables },
  })
  assert.strictEqual(code, 69, output + errors)
  const all = output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Finding)
  return all.filter(({ subject }) => subject.startsWith("store"))
})

const failures = (found: ReadonlyArray<Finding>) => found.filter(({ level }) => level === "failure")

/** The keys on the server, except the probe's own, which expires within a second. */
const left = ({ client }: RedisServer.RedisServer) =>
  Effect.promise(async () => (await client.keys("*")).filter((key) => !key.endsWith(":ping")))

describe("check", () => {
  test(
    "reports a database that does not exist",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const found = yield* check({ REDIS_URL: `${server.url}/99` })
      assert.strictEqual(found.length, 1)
      assert.match(failures(found)[0]!.detail, /\(refused\): ERR DB index is out of range/)
      assert.match(failures(found)[0]!.fix!, /REDIS_URL/)
    }),
  )

  test(
    "names each denied command and key, the grant that fixes it, and what is lost without it [G-150]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const rights = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => server.client.call("ACL", "SETUSER", "me", "reset", "on", ">secret", ...words))
      const url = server.url.replace("//", "//me:secret@")
      yield* rights("~events:*", "~{events:*", "+@all", "-info", "-xinfo", "-memory")
      const warned = yield* check({ REDIS_URL: url })
      assert.sameDeepMembers(
        warned
          // Redis 6.2 lacks redis.acl_check_cmd.
          .filter(({ level, detail }) => level === "warning" && !detail.startsWith("no redis.acl_check_cmd"))
          .map(({ detail, fix }) => [detail, fix]),
        [
          [
            "no INFO: version, memory, eviction policy and persistence are not shown, and none of them raises an alert",
            "give its user +info",
          ],
          ["no MEMORY USAGE: the bytes of a stream are not shown", "give its user +memory"],
          [
            "no XINFO: consumer groups and their lag are not shown, what trimming takes from them is not counted, and a stream that was restored from an older copy is not noticed",
            "give its user +xinfo",
          ],
        ],
      )
      assert.strictEqual(warned.at(-1)!.detail, "reading and writing are allowed")

      yield* rights("~events:*", "~{events:*", "+@all", "-xadd", "-xtrim")
      const refused = yield* check({ REDIS_URL: url })
      assert.deepStrictEqual(
        failures(refused).map(({ detail, fix }) => [detail.replace(/:.*/, ""), fix]),
        [
          ["XADD is refused, and nothing can be written without it", "give its user +xadd"],
          ["XTRIM is refused, and nothing can be written without it", "give its user +xtrim"],
        ],
      )

      yield* rights("~mine:*", "~{mine:*", "+@all")
      const elsewhere = yield* check({ REDIS_URL: url })
      assert.isNotEmpty(failures(elsewhere))
      for (const { fix } of failures(elsewhere))
        assert.strictEqual(fix, "give its user the keys ~events:* ~{events:*")
      assert.deepStrictEqual(yield* left(server), [])
    }),
  )

  test(
    "names the rights that a fleet lacks, and leaves no key of its own",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const rights = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => server.client.call("ACL", "SETUSER", "me", "reset", "on", ">secret", ...words))
      const variables = { REDIS_URL: server.url.replace("//", "//me:secret@"), FLEET: "main" }
      const found = Effect.map(check(variables), (all) =>
        all
          .filter(({ subject }) => subject === "store fleet")
          .map(({ level, detail, fix }) => ({ level, detail, fix })),
      )
      yield* rights("~events:*", "~{events:3*", "+@all")
      const [denied = assert.fail()] = yield* found
      assert.strictEqual(denied.level, "failure")
      assert.match(denied.detail, /^fleet main: replicas cannot share the chains: .*NOPERM.*key/)
      assert.strictEqual(denied.fix, "give its user the keys ~{events:fleet:main:*")

      yield* rights("~events:*", "~{events:3*", "~{events:fleet:main:*", "+@all", "-hkeys")
      const [command = assert.fail()] = yield* found
      assert.deepInclude(command, {
        level: "failure",
        fix: "give its user +@hash +@sortedset +pexpire +time +eval +evalsha",
      })

      // What the fixes name is enough, beside what streams need.
      const streams = ["-@all", "+@stream", "+info", "+client", "+del", "+set", "+rpush", "+ltrim", "+lrem"]
      const more = ["+zrevrange", "+exists", "+ping", "+memory", "+script"]
      const fixes = ["+@hash", "+@sortedset", "+pexpire", "+time", "+eval", "+evalsha"]
      yield* rights("~events:*", "~{events:3*", "~{events:fleet:main:*", ...streams, ...more, ...fixes)
      const [granted = assert.fail()] = yield* found
      assert.strictEqual(granted.level, "ok")
      assert.match(
        granted.detail,
        /^fleet main: its keys \{events:fleet:main:[0-9a-f]{8}\}:\* can be written$/,
      )
      yield* Effect.repeat(left(server), {
        until: (keys) => keys.length === 0,
        schedule: Schedule.spaced("100 millis"),
      })
    }),
  )

  test(
    "names a command that the server lacks",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--rename-command", "XTRIM", ""])
      const found = yield* check({ REDIS_URL: server.url })
      const [only, ...more] = failures(found)
      assert.deepStrictEqual(more, [])
      assert.match(only!.detail, /^XTRIM is refused, .*: .*Unknown/i)
      assert.strictEqual(only!.fix, "use a server that has XTRIM")
    }),
  )

  test(
    "estimates the memory of the streams from measured entries, and asks for a memory limit when readers are pinned [G-113]",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--maxmemory", "64mb"])
      const of = (found: ReadonlyArray<Finding>) =>
        found.filter(({ subject }) => /store (size|backlog)/.test(subject))
      const sizes = (more: Record<string, string> = {}) =>
        Effect.map(check({ REDIS_URL: server.url, STREAM_MAXLEN: "10000", ...more }), of)
      const [guessed, ...none] = yield* sizes()
      assert.deepStrictEqual(none, [], "no reader is pinned")
      assert.strictEqual(guessed!.level, "ok")
      assert.strictEqual(
        guessed!.detail,
        "0.01 GiB to 0.03 GiB for 2 chains of 10 000 entries (0.6 to 1.7 kB each)",
      )

      const store = yield* openRedis(standalone(server.port))
      for (const move of pushes(emptyHead(1), [block(1, "a", 2000)], true))
        yield* store.push(31337, "none", move)
      const { bytes, entries } = yield* store.stats(31337)
      const [measured, pinned] = yield* sizes({ STREAM_GROUPS: "mine", STREAM_BACKLOG: "4000000" })
      assert.include(
        measured!.detail,
        `(0.6 to 1.7 kB each, measured devnet ${Math.round(bytes! / entries)} bytes)`,
      )
      assert.strictEqual(pinned!.level, "warning")
      assert.match(
        pinned!.detail,
        /2 chains of 4 000 000 entries .*, and 80 % of maxmemory is 0\.05 GiB: publishing pauses there, before STREAM_BACKLOG/,
      )
      assert.match(pinned!.fix!, /^raise maxmemory to \d+\.\d GiB or lower STREAM_BACKLOG to \d+ \d+$/)

      const limit = (bytes: number) => Effect.promise(() => server.client.config("SET", "maxmemory", bytes))
      yield* limit(0)
      assert.deepStrictEqual(
        (yield* sizes()).map(({ level }) => level),
        ["ok"],
      )
      const unlimited = (yield* sizes({ STREAM_GROUPS: "mine" })).at(-1)!
      assert.strictEqual(unlimited.level, "warning")
      assert.match(unlimited.detail, /^maxmemory is 0, which is no limit, and STREAM_GROUPS=mine is pinned/)
      assert.match(unlimited.fix!, /^set maxmemory/)
      // A reader that records its position is pinned without being configured.
      const seen = Math.floor(Date.now() / 1000)
      yield* Effect.promise(() =>
        server.client.hset("{events:31337}:readers", "balances", JSON.stringify({ id: "1-1", seen })),
      )
      assert.match((yield* sizes()).at(-1)!.detail, /and the reader balances is pinned/)
      yield* Effect.promise(() => server.client.call("ACL", "SETUSER", "default", "-info"))
      assert.match((yield* sizes()).at(-1)!.detail, /^maxmemory is unknown, and the reader/)
    }),
  )

  test(
    "reports the eviction policy of any master of a cluster",
    Effect.gen(function* () {
      const nodes = yield* Effect.forEach([1, 2, 3], () => RedisServer.start(["--cluster-enabled", "yes"]))
      const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
      execFileSync("redis-cli", ["--cluster", "create", ...addresses, "--cluster-yes"], { stdio: "ignore" })
      const store = yield* openRedis(standalone(nodes[0]!.port, { mode: "cluster" }))
      yield* Effect.retry(store.ping(31337), { schedule: Schedule.spaced("100 millis"), times: 100 })
      yield* Effect.promise(() => nodes[1]!.client.config("SET", "maxmemory-policy", "allkeys-lfu"))
      const found = yield* check({ REDIS_URL: nodes[0]!.url, REDIS_CLUSTER: "true" })
      assert.deepStrictEqual(failures(found), [])
      const policy = found.find(({ subject }) => subject === "store eviction")!
      assert.deepStrictEqual([policy.level, policy.detail], ["warning", "maxmemory-policy is allkeys-lfu"])
      for (const node of nodes) assert.deepStrictEqual(yield* left(node), [])
    }),
  )

  test(
    "names a SQLite file that cannot be written",
    Effect.gen(function* () {
      const place = yield* directory
      const text = join(place, "text.db")
      writeFileSync(text, "not a database, but long enough to be read as one. ".repeat(30))
      for (const path of [text, join(text, "events.db"), place]) {
        const [failure] = failures(yield* check({ DATABASE_PATH: path }))
        assert.include(failure!.detail, path)
        assert.match(failure!.fix!, /DATABASE_PATH/)
      }
    }),
  )
})
