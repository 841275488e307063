/** Three replicas of a fleet in one process, in virtual time, on a storage in memory that behaves as `fleet.lua` does. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Layer, Scope } from "effect"
import * as RunnerStorage from "effect/cluster/RunnerStorage"
import { TestClock } from "effect/testing"
import type { Followable } from "../../../src/fleet/Fleet.ts"
import * as FleetStorage from "../../../src/fleet/FleetStorage.ts"
import type { Answer, FleetStorageOptions } from "../../../src/fleet/FleetStorage.ts"
import { shared, shareOf, times } from "../../../src/fleet/Sharding.ts"
import { StoreError } from "../../../src/store/StoreError.ts"

const names = ["a", "b", "c", "d", "e", "f", "g", "h"]

/** A server with the keys of one fleet. */
const makeServer = () => {
  const members = new Map<string, number>()
  const holds = new Map<string, { readonly who: string; readonly until: number }>()
  const call = (
    now: number,
    [verb, given, me = "", description = "", ...shards]: ReadonlyArray<string>,
  ): Answer => {
    const until = now + Number(given)
    const holder = (shard: string) => {
      const hold = holds.get(shard)
      return hold !== undefined && hold.until > now ? hold.who : undefined
    }
    const held: Array<string> = []
    if (verb === "hold") {
      for (const shard of shards) {
        if ((holder(shard) ?? me) !== me) continue
        holds.set(shard, { who: me, until })
        held.push(shard)
      }
      members.set(description, until)
    }
    const present = () => [...members].filter(([, until]) => until > now).map(([member]) => member)
    if (verb === "leave") members.delete(description)
    const released = verb === "leave" ? [...holds.keys()] : verb === "release" ? shards : []
    for (const shard of released) if (holder(shard) === me) holds.delete(shard)
    return [held, present()]
  }
  return { call, isUp: true }
}

type Server = ReturnType<typeof makeServer>

const away = new StoreError({ operation: "fleet", reason: "unreachable", detail: "away" })

/** A replica, what it follows, and in which order. */
const join = Effect.fnUntraced(function* (server: Server, replica: string) {
  const scope = yield* Scope.make()
  const following = new Set<string>()
  const rivals = new Map<string, number>()
  const state = { isReached: true, starts: 0, others: true }
  const chains = names.map((name): Followable<never> => ({
    name,
    follow: Effect.never,
    overtaken: () => rivals.get(name) ?? 0,
    onStart: Effect.sync(() => {
      state.starts++
      following.add(name)
    }),
    onStop: Effect.sync(() => void following.delete(name)),
  }))
  const options: FleetStorageOptions = {
    call: (_, ...args) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        server.isUp && state.isReached ? Effect.sync(() => server.call(now, args)) : Effect.fail(away),
      ),
    share: shareOf(names.length),
    ttl: times.ttl,
    debounce: times.debounce,
    heartbeat: Duration.millis(500),
    mayWrite: Effect.void,
    onHeartbeat: () => Effect.void,
  }
  const share = shared({
    replica,
    storage: Layer.effect(RunnerStorage.RunnerStorage, FleetStorage.make(options)),
    times,
    hasOthers: () => state.others,
  })
  yield* Scope.provide(share(chains), scope)
  return {
    following,
    state,
    /** Another replica has written a chain. */
    overtake: (name: string) => rivals.set(name, (rivals.get(name) ?? 0) + 1),
    stop: Scope.close(scope, Exit.void),
  }
})

type Replica = Effect.Success<ReturnType<typeof join>>

const followedBy = (replicas: ReadonlyArray<Replica>) => replicas.flatMap(({ following }) => [...following])

/** Virtual milliseconds until these replicas follow all chains together. */
const untilCovered = Effect.fnUntraced(function* (...replicas: ReadonlyArray<Replica>) {
  const before = yield* Clock.currentTimeMillis
  while (new Set(followedBy(replicas)).size < names.length) yield* TestClock.adjust("50 millis")
  return (yield* Clock.currentTimeMillis) - before
})

/** Lets every pending handover end, as if the other replica had not written anything. */
const settled = TestClock.adjust("12 seconds")

const assertEven = (...replicas: ReadonlyArray<Replica>) => {
  assert.deepStrictEqual(followedBy(replicas).toSorted(), names)
  const sizes = replicas.map(({ following }) => following.size)
  assert.isAtMost(Math.max(...sizes) - Math.min(...sizes), 1, sizes.join())
}

const three = Effect.gen(function* () {
  const server = makeServer()
  const replicas = yield* Effect.forEach(["one", "two", "three"] as const, (name) => join(server, name))
  yield* settled
  return { server, replicas: replicas as [Replica, Replica, Replica] }
})

describe("a fleet", () => {
  it.effect("deals all chains out evenly, each to one replica", () =>
    Effect.gen(function* () {
      const { replicas } = yield* three
      assertEven(...replicas)
    }),
  )

  it.effect("has shares that differ by one chain at most, whichever replicas leave and join", () =>
    Effect.gen(function* () {
      const server = makeServer()
      const replicas = yield* Effect.forEach(["one", "two", "three", "four", "five"], (name) =>
        join(server, name),
      )
      yield* settled
      assertEven(...replicas)
      while (replicas.length > 1) {
        const [leaving] = replicas.splice(0, 1)
        yield* Effect.forkChild(leaving!.stop)
        yield* settled
        assertEven(...replicas)
      }
      for (const name of ["six", "seven", "eight"]) {
        replicas.push(yield* join(server, name))
        yield* settled
        assertEven(...replicas)
      }
    }),
  )

  it.effect("gives a single replica all chains at once", () =>
    Effect.gen(function* () {
      const one = yield* join(makeServer(), "one")
      assert.isAtMost(yield* untilCovered(one), 1000)
    }),
  )

  it.effect("replaces a silent replica within 6 s, and stops none of the chains of the others", () =>
    Effect.gen(function* () {
      const { replicas } = yield* three
      const [one, two, three_] = replicas
      const before = [...two.following, ...three_.following]
      one.state.isReached = false
      assert.isAtMost(yield* untilCovered(two, three_), 6000)
      assert.includeMembers(followedBy([two, three_]), before)
      assert.isNotEmpty(one.following, "it follows its chains until it learns that it has lost them")
      one.state.isReached = true
      yield* settled
      assertEven(...replicas)
    }),
  )

  it.effect("moves and stops no chain while the storage is away", () =>
    Effect.gen(function* () {
      const { server, replicas } = yield* three
      const before = replicas.map(({ following, state }) => [[...following], state.starts])
      server.isUp = false
      yield* TestClock.adjust("1 minute")
      const now = () => replicas.map(({ following, state }) => [[...following], state.starts])
      assert.deepStrictEqual(now(), before)
      server.isUp = true
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(now(), before)
    }),
  )

  it.effect("follows a chain that it gives away until another replica has written it, for at most 5 s", () =>
    Effect.gen(function* () {
      const { replicas } = yield* three
      const [one, two, three_] = replicas
      const chains = [...one.following]
      const stopping = yield* Effect.forkChild(one.stop)
      assert.isAtMost(yield* untilCovered(two, three_), 1000)
      assert.deepStrictEqual([...one.following], chains)
      one.overtake(chains[0]!)
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual([...one.following], chains.slice(1))
      yield* TestClock.adjust("5 seconds")
      assert.isEmpty(one.following)
      assert.isDefined(stopping.pollUnsafe())
    }),
  )

  it.effect("stops at once where no other replica is present", () =>
    Effect.gen(function* () {
      const one = yield* join(makeServer(), "one")
      yield* untilCovered(one)
      one.state.others = false
      const stopping = yield* Effect.forkChild(one.stop)
      yield* TestClock.adjust("200 millis")
      assert.isEmpty(one.following)
      assert.isDefined(stopping.pollUnsafe())
    }),
  )
})
