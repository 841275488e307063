/** The storage of a fleet on a real Redis. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted, Schedule } from "effect"
import type { Scope } from "effect"
import { RunnerAddress } from "effect/cluster/RunnerAddress"
import type * as RunnerStorage from "effect/cluster/RunnerStorage"
import { Runner } from "effect/cluster/Runner"
import * as ShardId from "effect/cluster/ShardId"
import * as FleetStorage from "../../../src/fleet/FleetStorage.ts"
import { keyPrefix, makeCall } from "../../../src/fleet/FleetScript.ts"
import { memberNamed, nameIn } from "../../../src/fleet/Sharding.ts"
import { StoreError } from "../../../src/store/StoreError.ts"
import * as RedisServer from "../../support/RedisServer.ts"
import { standalone } from "../../support/redisStore.ts"

const ttl = Duration.millis(600)
const keys = keyPrefix("events", "test", [])
const [membersKey, holdsKey] = [`${keys}:members`, `${keys}:holds`]

const unreachable = new StoreError({ operation: "fleet", reason: "unreachable", detail: "cut off" })

interface Replica {
  readonly acquire: (...shards: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<number>>
  readonly holds: (...shards: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<number>>
  readonly release: (shard: number) => Effect.Effect<void>
  readonly leave: Effect.Effect<void>
  /** Among whom the shards are dealt. */
  readonly members: Effect.Effect<ReadonlyArray<string>>
  /** Ends its heartbeats and its calls, as `kill -9` does. */
  readonly cut: (isCut: boolean) => void
  /** Why heartbeats failed. */
  readonly failures: Array<StoreError>
}

const idOf = (shard: number) => ShardId.make("default", shard)

const join = Effect.fnUntraced(function* (
  server: RedisServer.RedisServer,
  name: string,
  user: Parameters<typeof standalone>[1] = {},
  heartbeat = Duration.millis(50),
) {
  const send = yield* makeCall(standalone(server.port, user), keys, ttl)
  const failures: Array<StoreError> = []
  let isCut = false
  let members: ReadonlyArray<string> = []
  const options: FleetStorage.FleetStorageOptions = {
    call: (...args) => Effect.suspend(() => (isCut ? Effect.fail(unreachable) : send(...args))),
    // Each member wants all shards: the script decides which one gets them.
    share: (present) => {
      members = present.map(nameIn).toSorted()
      return [1, 2, 3].map((shard) => `default:${shard}`)
    },
    ttl,
    heartbeat,
    debounce: Duration.zero,
    mayWrite: Effect.void,
    onHeartbeat: (error) => Effect.sync(() => void (error && failures.push(error))),
  }
  const storage: RunnerStorage.RunnerStorage["Service"] = yield* FleetStorage.make(options)
  const address = RunnerAddress.make({ host: name, port: 1 })
  const replica: Replica = {
    acquire: (...shards) =>
      Effect.map(Effect.orDie(storage.acquire(address, shards.map(idOf))), (held) =>
        held.map(({ id }) => id),
      ),
    holds: (...shards) =>
      Effect.map(Effect.orDie(storage.refresh(address, shards.map(idOf))), (held) =>
        held.map(({ id }) => id),
      ),
    release: (shard) => Effect.orDie(storage.release(address, idOf(shard))),
    leave: Effect.orDie(storage.releaseAll(address)),
    members: Effect.sync(() => members),
    cut: (cut) => void (isCut = cut),
    failures,
  }
  const register = storage.register(Runner.make({ address, groups: ["default"], weight: 1 }), true)
  return { replica, register, options }
})

const joined = Effect.fnUntraced(function* (...args: Parameters<typeof join>) {
  const { replica, register } = yield* join(...args)
  // As Sharding does: a busy machine may answer too late.
  yield* Effect.retry(register, Schedule.spaced("50 millis"))
  return replica
})

const until = <A, E>(effect: Effect.Effect<A, E>, done: (value: A) => boolean) =>
  Effect.repeat(effect, { until: done, schedule: Schedule.spaced("10 millis") })

const membersAre = (replica: Replica, ...names: ReadonlyArray<string>) =>
  until(replica.members, (members) => members.join() === names.join())

const test = (
  title: string,
  body: (server: RedisServer.RedisServer) => Effect.Effect<unknown, unknown, Scope.Scope>,
) => it.live(title, () => Effect.scoped(Effect.flatMap(RedisServer.start(), body)), 30_000)

describe("the storage of a fleet", () => {
  test("grants a shard to one replica, until it is released", (server) =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([joined(server, "one"), joined(server, "two")])
      assert.deepStrictEqual(yield* one.acquire(1, 2), [1, 2])
      assert.deepStrictEqual(yield* two.acquire(1, 2, 3), [3])
      assert.deepStrictEqual(yield* one.acquire(1), [1])
      yield* two.release(1)
      assert.deepStrictEqual(yield* two.acquire(1), [], "it was not the holder")
      yield* one.release(1)
      assert.deepStrictEqual(yield* two.acquire(1), [1])
      yield* membersAre(one, "one", "two")
    }))

  test("takes a silent replica for gone, which learns of it when Redis answers again", (server) =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([joined(server, "one"), joined(server, "two")])
      yield* one.acquire(1, 2)
      one.cut(true)
      const taken = yield* until(two.acquire(1), (held) => held.length > 0)
      assert.deepStrictEqual(taken, [1])
      yield* membersAre(two, "two")
      assert.deepStrictEqual(yield* one.holds(1, 2), [1, 2], "nothing is given up while Redis is silent")
      one.cut(false)
      yield* until(one.holds(1, 2), (held) => held.join() === "2")
      yield* membersAre(two, "one", "two")
    }))

  test("takes a silent replica for gone also with the longest heartbeat that may be configured", (server) =>
    Effect.gen(function* () {
      const longest = Duration.millis(Duration.toMillis(ttl) / 2)
      const one = yield* joined(server, "one", {}, longest)
      const two = yield* joined(server, "two")
      yield* membersAre(one, "one", "two")
      two.cut(true)
      yield* membersAre(one, "one")
    }))

  test("forgets a replica that ended before the clock of Redis was set back by an hour", (server) =>
    Effect.gen(function* () {
      const end = Date.now() + 3_600_000
      yield* Effect.promise(() => server.client.zadd(membersKey, end, memberNamed("ended").description))
      yield* Effect.promise(() => server.client.hset(holdsKey, "default:1", `${end} ended:1`))
      const one = yield* joined(server, "one")
      yield* membersAre(one, "ended", "one")
      yield* membersAre(one, "one")
      assert.deepStrictEqual(yield* until(one.acquire(1), (held) => held.length > 0), [1])
    }))

  test("keeps holds and members while Redis is away, and gives the others time to come back after it", (server) =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([joined(server, "one"), joined(server, "two")])
      yield* membersAre(one, "one", "two")
      yield* one.acquire(1)
      two.cut(true)
      server.kill("SIGSTOP")
      yield* until(
        Effect.sync(() => one.failures.length),
        (failures) => failures >= 2,
      )
      assert.deepStrictEqual(yield* one.holds(1), [1])
      server.kill("SIGCONT")
      yield* until(one.acquire(1), (held) => held.length > 0)
      assert.deepStrictEqual(yield* one.members, ["one", "two"], "two has not been heard of")
      yield* membersAre(one, "one")
    }))

  test("waits after a short outage, too, for the replicas that come back last", (server) =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([joined(server, "one"), joined(server, "two")])
      yield* membersAre(one, "one", "two")
      two.cut(true)
      one.cut(true)
      yield* until(
        Effect.sync(() => one.failures.length),
        (failures) => failures >= 1,
      )
      one.cut(false)
      const sawTwo = yield* until(
        Effect.suspend(() => Effect.promise(() => server.client.zcount(membersKey, Date.now(), "+inf"))),
        (present) => present === 1,
      ).pipe(Effect.andThen(one.acquire(1)), Effect.andThen(one.members))
      assert.deepStrictEqual(sawTwo, ["one", "two"], "Redis has not heard of two for a whole silence")
      yield* membersAre(one, "one")
    }))

  test("gives everything back at once when a replica leaves, and does not bring it back", (server) =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([joined(server, "one"), joined(server, "two")])
      yield* one.acquire(1, 2)
      yield* one.leave
      assert.deepStrictEqual(yield* two.acquire(1, 2), [1, 2])
      assert.deepStrictEqual(yield* one.acquire(3), [])
      yield* membersAre(two, "two")
      yield* Effect.promise(() => server.client.zcard(membersKey)).pipe(
        Effect.tap((members) => Effect.sync(() => assert.strictEqual(members, 1))),
        Effect.repeat(Schedule.max([Schedule.spaced("20 millis"), Schedule.recurs(10)])),
      )
    }))

  test("works at the memory limit of Redis", (server) =>
    Effect.gen(function* () {
      const one = yield* joined(server, "one")
      yield* Effect.promise(() => server.client.config("SET", "maxmemory", "1"))
      const error = yield* Effect.flip(Effect.tryPromise(() => server.client.set("key", "value")))
      assert.match(String(error.cause), /OOM/)
      const two = yield* joined(server, "two")
      assert.deepStrictEqual(yield* one.acquire(1), [1])
      yield* membersAre(one, "one", "two")
      yield* one.leave
      assert.deepStrictEqual(yield* two.acquire(1), [1])
      assert.deepStrictEqual([...one.failures, ...two.failures], [])
    }))

  test("keeps the reports of the replicas for a while, and gives each with its age", (server) =>
    Effect.gen(function* () {
      yield* Effect.promise(() => server.client.config("SET", "maxmemory", "1"))
      const call = yield* makeCall(standalone(server.port), keys, ttl)
      const report = (...fields: ReadonlyArray<string>) => call("report", "report", "600", "", "", ...fields)
      const reports = (age: number) =>
        Effect.map(call("reports", "reports", String(age), "", ""), ([found]) => found)
      assert.deepStrictEqual(yield* reports(1000), [])
      yield* report("a", '{"head":1}', "b", "{}")
      yield* until(reports(900), (found) => found.length === 0)
      yield* report("a", '{"head":2} and more')
      const [chain, age, text, ...more] = yield* reports(900)
      assert.deepStrictEqual([chain, text, more], ["a", '{"head":2} and more', []])
      assert.isBelow(Number(age), 900)
      const all = yield* reports(10_000)
      assert.sameMembers([all[0], all[3]], ["a", "b"])
      const left = yield* Effect.promise(() => server.client.pttl(`${keys}:reports`))
      assert.isAbove(left, 50_000)
      assert.isAtMost(left, 60_000)
    }))

  test("says that the Redis user may not write the fleet's keys", (server) =>
    Effect.gen(function* () {
      const rights = ["on", ">secret", "~{events:1}*", "~events:1", "+@all"]
      yield* Effect.promise(() => server.client.call("ACL", "SETUSER", "ingestor", ...rights))
      const user = { username: "ingestor", password: Redacted.make("secret") }
      const { replica, register } = yield* join(server, "one", user)
      assert.strictEqual((yield* Effect.flip(register))._tag, "PersistenceError")
      assert.match(replica.failures[0]!.message, /NOPERM.*key/)
    }))

  test("leaves no key behind when its replicas are gone", (server) =>
    Effect.gen(function* () {
      const one = yield* joined(server, "one")
      yield* one.acquire(1)
      for (const key of [membersKey, holdsKey]) {
        const left = yield* Effect.promise(() => server.client.pttl(key))
        assert.isAbove(left, 0)
        assert.isAtMost(left, 100 * Duration.toMillis(ttl))
      }
      // One slot of a Cluster.
      assert.match(membersKey, /^\{[^{}]*\}:members$/)
      assert.match(holdsKey, /^\{[^{}]*\}:holds$/)
    }))
})
