/**
 * Rights that are revoked and granted again, and keys that are deleted or change their type while a chain is written: a move
 * applies as a whole or not at all.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Result } from "effect"
import type { Scope } from "effect"
import { readFileSync } from "node:fs"
import type { Hex } from "../../../../src/Domain.ts"
import { afterPush, emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import type { Block } from "../../../../src/Domain.ts"
import type { Push } from "../../../../src/store/Journal.ts"
import { StoreError } from "../../../../src/store/StoreError.ts"
import { blocks } from "../../../support/blocks.ts"
import type { Client } from "../../../support/ingestor.ts"
import { replayOf } from "../../../support/oracle.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, standalone } from "../../../support/redisStore.ts"

const filter = "none"
const chain = 7

const test = (
  title: string,
  body: (
    server: RedisServer.RedisServer,
    store: Client,
    admin: (...words: ReadonlyArray<string>) => Effect.Effect<unknown>,
  ) => Effect.Effect<unknown, unknown, Scope.Scope>,
) =>
  it.live(
    title,
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        const admin = (...words: ReadonlyArray<string>) =>
          Effect.promise(() => server.client.call(words[0]!, ...words.slice(1)))
        yield* admin("ACL", "SETUSER", "ingestor", "on", ">secret", "~*", "+@all")
        const config = standalone(server.port, { username: "ingestor", password: Redacted.make("secret") })
        yield* body(server, yield* openRedis(config, "events", 300), admin)
      }).pipe(Effect.scoped),
    30_000,
  )

/** A writer that retries each move until it is accepted, as the service does, and knows the expected result. */
class Writer {
  readonly #store: Client
  readonly written: Array<Block> = []
  serial = 0

  constructor(store: Client) {
    this.#store = store
  }

  /** Pushes two more blocks, retracts and replaces the top one, and finalizes all but the top. */
  readonly round = Effect.suspend(() => {
    const store = this.#store
    const written = this.written
    const fork = `round ${this.serial++}`
    return Effect.gen(function* () {
      const push = Effect.fnUntraced(function* (sizes: ReadonlyArray<number>, name: string) {
        const head = (yield* store.load(chain))?.head ?? emptyHead(1)
        const next = blocks(head.number + 1, name, sizes, head.hash || undefined)
        for (const move of pushes(head, next, false)) yield* store.push(chain, filter, move)
        written.push(...next)
      })
      yield* push([3, 5], fork)
      const { head } = (yield* store.load(chain))!
      yield* store.pop(chain, filter, { _tag: "Pop", expected: head })
      written.pop()
      yield* push([40], `${fork} again`)
      const top = (yield* store.load(chain))!
      const below = top.window.at(-2)!
      yield* store.finalize(chain, filter, {
        _tag: "Finalize",
        expected: top.head,
        number: below.number,
        hash: below.hash,
      })
      yield* store.trim(chain)
    })
  })

  /** After a failure, continues from what the store has. */
  readonly forget = Effect.suspend(() => {
    const store = this.#store
    const written = this.written
    return Effect.gen(function* () {
      const journal = yield* store.load(chain)
      while (written.length > 0 && written.at(-1)!.hash !== journal?.head.hash) written.pop()
    })
  })
}

/** Asserts that the journal has no fault and that the stream ends at the head. */
const isWhole = Effect.fnUntraced(function* (store: Client) {
  const { faults, blocks } = yield* replayOf(store, chain)
  assert.deepStrictEqual(faults, [])
  const journal = (yield* store.load(chain))!
  const top = journal.window.findLast(({ count }) => count > 0)
  assert.strictEqual(blocks.at(-1)?.hash, top?.hash)
  assert.strictEqual(blocks.at(-1)?.logs.length, top?.count)
})

const commands = (
  "xadd xtrim xlen xrange xrevrange xinfo hset hmget hgetall hincrby zadd zrem zrange zrevrange zrangebyscore " +
  "zremrangebyscore exists set evalsha eval"
).split(" ")

describe("RedisStore", () => {
  test("applies each move as a whole or not at all when a right is revoked and granted again [G-151]", (_, store, admin) =>
    Effect.gen(function* () {
      const writer = new Writer(store)
      yield* writer.round
      let refused = 0
      for (const command of commands) {
        yield* admin("ACL", "SETUSER", "ingestor", `-${command}`)
        for (let i = 0; i < 3; i++) {
          const result = yield* Effect.result(writer.round)
          if (Result.isSuccess(result)) continue
          refused++
          assert.instanceOf(result.failure, StoreError)
          assert.strictEqual((result.failure as StoreError).reason, "refused", command)
        }
        const answered = yield* Effect.result(store.ping(chain))
        if (["xadd", "hset", "zadd", "zrem", "zremrangebyscore", "xtrim"].includes(command))
          assert.isTrue(Result.isFailure(answered), `the probe notices that ${command} is missing`)
        yield* admin("ACL", "SETUSER", "ingestor", `+${command}`)
        yield* writer.forget
        yield* isWhole(store)
        yield* writer.round
        yield* isWhole(store)
      }
      assert.isAbove(refused, commands.length)
    }))

  test("fails a push with a missing right before it appends, also on Redis 6.2, which has no ACL check", (server, store, admin) =>
    Effect.gen(function* () {
      const writer = new Writer(store)
      yield* writer.round
      const source = (name: string) =>
        readFileSync(new URL(`../../../../src/store/redis/lua/${name}.lua`, import.meta.url), "utf8")
      const probe =
        `${source("common")}\n${source("retention")}\nmayWrite()\nredis.call('XADD', stream, '*', 'a', 'b')`.replaceAll(
          "redis.acl_check_cmd",
          "(nil)",
        )
      const key = `{events:${chain}}`
      const keys = [
        `events:${chain}`,
        ...["head", "window", "missed", "readers", "filters"].map((k) => `${key}:${k}`),
      ]
      const user = yield* Effect.acquireRelease(
        Effect.sync(() => server.client.duplicate({ username: "ingestor", password: "secret" })),
        (client) => Effect.sync(() => client.disconnect()),
      )
      for (const command of ["hset", "zadd", "zrem", "zremrangebyscore", "xtrim"]) {
        yield* admin("ACL", "SETUSER", "ingestor", `-${command}`)
        const before = yield* Effect.promise(() => server.client.xlen(keys[0]!))
        const refused = yield* Effect.promise(() =>
          user.eval(probe, keys.length, ...keys).then(
            () => "appended",
            (error: Error) => error.message,
          ),
        )
        assert.match(refused, /NOPERM|can't run this command/, command)
        assert.strictEqual(yield* Effect.promise(() => server.client.xlen(keys[0]!)), before)
        yield* admin("ACL", "SETUSER", "ingestor", `+${command}`)
      }
      yield* writer.round
      yield* isWhole(store)
    }))

  test("reports `corrupt` while a key is deleted or has another type [G-156]", (server, store) =>
    Effect.gen(function* () {
      const writer = new Writer(store)
      yield* writer.round
      const { client } = server
      const key = `{events:${chain}}`
      const move = Effect.gen(function* () {
        const head = (yield* store.load(chain))?.head ?? emptyHead(1)
        const [push] = [...pushes(head, blocks(head.number + 1, "x", [2], head.hash || undefined), false)]
        return yield* store.push(chain, filter, push!)
      })
      for (const name of [`events:${chain}`, `${key}:head`, `${key}:window`])
        for (const change of ["deleted", "of another type"]) {
          const dump = yield* Effect.promise(() => client.dumpBuffer(name))
          yield* Effect.promise(() => client.del(name))
          if (change === "of another type") yield* Effect.promise(() => client.set(name, "mine"))
          const error = yield* Effect.flip(move)
          assert.instanceOf(error, StoreError)
          assert.strictEqual((error as StoreError).reason, "corrupt", `${name} ${change}`)
          if (change === "deleted") assert.match((error as StoreError).detail, /event-ingestor reset/)
          yield* Effect.promise(() => client.del(name))
          yield* Effect.promise(() => client.restore(name, 0, dump))
          yield* isWhole(store)
          yield* writer.round
          yield* isWhole(store)
        }
    }))

  test("applies no move after a key was deleted, until it is restored [G-157]", (server, store) =>
    Effect.gen(function* () {
      const writer = new Writer(store)
      yield* writer.round
      const { client } = server
      const { head, window } = (yield* store.load(chain))!
      const [push] = [...pushes(head, blocks(head.number + 1, "x", [2], head.hash || undefined), false)]
      const below = window.at(-2)!
      const moves = [
        store.push(chain, filter, push!),
        store.pop(chain, filter, { _tag: "Pop", expected: head }),
        store.finalize(chain, filter, { ...below, _tag: "Finalize", expected: head }),
      ]
      const key = `{events:${chain}}`
      for (const name of [`events:${chain}`, `${key}:head`, `${key}:window`]) {
        yield* Effect.promise(() => client.rename(name, `${key}:aside`))
        for (const move of moves) assert.strictEqual((yield* move)._tag, "Conflict", name)
        assert.strictEqual(yield* Effect.promise(() => client.exists(name)), 0, name)
        assert.strictEqual((yield* Effect.flip(store.load(chain))).reason, "corrupt")
        yield* Effect.promise(() => client.rename(`${key}:aside`, name))
        yield* isWhole(store)
      }
      yield* writer.round
      yield* isWhole(store)
    }))

  test("applies no move after a consumer recreated a deleted stream, until it is restored", (server, store) =>
    Effect.gen(function* () {
      const writer = new Writer(store)
      yield* writer.round
      const { client } = server
      const stream = `events:${chain}`
      const { head } = (yield* store.load(chain))!
      const [empty, block] = blocks(head.number + 1, "x", [0, 2], head.hash || undefined)
      const [first] = [...pushes(head, [empty!], false)]
      yield* store.push(chain, filter, first!)
      const [move] = [...pushes(afterPush(first!), [block!], false)] as [Push]
      yield* Effect.promise(() => client.rename(stream, `${stream}:aside`))
      yield* Effect.promise(() => client.xgroup("CREATE", stream, "mine", "0", "MKSTREAM"))
      assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Conflict")
      assert.strictEqual(yield* Effect.promise(() => client.xlen(stream)), 0)
      assert.strictEqual((yield* Effect.flip(store.load(chain))).reason, "corrupt")
      yield* Effect.promise(() => client.rename(`${stream}:aside`, stream))
      assert.strictEqual((yield* store.push(chain, filter, move))._tag, "Pushed")
      yield* isWhole(store)
    }))

  test("reports `corrupt` when the last entries are missing, but not when older ones are [G-162]", (server, store) =>
    Effect.gen(function* () {
      const writer = new Writer(store)
      yield* writer.round
      const { client } = server
      const stream = `events:${chain}`
      const older = yield* Effect.promise(() => client.dumpBuffer(stream))
      yield* writer.round
      const newer = yield* Effect.promise(() => client.dumpBuffer(stream))
      yield* Effect.promise(() => client.restore(stream, 0, older, "REPLACE"))
      assert.strictEqual((yield* Effect.flip(store.load(chain))).reason, "corrupt")
      yield* Effect.promise(() => client.restore(stream, 0, newer, "REPLACE"))
      yield* Effect.promise(() => client.xtrim(stream, "MAXLEN", 45))
      const [last] = yield* Effect.promise(() => client.xrevrange(stream, "+", "-", "COUNT", 1))
      yield* Effect.promise(() => client.xdel(stream, last![0]))
      assert.isDefined(yield* store.load(chain))
    }))

  test("accepts what a reset, an early consumer group or version 1 leaves behind", (server, store, admin) =>
    Effect.gen(function* () {
      yield* admin("XGROUP", "CREATE", `events:${chain}`, "mine", "$", "MKSTREAM")
      assert.isUndefined(yield* store.load(chain))
      const writer = new Writer(store)
      yield* writer.round
      for (const options of [{ from: undefined }, { from: 5 }]) {
        yield* store.reset(chain, { ...options, filter, delete: false })
        assert.strictEqual((yield* store.load(chain))?.head.number, options.from && 4)
      }
      yield* store.reset(chain, { from: undefined, filter, delete: true })
      yield* writer.round
      yield* isWhole(store)
      const fields = ["version", "epoch", "epoch_reason", "first_number", "abi", "paused", "part_digest"]
      yield* Effect.promise(() => server.client.hdel(`{events:${chain}}:head`, ...fields))
      assert.strictEqual((yield* store.load(chain))!.head.part, 0)
      const hash: Hex | "" = (yield* store.load(chain))!.head.hash
      assert.notStrictEqual(hash, "")
    }))
})
