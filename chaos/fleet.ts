/**
 * A fleet whose replicas share four chains while everything happens at once: replicas are killed, stopped, frozen and started, Redis is
 * frozen, and the chains grow and fork. When it is quiet again, each chain has one follower, shares are even, and the journal equals the chain. Then a
 * replica is killed and one is stopped while nothing else happens: their chains are silent no longer than promised.
 */
import { Cause, Effect, Random, Schedule, Scope } from "effect"
import * as Fleet from "../test/support/fleet.ts"
import type { FleetChain } from "../test/support/fleet.ts"
import type { Client } from "../test/support/ingestor.ts"
import * as RedisServer from "../test/support/RedisServer.ts"
import { openRedis, standalone } from "../test/support/redisStore.ts"
import * as Service from "../test/support/Service.ts"
import { judge, nothingYet, record } from "./FaultPlan.ts"
import type { Outcome } from "./FaultPlan.ts"

export const name = "a fleet: kill -9, SIGTERM, joins, frozen replicas, frozen Redis, in any order [G-224]"

const chainCount = 4
/** As many replicas as there are at least and at most between two faults. */
const [fewest, most] = [2, 4]
/** Milliseconds between two faults. None is waited for. */
const pauses = { shortest: 100, longest: 2500 } as const
/** Milliseconds for which a replica, or Redis, is frozen: shorter and longer than a silent replica counts as present. */
const freezes = { shortest: 500, longest: 7000 } as const
/** Longer than it takes to notice a silent replica, to deal its chains out, and to end what overlaps, on a machine that is shared. */
const quietWithin = "60 seconds"

/** Milliseconds for which the chains of a replica that ends are silent at most, by the block time. */
const longestSilence = {
  SIGKILL: () => 6000,
  SIGTERM: (blockTime: number) => 1000 + blockTime,
} as const

interface Replicas {
  readonly chains: ReadonlyArray<FleetChain>
  readonly server: RedisServer.RedisServer
  readonly store: Client
  readonly running: Set<Service.Process>
  readonly frozen: Set<Service.Process>
  /** When Redis goes on, if it is frozen. */
  isRedisFrozen: boolean
  readonly start: Effect.Effect<void>
  readonly outcome: Outcome
}

const ended = (replicas: Replicas, replica: Service.Process) => {
  replicas.running.delete(replica)
  replicas.frozen.delete(replica)
}

/** A replica that runs and is not frozen. */
const anyOf = ({ running, frozen }: Replicas) =>
  Effect.map(Random.shuffle([...running].filter((one) => !frozen.has(one))), ([first]) => first)

type Signal = keyof typeof longestSilence

const endOne = (replicas: Replicas, replica: Service.Process, signal: Signal) =>
  Effect.gen(function* () {
    ended(replicas, replica)
    const watch = cleanly(replicas, replica)
    replica.kill(signal)
    if (signal === "SIGTERM") yield* Effect.forkScoped(watch)
  })

/** Ends a replica. Its place is taken at once where too few would be left. */
const end = (signal: Signal) => (replicas: Replicas) =>
  Effect.gen(function* () {
    const replica = yield* anyOf(replicas)
    if (replica === undefined) return
    yield* endOne(replicas, replica, signal)
    if (replicas.running.size < fewest) yield* replicas.start
  })

/** A replica that is stopped ends by itself with 0, or by the signal where it has only begun to start. */
const cleanly = ({ outcome }: Replicas, replica: Service.Process) => {
  const expected = replica.output() === "" ? [0, "SIGTERM"] : [0]
  return replica.exit.pipe(
    Effect.timeoutOrElse({ duration: "40 seconds", orElse: () => Effect.succeed("nothing" as const) }),
    Effect.map((code) => {
      if (expected.includes(code)) return
      outcome.problems.push(`a replica ended with ${code} on SIGTERM: ${replica.output().slice(-1500)}`)
    }),
  )
}

const join = (replicas: Replicas) =>
  Effect.suspend(() => (replicas.running.size < most ? replicas.start : Effect.void))

/** Lets something go on later, while other faults happen. */
const goOnLater = (goOn: () => void) =>
  Effect.gen(function* () {
    const millis = yield* Random.nextIntBetween(freezes.shortest, freezes.longest)
    yield* Effect.forkScoped(Effect.andThen(Effect.sleep(millis), Effect.sync(goOn)))
  })

const freeze = (replicas: Replicas) =>
  Effect.gen(function* () {
    const replica = yield* anyOf(replicas)
    if (replica === undefined) return
    replicas.frozen.add(replica)
    replica.kill("SIGSTOP")
    yield* goOnLater(() => {
      replicas.frozen.delete(replica)
      replica.kill("SIGCONT")
    })
  })

const freezeRedis = (replicas: Replicas) =>
  Effect.gen(function* () {
    if (replicas.isRedisFrozen) return
    replicas.isRedisFrozen = true
    replicas.server.kill("SIGSTOP")
    yield* goOnLater(() => {
      replicas.isRedisFrozen = false
      replicas.server.kill("SIGCONT")
    })
  })

const faults = [end("SIGKILL"), end("SIGTERM"), join, freeze, freezeRedis]

const spaced = Schedule.spaced("100 millis")

/** Waits until nothing is frozen any more, each chain has one follower, and the shares are even. */
const quiet = (replicas: Replicas) =>
  Effect.gen(function* () {
    const { chains, frozen, running } = replicas
    yield* Effect.repeat(
      Effect.sync(() => frozen.size === 0 && !replicas.isRedisFrozen),
      { until: (calm) => calm, schedule: spaced },
    )
    yield* Fleet.shared([...running], chains)
    yield* Fleet.untilMined(chains, 3)
    yield* Fleet.sharedEvenly([...running], chains)
  })

const stateOf = (replicas: Replicas) =>
  Effect.forEach([...replicas.running], (replica) =>
    Effect.map(Effect.exit(Effect.timeout(Fleet.statusOf(replica), "2 seconds")), (status) =>
      JSON.stringify([replica.pid, status, replica.output().slice(-1500)]),
    ),
  )

/** A row of faults, and then a quiet moment in which the fleet is judged. */
const round = (replicas: Replicas, count: number) =>
  Effect.gen(function* () {
    const { chains, store, outcome } = replicas
    const since = yield* Fleet.whileMining(
      chains,
      Effect.gen(function* () {
        for (let i = 0; i < count; i++) {
          const [fault] = yield* Random.shuffle(faults)
          yield* fault!(replicas)
          outcome.times++
          yield* Effect.sleep(yield* Random.nextIntBetween(pauses.shortest, pauses.longest))
        }
        const last = performance.now()
        yield* Effect.timeoutOrElse(quiet(replicas), {
          duration: quietWithin,
          orElse: () =>
            Effect.map(stateOf(replicas), (states) =>
              outcome.problems.push(
                `the chains were not shared, each once and evenly, ${quietWithin} after the last fault`,
                ...states,
              ),
            ),
        })
        return last
      }),
    )
    yield* Fleet.untilStored(store, chains).pipe(
      Effect.timeoutOrElse({
        duration: quietWithin,
        orElse: () => Effect.sync(() => outcome.problems.push("the store was not at the head of each chain")),
      }),
    )
    outcome.recoveries.push(performance.now() - since)
    for (const chain of chains) record(outcome, yield* judge(store, chain.id, chain, { from: 0 }))
  })

/** Ends a replica while nothing else happens, and measures for how long its chains are silent. */
const timed = (replicas: Replicas, signal: Signal) =>
  Effect.gen(function* () {
    const { chains, server, running, outcome } = replicas
    while (running.size <= fewest) yield* replicas.start
    yield* Fleet.sharedEvenly([...running], chains)
    yield* Fleet.untilMined(chains, 3)
    const [replica] = running
    const moved = Fleet.followedBy(yield* Fleet.statusOf(replica!))
    const since = Date.now()
    yield* endOne(replicas, replica!, signal)
    yield* Fleet.shared([...running], chains)
    yield* Fleet.untilMined(chains, 3)
    const silences = (isMoved: boolean) =>
      Effect.map(
        Effect.forEach(
          chains.filter(({ name }) => moved.includes(name) === isMoved),
          (chain) => Fleet.longestSilence(server.client, chain, since),
        ),
        (all) => Math.max(...all),
      )
    // The chains that stay show the block time, which depends on what else the machine does.
    const [silent, blockTime] = [yield* silences(true), yield* silences(false)]
    outcome.times++
    outcome.notes.push(`${signal}: silent for ${silent} ms, the others for ${blockTime} ms`)
    const longest = longestSilence[signal](blockTime)
    if (silent > longest)
      outcome.problems.push(`after ${signal}, a chain was silent for ${silent} ms, longer than ${longest}`)
  }).pipe(
    Effect.timeoutOrElse({
      duration: quietWithin,
      orElse: () =>
        Effect.sync(() =>
          replicas.outcome.problems.push(`after ${signal}, some chain had no follower within ${quietWithin}`),
        ),
    }),
  )

export interface FleetRun {
  readonly entry: string
  /** How many faults there are between two quiet moments. */
  readonly faults: number
  /** When it is too late to begin another round (`performance.now`). */
  readonly until: number
  readonly seed: string
  /** Whether silences are measured: only where nothing else takes the machine. */
  readonly isAlone: boolean
}

export const run = ({ entry, faults, until, seed, isAlone }: FleetRun): Effect.Effect<Outcome> => {
  const outcome = nothingYet({ name }, "redis")
  return Effect.gen(function* () {
    const scope = yield* Effect.scope
    const server = yield* RedisServer.start()
    const chains = yield* Fleet.startChains(chainCount)
    const env = Fleet.environment(chains, { REDIS_URL: server.url, STALL_TIMEOUT: "60s" })
    const running = new Set<Service.Process>()
    const start = Service.start({ entry, env }).pipe(
      Effect.map((replica) => void running.add(replica)),
      Scope.provide(scope),
    )
    const store = yield* openRedis(standalone(server.port))
    const replicas: Replicas = {
      chains,
      server,
      store,
      running,
      frozen: new Set(),
      isRedisFrozen: false,
      start,
      outcome,
    }
    for (let i = 0; i < fewest + 1; i++) yield* start
    yield* Fleet.shared([...running], chains)
    do {
      yield* round(replicas, faults)
      if (isAlone)
        for (const signal of ["SIGKILL", "SIGTERM"] as const)
          yield* Fleet.whileMining(chains, timed(replicas, signal))
    } while (performance.now() < until)
  }).pipe(
    Effect.scoped,
    Effect.catchCause((cause) => Effect.sync(() => void outcome.problems.push(Cause.pretty(cause)))),
    Effect.as(outcome),
    Random.withSeed(seed),
  )
}
