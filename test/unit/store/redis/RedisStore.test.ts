import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { Effect, Exit, Fiber, Random, Result, Scope, Schedule } from "effect"
import { fromVariables } from "../../../../src/config/AppConfig.ts"
import type { RedisConfig } from "../../../../src/config/AppConfig.ts"
import type { Hex } from "../../../../src/Domain.ts"
import { emptyJournal, emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import type { Journal, Push } from "../../../../src/store/Journal.ts"
import type { Replay } from "../../../../src/store/Replay.ts"
import { block, blocks } from "../../../support/blocks.ts"
import { replayOf } from "../../../support/oracle.ts"
import type { Client } from "../../../support/ingestor.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, standalone } from "../../../support/redisStore.ts"
import { contract, readAll } from "../StoreContract.ts"
import type { Harness } from "../StoreContract.ts"

const scope = Scope.makeUnsafe()
/** The server for the contract: `npm run store-contract -- redis://…` names another one. */
const url = process.env["STORE_CONTRACT_URL"]
let server: { readonly client: Redis; readonly config: RedisConfig }

beforeAll(async () => {
  if (url !== undefined) {
    const config = (await Effect.runPromise(fromVariables({ REDIS_URL: url }))).store as RedisConfig
    server = { client: new Redis(url), config }
    return
  }
  const own = await Effect.runPromise(Scope.provide(RedisServer.start(), scope))
  server = { client: own.client, config: standalone(own.port) }
})
afterAll(async () => {
  if (url !== undefined) {
    for (const key of await server.client.keys(`*${prefixOf("*")}:*`)) await server.client.del(key)
    server.client.disconnect()
  }
  await Effect.runPromise(Scope.close(scope, Exit.void))
})

let prefixes = 0
const prefixOf = (serial: number | "*") => `contract-${process.pid}-${serial}`

const fresh = Effect.sync((): Harness => {
  const prefix = prefixOf(++prefixes)
  const keys = () => server.client.keys(`*${prefix}:*`)
  return {
    open: (maxLength) => openRedis(server.config, prefix, maxLength),
    snapshot: Effect.promise(async () => {
      const saved = await Promise.all(
        (await keys()).map(async (key) => [key, await server.client.dumpBuffer(key)] as const),
      )
      return Effect.promise(async () => {
        for (const key of await keys()) await server.client.del(key)
        for (const [key, dump] of saved) await server.client.restore(key, 0, dump)
      })
    }),
    wipe: Effect.promise(async () => {
      for (const key of await keys()) await server.client.del(key)
    }),
    deleteEntries: (chain, ids) => Effect.promise(() => server.client.xdel(`${prefix}:${chain}`, ...ids)),
    setVersion: (chain, version) =>
      Effect.promise(() => server.client.hset(`{${prefix}:${chain}}:head`, "version", version)),
    putReader: (chain, name, id, seen = 0) =>
      Effect.promise(() =>
        server.client.hset(`{${prefix}:${chain}}:readers`, name, JSON.stringify({ id, seen })),
      ),
    missed: (chain, reader) =>
      Effect.promise(async () =>
        Number((await server.client.hget(`{${prefix}:${chain}}:missed`, `reader:${reader}`)) ?? 0),
      ),
    abi: (chain) =>
      Effect.promise(async () => (await server.client.hget(`{${prefix}:${chain}}:head`, "abi")) ?? ""),
    filters: (chain) => Effect.promise(() => server.client.lrange(`{${prefix}:${chain}}:filters`, 0, -1)),
  }
})

contract("RedisStore", fresh)

const filter = "none"
const first = (journal: Journal | undefined, ...next: ReadonlyArray<ReturnType<typeof block>>): Push =>
  [...pushes(journal?.head ?? emptyHead(1), next, false)][0]!

describe("RedisStore", () => {
  /** A server of its own, and a client of it. */
  const test = (
    title: string,
    body: (own: RedisServer.RedisServer, store: Client) => Effect.Effect<unknown, unknown, Scope.Scope>,
    args: ReadonlyArray<string> = [],
  ) =>
    it.live(title, () =>
      Effect.gen(function* () {
        const own = yield* RedisServer.start(args)
        yield* body(own, yield* openRedis(standalone(own.port), "events", 0, "500 millis"))
      }).pipe(Effect.scoped),
    )

  test("writes its public keys as documented", (own, store) =>
    Effect.gen(function* () {
      const run = blocks(1, "a", [1, 0, 2])
      yield* store.push(7, filter, first(undefined, ...run))
      const { head } = (yield* store.load(7))!
      yield* store.finalize(7, filter, { _tag: "Finalize", expected: head, number: 1, hash: run[0]!.hash })
      const keys = (yield* Effect.promise(() => own.client.keys("*"))).sort()
      assert.deepStrictEqual(keys, ["events:7", "{events:7}:head", "{events:7}:window"])
      const { epoch, ...fields } = yield* Effect.promise(() => own.client.hgetall("{events:7}:head"))
      assert.match(epoch!, /^[0-9a-f-]{36}$/)
      assert.deepStrictEqual(fields, {
        number: "3",
        hash: run[2]!.hash,
        part: "0",
        start_number: "1",
        start_hash: run[0]!.hash,
        filter: "none",
        filter_since: "1",
        final_number: "1",
        final_hash: run[0]!.hash,
        added: "3",
        part_digest: "",
        version: "2",
        epoch_reason: "begun",
        first_number: "1",
        abi: "",
        paused: "0",
      })
      const entries = yield* Effect.promise(() => own.client.xrange("events:7", "-", "+"))
      const [, entry] = entries[0]!
      assert.deepStrictEqual(
        entry.filter((_, i) => i % 2 === 0),
        "chain_id block_number block_hash tx_hash log_index contract topics data timestamp tx_index removed".split(
          " ",
        ),
      )
    }))

  test("does not apply the digest of an earlier part to one that version 1 has written since", (own, store) =>
    Effect.gen(function* () {
      const [first, second] = [...pushes({ number: 0, hash: "", part: 0 }, [block(1, "a", 1500)], false)]
      yield* store.push(7, filter, first!)
      assert.isDefined((yield* store.load(7))!.head.digest)
      // Version 1 retracts the part and writes one of the same length: in the end only `added` differs.
      yield* Effect.promise(() => own.client.hset("{events:7}:head", "added", "3000"))
      const { head } = (yield* store.load(7))!
      assert.isUndefined(head.digest)
      assert.deepStrictEqual(yield* store.push(7, filter, second!), { _tag: "Conflict", head })
    }))

  test("writes the trace context of a sampled block, also in removed copies", (_, store) =>
    Effect.gen(function* () {
      const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      yield* store.push(7, filter, first(undefined, { ...block(1, "a", 1), traceparent }))
      yield* store.pop(7, filter, { _tag: "Pop", expected: (yield* store.load(7))!.head })
      const entries = yield* readAll(store, 7)
      assert.deepStrictEqual(
        entries.map(({ entry }) => [entry.traceparent, entry.removed]),
        [
          [traceparent, "false"],
          [traceparent, "true"],
        ],
      )
    }))

  test("survives SCRIPT FLUSH [G-126]", (own, store) =>
    Effect.gen(function* () {
      for (let i = 0; i < 3; i++) {
        yield* Effect.promise(() => own.client.script("FLUSH"))
        const journal = yield* store.load(7)
        yield* Effect.promise(() => own.client.script("FLUSH"))
        const push = first(journal, block((journal?.head.number ?? 0) + 1, "a", 2))
        assert.strictEqual((yield* store.push(7, filter, push))._tag, "Pushed")
      }
      assert.strictEqual((yield* readAll(store, 7)).length, 6)
    }))

  test("reconnects after CLIENT KILL [G-127]", (own, store) =>
    Effect.gen(function* () {
      yield* store.push(7, filter, first(undefined, block(1, "a", 1)))
      yield* Effect.promise(() => own.client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
      const push = first(yield* Effect.retry(store.load(7), { times: 3 }), block(2, "a", 1))
      assert.strictEqual((yield* store.push(7, filter, push))._tag, "Pushed")
    }))

  test("fails with a typed error on a read-only replica, and recovers when it becomes a master again [G-116]", (own, store) =>
    Effect.gen(function* () {
      const master = yield* RedisServer.start()
      const push = first(undefined, block(1, "a", 1))
      yield* Effect.promise(() => own.client.replicaof("127.0.0.1", master.port))
      const error = yield* Effect.flip(store.push(7, filter, push))
      assert.strictEqual(error.reason, "read-only")
      assert.strictEqual((yield* Effect.flip(store.ping(7))).reason, "read-only")
      yield* Effect.promise(() => own.client.replicaof("NO", "ONE"))
      yield* store.ping(7)
      assert.strictEqual((yield* store.push(7, filter, push))._tag, "Pushed")
    }))

  test(
    "writes nothing when the memory is full, and resumes when there is space",
    (own, store) =>
      Effect.gen(function* () {
        yield* store.push(7, filter, first(undefined, block(1, "a", 3)))
        const before = yield* readAll(store, 7)
        yield* Effect.promise(() => own.client.config("SET", "maxmemory", "1"))
        const push = first(yield* store.load(7), block(2, "a", 900))
        const error = yield* Effect.flip(store.push(7, filter, push))
        assert.strictEqual(error.reason, "full")
        assert.strictEqual((yield* Effect.flip(store.ping(7))).reason, "full")
        assert.deepStrictEqual(yield* readAll(store, 7), before)
        yield* Effect.promise(() => own.client.config("SET", "maxmemory", "0"))
        assert.strictEqual((yield* store.push(7, filter, push))._tag, "Pushed")
      }),
    ["--maxmemory-policy", "noeviction"],
  )

  test("times out on a frozen server, and resends the push as a duplicate [G-128]", (own, store) =>
    Effect.gen(function* () {
      yield* store.push(7, filter, first(undefined, block(1, "a", 1)))
      const push = first(yield* store.load(7), block(2, "a", 2))
      own.kill("SIGSTOP")
      const error = yield* Effect.flip(store.push(7, filter, push))
      assert.strictEqual(error.reason, "timeout")
      assert.strictEqual(
        (yield* Effect.flip(store.load(7))).reason,
        "timeout",
        "connecting takes no longer either",
      )
      own.kill("SIGCONT")
      const result = yield* Effect.retry(store.push(7, filter, push), { times: 5 })
      assert.include(["Duplicate", "Pushed"], result._tag)
      assert.strictEqual((yield* readAll(store, 7)).length, 3)
    }))

  test(
    "reports `unreachable` while the server is down, and loses nothing with an append-only file",
    (own, store) =>
      Effect.gen(function* () {
        yield* store.push(7, filter, first(undefined, block(1, "a", 3)))
        own.kill("SIGKILL")
        const error = yield* Effect.flip(Effect.repeat(store.ping(7), { times: 20 }))
        assert.strictEqual(error.reason, "unreachable")
        yield* own.restart
        yield* store.ping(7)
        assert.strictEqual((yield* readAll(store, 7)).length, 3)
      }),
    ["--appendonly", "yes", "--appendfsync", "always"],
  )

  test(
    "reports `loading` while the server reads its file, and has everything afterwards [G-117]",
    (own, store) =>
      Effect.gen(function* () {
        const push = first(undefined, block(1, "a", 3))
        yield* store.push(7, filter, push)
        // While it loads, Redis serves its sockets once per key (uncompressed, the keys are large enough).
        const keys = Array.from({ length: 100 }, (_, i) => [`padding:${i}`, "x".repeat(2000)])
        yield* Effect.promise(() => own.client.mset(keys.flat()))
        yield* Effect.promise(() => own.client.save())
        own.kill("SIGKILL")
        const loaded = yield* Effect.forkScoped(own.restart)
        const attempt = Effect.result(store.push(7, filter, push))
        // During the restart the old server may still answer, or the new one may be slow.
        const refused = yield* Effect.repeat(attempt, {
          until: (result) => result._tag === "Failure" && result.failure.reason === "loading",
        })
        assert.match(Result.getOrThrow(Result.flip(refused)).detail, /^LOADING/)
        yield* Fiber.join(loaded)
        assert.deepStrictEqual(yield* store.push(7, filter, push), { _tag: "Duplicate" })
      }),
    [
      "--rdbcompression",
      "no",
      "--key-load-delay",
      "30000",
      "--loading-process-events-interval-bytes",
      "1024",
    ],
  )

  test(
    "reports `unreachable` while a cluster is down, and recovers when all slots are served [G-118]",
    (own, store) =>
      Effect.gen(function* () {
        const push = first(undefined, block(1, "a", 3))
        const error = yield* Effect.flip(store.push(7, filter, push))
        assert.strictEqual(error.reason, "unreachable")
        assert.match(error.detail, /^CLUSTERDOWN/)
        yield* Effect.promise(() => own.client.call("CLUSTER", "ADDSLOTSRANGE", 0, 16_383))
        // On a busy machine, a push that was not answered within half a second may have been applied.
        const pushed = yield* Effect.retry(store.push(7, filter, push), {
          schedule: Schedule.spaced("50 millis"),
          while: ({ detail, reason }) => detail.startsWith("CLUSTERDOWN") || reason === "timeout",
        })
        assert.include(["Pushed", "Duplicate"], pushed._tag)
        assert.lengthOf(yield* readAll(store, 7), 3)
      }),
    ["--cluster-enabled", "yes"],
  )

  test("reports a key of another type", (own, store) =>
    Effect.gen(function* () {
      for (const key of ["events:7", "{events:7}:head", "{events:7}:window"]) {
        yield* Effect.promise(() => own.client.flushall())
        yield* Effect.promise(() => own.client.set(key, "x"))
        const error = yield* Effect.flip(store.push(7, filter, first(undefined, block(1, "a", 1))))
        assert.strictEqual(error.reason, "corrupt", key)
        assert.strictEqual(yield* Effect.promise(() => own.client.dbsize()), 1, "nothing was written")
      }
    }))

  test("pops the remaining entries after a foreign XTRIM", (own, store) =>
    Effect.gen(function* () {
      yield* store.push(7, filter, first(undefined, ...blocks(1, "a", [2, 5])))
      yield* Effect.promise(() => own.client.xtrim("events:7", "MAXLEN", 3))
      const head = (yield* store.load(7))!.head
      const popped = yield* store.pop(7, filter, { _tag: "Pop", expected: head })
      assert.deepInclude(popped, { _tag: "Popped", removed: 3, missing: 2 })
      const below = (yield* store.load(7))!.head
      assert.deepInclude(yield* store.pop(7, filter, { _tag: "Pop", expected: below }), {
        _tag: "Popped",
        removed: 0,
        missing: 2,
      })
      yield* store.push(7, filter, first(yield* store.load(7), block(1, "b", 2)))
      const replay = yield* replayOf(store, 7)
      assert.deepStrictEqual(
        replay.blocks.map(({ logs }) => logs.length),
        [2],
      )
    }))

  test("reports statistics, consumer groups and the server's version", (own, store) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* store.stats(7), {
        entries: 0,
        trimmed: 0,
        previous: 0,
        firstId: undefined,
        lastId: undefined,
        firstNumber: undefined,
        epoch: undefined,
        bytes: undefined,
        groups: [],
        readers: [],
        holder: undefined,
        paused: false,
        aliveAgo: undefined,
      })
      yield* store.push(7, filter, first(undefined, block(1, "a", 10)))
      yield* Effect.promise(() => own.client.xgroup("CREATE", "events:7", "readers", "0"))
      yield* Effect.promise(() =>
        own.client.xreadgroup("GROUP", "readers", "me", "COUNT", 4, "STREAMS", "events:7", ">"),
      )
      const stats = yield* store.stats(7)
      const entries = yield* readAll(store, 7)
      assert.deepInclude(stats, { entries: 10, firstId: entries[0]!.id, lastId: entries[9]!.id })
      assert.isAbove(stats.bytes!, 500)
      const [{ idle, ...group } = assert.fail("no group")] = stats.groups
      assert.deepStrictEqual(group, {
        name: "readers",
        consumers: 1,
        pending: 4,
        lag: 6,
        lastDelivered: entries[3]!.id,
        missed: 0,
      })
      assert.isBelow(idle!, 5)
      const info = yield* store.info
      assert.match(info.version, /^(redis|valkey) \d+\.\d+/)
      assert.strictEqual(info.evictionPolicy, "noeviction")
      assert.strictEqual(info.limit, 0)
      assert.match(info.persistence!, /no append-only file/)
    }))

  test("reports since when no consumer of a group has asked for entries while some are pending [G-214]", (own, store) =>
    Effect.gen(function* () {
      yield* store.push(7, filter, first(undefined, block(1, "a", 10)))
      const admin = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => own.client.call(words[0]!, ...words.slice(1)))
      const idle = Effect.map(store.stats(7), ({ groups }) => groups[0]!.idle)
      const read = (consumer: string) =>
        admin("XREADGROUP", "GROUP", "readers", consumer, "COUNT", "4", "STREAMS", "events:7", ">")
      yield* admin("XGROUP", "CREATE", "events:7", "readers", "0")
      yield* read("gone")
      const until = (seconds: number) => Effect.repeat(idle, { until: (now) => now! >= seconds })
      assert.isBelow((yield* until(0.3))!, 5)
      // The most recently active consumer counts.
      yield* read("alive")
      assert.isBelow((yield* idle)!, 0.3)
      const ids = (yield* readAll(store, 7)).map(({ id }) => id)
      yield* admin("XACK", "events:7", "readers", ...ids)
      assert.isUndefined(yield* idle)
    }))

  test("counts what a consumer group misses, and trims without counting when it may not list groups", (own, store) =>
    Effect.gen(function* () {
      const admin = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => own.client.call(words[0]!, ...words.slice(1)))
      yield* store.push(7, filter, first(undefined, block(1, "a", 1000)))
      yield* admin("XGROUP", "CREATE", "events:7", "slow", "0")
      yield* admin("XGROUP", "CREATE", "events:7", "current", "$")
      yield* admin("XREADGROUP", "GROUP", "slow", "me", "COUNT", "123", "STREAMS", "events:7", ">")
      const config = standalone(own.port)
      const trimming = yield* openRedis(config, "events", 300)
      const { head } = (yield* store.load(7))!
      const final = { expected: head, number: 1, hash: head.hash as Hex }
      yield* trimming.finalize(7, filter, { _tag: "Finalize", ...final })
      while ((yield* trimming.trim(7)).dropped > 0);
      const gone = 1000 - (yield* store.stats(7)).entries
      assert.isAbove(gone, 500)
      const missed = () => Effect.promise(() => own.client.hgetall("{events:7}:missed"))
      assert.deepStrictEqual(yield* missed(), { "group:slow": String(gone - 123) })
      assert.deepStrictEqual(
        (yield* store.stats(7)).groups.map(({ name, lag, missed }) => [name, lag, missed]),
        [
          ["current", 0, 0],
          ["slow", 1000 - gone, gone - 123],
        ],
      )

      yield* admin("ACL", "SETUSER", "default", "-xinfo")
      yield* store.push(7, filter, first(yield* store.load(7), block(2, "a", 1000)))
      const top = (yield* store.load(7))!.head
      const next = { expected: top, number: 2, hash: top.hash as Hex }
      yield* trimming.finalize(7, filter, { _tag: "Finalize", ...next })
      yield* trimming.trim(7)
      assert.isBelow(yield* Effect.promise(() => own.client.xlen("events:7")), 500)
      assert.deepStrictEqual(yield* missed(), { "group:slow": String(gone - 123) })
    }))

  test("counts up to a thousand unread entries of a group when the server reports no lag [G-112]", (own, store) =>
    Effect.gen(function* () {
      yield* store.push(7, filter, first(undefined, block(1, "a", 1000)))
      yield* store.push(7, filter, first(yield* store.load(7), block(2, "a", 1000)))
      const ids = (yield* readAll(store, 7)).map(({ id }) => id)
      const last = ids.length - 1
      for (const [name, at] of [
        ["beyond", "99999999999999-0"],
        ["last", ids[last]!],
        ["near", ids[last - 700]!],
        ["nearer", ids[last - 15]!],
        ["same", ids[last - 15]!],
        ["far", ids[500]!],
        ["none", "0-0"],
      ] as const)
        yield* Effect.promise(() => own.client.xgroup("CREATE", "events:7", name, at))
      // After this Redis reports no lag for groups below the deleted entry.
      yield* Effect.promise(() => own.client.xdel("events:7", ids[last - 10]!, ids[last - 20]!))
      const lags = Object.fromEntries((yield* store.stats(7)).groups.map(({ name, lag }) => [name, lag]))
      assert.deepStrictEqual(lags, {
        beyond: 0,
        last: 0,
        near: 698,
        nearer: 14,
        same: 14,
        far: undefined,
        none: 1998,
      })
    }))

  test("waits for named groups when trimming, trims when one is destroyed, and counts what others miss", (own) =>
    Effect.gen(function* () {
      const admin = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => own.client.call(words[0]!, ...words.slice(1)))
      for (const group of ["slow", "other"])
        yield* admin("XGROUP", "CREATE", "events:7", group, "0", "MKSTREAM")
      const retention = { maxLength: 300, groups: ["slow", "absent"], backlog: 1200 }
      const store = yield* openRedis(standalone(own.port), "events", retention)
      const length = Effect.promise(() => own.client.xlen("events:7"))
      let number = 0
      const more = Effect.gen(function* () {
        number++
        const loaded = yield* store.load(7)
        const [move] = [...pushes(loaded?.head ?? emptyHead(1), [block(number, "a", 100)], true)] as [Push]
        return (yield* store.push(7, filter, move))._tag
      })
      while ((yield* more) === "Pushed");
      assert.strictEqual(yield* length, 1200)
      const { holder } = yield* store.trim(7)
      const seen = yield* store.stats(7)
      assert.deepStrictEqual(
        [seen.paused, seen.holder],
        [true, { reader: "group:slow", lag: 1200, release: "XGROUP DESTROY events:7 slow" }],
      )
      assert.deepStrictEqual(holder, {
        reader: "group:slow",
        behind: 1200,
        length: 1200,
        paused: "backlog",
        release: "XGROUP DESTROY events:7 slow",
      })
      assert.strictEqual(yield* more, "Paused")
      yield* admin("XREADGROUP", "GROUP", "slow", "me", "COUNT", "950", "STREAMS", "events:7", ">")
      assert.isUndefined((yield* store.trim(7)).holder)
      const { holder: none, paused } = yield* store.stats(7)
      assert.deepStrictEqual([paused, none], [false, undefined])
      const left = yield* length
      assert.isBelow(left, 500)
      assert.deepStrictEqual(yield* Effect.promise(() => own.client.hgetall("{events:7}:missed")), {
        "group:other": String(1200 - left),
      })
      while ((yield* more) === "Pushed");
      yield* admin("XGROUP", "DESTROY", "events:7", "slow")
      yield* store.trim(7)
      assert.strictEqual(yield* more, "Pushed")
      assert.isBelow(yield* length, 500)
    }))

  test("waits for all groups with *, and for unknown ones when it may not list groups [G-111]", (own) =>
    Effect.gen(function* () {
      const admin = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => own.client.call(words[0]!, ...words.slice(1)))
      yield* admin("XGROUP", "CREATE", "events:7", "any", "0", "MKSTREAM")
      const store = yield* openRedis(standalone(own.port), "events", {
        maxLength: 100,
        groups: ["*"],
        backlog: 400,
      })
      yield* store.push(7, filter, first(undefined, block(1, "a", 300)))
      const { head } = (yield* store.load(7))!
      yield* store.finalize(7, filter, {
        _tag: "Finalize",
        expected: head,
        number: 1,
        hash: head.hash as Hex,
      })
      assert.strictEqual((yield* store.trim(7)).holder!.reader, "group:any")
      yield* admin("XGROUP", "DESTROY", "events:7", "any")
      yield* admin("ACL", "SETUSER", "default", "-xinfo")
      const { dropped, holder } = yield* store.trim(7)
      assert.deepStrictEqual([dropped, holder!.reader], [0, "group:*"])
      assert.deepInclude((yield* store.stats(7)).holder, { reader: "group:*", lag: undefined })
      yield* admin("ACL", "SETUSER", "default", "+xinfo")
      assert.isAbove((yield* store.trim(7)).dropped, 0)
    }))

  it.live(
    "pauses one stream at 80 % of maxmemory while others continue, and still trims when Redis is full [G-109]",
    () =>
      Effect.gen(function* () {
        const own = yield* RedisServer.start(["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"])
        const admin = (...words: ReadonlyArray<string>) =>
          Effect.promise(() => own.client.call(words[0]!, ...words.slice(1)))
        yield* admin("XGROUP", "CREATE", "events:7", "slow", "0", "MKSTREAM")
        const retention = { maxLength: 300, groups: ["slow"], backlog: 1_000_000 }
        const store = yield* openRedis(standalone(own.port), "events", retention)
        const more = Effect.fnUntraced(function* (chain: number, number: number) {
          const loaded = yield* store.load(chain)
          const [move] = [...pushes(loaded?.head ?? emptyHead(1), [block(number, "a", 100)], true)] as [Push]
          return (yield* store.push(chain, filter, move))._tag
        })
        let number = 1
        while ((yield* more(7, number)) === "Pushed") number++
        assert.deepInclude((yield* store.trim(7)).holder, { reader: "group:slow", paused: "memory" })
        const used = /used_memory:(\d+)/.exec(yield* Effect.promise(() => own.client.info("memory")))
        assert.isBelow(Number(used![1]) / (8 * 1024 * 1024), 0.9)
        for (let other = 1; other <= 5; other++) assert.strictEqual(yield* more(8, other), "Pushed")
        // Another program fills the memory. The reader is removed, and the entries it held are trimmed all the same.
        const filled = Effect.promise(() =>
          own.client.set(`other:${number++}`, "x".repeat(100_000)).then(
            () => false,
            () => true,
          ),
        )
        while (!(yield* filled));
        yield* admin("XGROUP", "DESTROY", "events:7", "slow")
        while ((yield* store.trim(7)).dropped > 0);
        assert.isBelow(yield* Effect.promise(() => own.client.xlen("events:7")), 500)
        assert.strictEqual(yield* more(7, number), "Pushed")
      }).pipe(Effect.scoped),
  )

  test("finds a height by bisection, in a stream of many milliseconds and in one of a single millisecond", (own, store) =>
    Effect.gen(function* () {
      for (let i = 1; i <= 60; i++) {
        yield* store.push(7, filter, first(yield* store.load(7), block(i, "a", i % 4)))
        if (i % 5 === 0) yield* Effect.promise(() => own.client.ping())
      }
      const all = yield* readAll(store, 7)
      for (let height = 0; height <= 62; height++) {
        const after = yield* store.seek(7, height)
        const expected = all.findLast(({ entry }) => Number(entry.block_number) < height)?.id
        assert.strictEqual(after, expected, `height ${height}`)
      }
    }))

  it.live(
    "keeps a faultless journal under three clients on different forks with dropped connections",
    () =>
      Effect.gen(function* () {
        const own = yield* RedisServer.start()
        const writers = yield* Effect.forEach(["a", "b", "c"], (fork) =>
          Effect.map(openRedis(standalone(own.port), "race", 0, "5 seconds"), (store) => ({ fork, store })),
        )
        const histories = 2000
        let retracted = 0
        let cuts = 0

        /** A few steps of one writer, which writes its own fork. */
        const write = ({ fork, store }: (typeof writers)[number], chain: number) =>
          Effect.gen(function* () {
            const steps = 3 + (yield* Random.nextIntBetween(0, 5))
            for (let step = 0; step < steps; step++) {
              const journal = (yield* store.load(chain)) ?? emptyJournal(1, filter)
              const { head } = journal
              const mine =
                head.hash === "" || journal.window.at(-1)?.hash === block(head.number, fork, 0).hash
              if (!mine && (yield* Random.nextBoolean)) {
                yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
                continue
              }
              const sizes = [yield* Random.nextIntBetween(0, 4), yield* Random.nextIntBetween(0, 3)]
              const [next, last] = blocks(
                head.number + 1,
                fork,
                sizes,
                head.hash === "" ? undefined : head.hash,
              )
              const one = first(journal, next!)
              const two = first(
                { ...journal, head: { number: next!.number, hash: next!.hash, part: 0 } },
                last!,
              )
              // Two pushes in flight at once; sometimes the second is resent, as after a lost answer.
              yield* Effect.all([store.push(chain, filter, one), store.push(chain, filter, two)], {
                concurrency: 2,
              })
              if (yield* Random.nextBoolean) yield* store.push(chain, filter, two)
            }
          }).pipe(Effect.retry({ times: 20 }))

        const history = (chain: number) =>
          Effect.gen(function* () {
            if (chain % 40 === 0) {
              cuts++
              yield* Effect.promise(() =>
                own.client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
              )
            }
            yield* Effect.forEach(writers, (writer) => write(writer, chain), { concurrency: 3 })
            const replay: Replay = yield* Effect.retry(replayOf(writers[0]!.store, chain), { times: 5 })
            assert.deepStrictEqual(replay.faults, [], `chain ${chain}`)
            const journal = (yield* Effect.retry(writers[0]!.store.load(chain), { times: 5 }))!
            assert.deepStrictEqual(
              journal.window.filter(({ count }) => count > 0).map(({ hash, count }) => [hash, count]),
              replay.blocks.map(({ hash, logs }) => [hash, logs.length] as never),
            )
            const live = replay.blocks.flatMap(({ hash, logs }) =>
              logs.map(({ index }) => `${hash}:${index}`),
            )
            assert.strictEqual(new Set(live).size, live.length)
            retracted += replay.removed
          })
        yield* Effect.forEach(
          Array.from({ length: histories }, (_, i) => i + 1),
          history,
          { concurrency: 6, discard: true },
        )
        assert.isAbove(retracted, histories / 2)
        assert.strictEqual(cuts, histories / 40)
      }).pipe(Random.withSeed("races"), Effect.scoped),
    60_000,
  )
})
