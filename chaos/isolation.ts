/**
 * One of four chains is in trouble, and the others must not be affected. Each node has a round trip of 20 ms, like a near
 * provider. The latency is the time from mining a block until its entries can be read.
 *
 * Phases with and without the trouble alternate, so that other load on the machine affects both alike. A phase without it
 * begins when the chain in trouble has caught up. The number of phases is fixed in advance, and all of them count.
 */
import { Cause, Effect, Random, Schedule } from "effect"
import { join } from "node:path"
import * as Devnet from "../test/support/devnet.ts"
import { directory } from "../test/support/directory.ts"
import type { Client } from "../test/support/ingestor.ts"
import { unimpaired } from "../test/support/Pipe.ts"
import * as Service from "../test/support/Service.ts"
import * as TcpProxy from "../test/support/TcpProxy.ts"
import { judge, nothingYet, record, recordMemory } from "./FaultPlan.ts"
import type { Outcome } from "./FaultPlan.ts"
import { errorsOf } from "./errors.ts"
import { memoryOf, observed } from "./memory.ts"
import { openReader, redisUrl, startRedis } from "./Cluster.ts"
import type { Kind } from "./Cluster.ts"

const names = ["one", "two", "three", "four"] as const

/** One-way latency in milliseconds. */
const distance = { ...unimpaired, latency: 10 }

/** The limit of the ratio between the others' median latencies with and without the trouble. */
const maxRatio = 1.2

interface Chain {
  readonly id: number
  readonly node: Effect.Success<ReturnType<typeof Devnet.start>>
  readonly proxy: TcpProxy.TcpProxy
}

/** The state of the chain in trouble. */
interface State {
  /** Blocks that its node has and the store does not. */
  readonly behind: number
  readonly defects: number
}

interface Trouble {
  readonly name: string
  /** Whether the trouble had an effect. */
  readonly hadEffect: (before: State, after: State) => boolean
  readonly begin: (chain: Chain, service: Service.Process) => void
  readonly end: (chain: Chain, service: Service.Process) => void
}

const fellBehind: Trouble["hadEffect"] = (before, after) => after.behind > before.behind + 3

const toggle: Trouble["begin"] = (_, service) => service.kill("SIGUSR2")

export const troubles: ReadonlyArray<Trouble> = [
  {
    name: "gone [G-193]",
    hadEffect: fellBehind,
    begin: ({ proxy }) => {
      proxy.refuse(true)
      proxy.cut()
    },
    end: ({ proxy }) => proxy.refuse(false),
  },
  {
    name: "crawling [G-194]",
    hadEffect: fellBehind,
    begin: ({ proxy }) => proxy.setConditions({ ...distance, rate: 400 }),
    end: ({ proxy }) => proxy.setConditions(distance),
  },
  {
    name: "throwing defects [G-198]",
    hadEffect: (before, after) => after.defects > before.defects,
    begin: toggle,
    end: toggle,
  },
]

const startChain = Effect.fnUntraced(function* (id: number) {
  const node = yield* Devnet.start([], id)
  const proxy = yield* TcpProxy.start(node.anvil.port)
  proxy.setConditions(distance)
  return { id, node, proxy } satisfies Chain
})

const startService = Effect.fnUntraced(function* (
  entry: string,
  chains: ReadonlyArray<Chain>,
  variables: Record<string, string>,
) {
  return yield* Service.start({
    entry,
    env: {
      ...variables,
      ...observed,
      SABOTAGE_PORT: String(chains[0]!.proxy.port),
      CHAINS: names.join(","),
      START_BLOCK: "0",
      REQUEST_TIMEOUT: "3s",
      STALL_TIMEOUT: "2s",
      ...Object.fromEntries(
        chains.flatMap(({ id, proxy }, i) => [
          [`${names[i]!.toUpperCase()}_CHAIN_ID`, String(id)],
          [`${names[i]!.toUpperCase()}_WS_URL`, `ws://127.0.0.1:${proxy.port}`],
        ]),
      ),
    },
  })
})

const openStore = Effect.fnUntraced(function* (kind: Kind) {
  if (kind === "redis") {
    const server = yield* startRedis
    return { store: yield* openReader(server), variables: { REDIS_URL: redisUrl(server.port) } }
  }
  const path = join(yield* directory, "events.db")
  return { store: yield* Devnet.openSqlite(path), variables: { DATABASE_PATH: path } }
})

const isStored = (store: Client, id: number, height: number) =>
  Effect.map(store.load(id), (journal) => (journal?.head.number ?? -1) >= height)

/** Mines a block and returns the milliseconds until it can be read. */
const sample = Effect.fnUntraced(function* (store: Client, { id, node }: Chain) {
  yield* node.block(5, 3)
  const since = performance.now()
  const { number } = yield* node.head
  yield* Effect.repeat(isStored(store, id, number), {
    until: (stored) => stored,
    schedule: Schedule.spaced("1 millis"),
  }).pipe(Effect.timeout("60 seconds"))
  return performance.now() - since
})

const quantileOf = (values: ReadonlyArray<number>, share: number) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * share)]!

const medianOf = (values: ReadonlyArray<number>) => quantileOf(values, 0.5)

const formatLatencies = (values: ReadonlyArray<number>) =>
  `p50 ${medianOf(values).toFixed(1)} ms, p95 ${quantileOf(values, 0.95).toFixed(1)} ms`

/** The latencies of the others over a number of blocks, while the first chain mines at the same pace. */
const phase = Effect.fnUntraced(function* (store: Client, chains: ReadonlyArray<Chain>, blocks: number) {
  const [first, ...others] = chains
  // The block time is random, so that the chains do not mine in step.
  const pause = Effect.flatMap(Random.nextIntBetween(40, 100), (millis) => Effect.sleep(millis))
  let over = false
  const mine = Effect.andThen(first!.node.block(5, 3), pause).pipe(Effect.repeat({ while: () => !over }))
  const measured = Effect.forEach(
    others,
    (chain) => Effect.replicateEffect(Effect.tap(sample(store, chain), pause), blocks),
    { concurrency: others.length },
  ).pipe(Effect.ensuring(Effect.sync(() => void (over = true))))
  const [, latencies] = yield* Effect.all([mine, measured], { concurrency: 2 })
  return latencies.flat()
})

export interface IsolationJob {
  readonly kind: Kind
  readonly brief: boolean
  readonly entry: string
  readonly seed: string
  /** No new trouble starts after this time (`performance.now`). */
  readonly until?: number
}

export const nameOf = ({ name }: Trouble) => `one of four chains ${name}, the others followed`

const isolate = Effect.fnUntraced(function* (job: IsolationJob, outcomes: Array<Outcome>) {
  const { kind, brief, entry, until = Infinity } = job
  const { store, variables } = yield* openStore(kind)
  const chains = yield* Effect.forEach([1, 2, 3, 4], (i) => startChain(Devnet.chainId + i))
  const service = yield* startService(entry, chains, variables)
  const [pairs, blocks] = brief ? [4, 10] : [6, 16]
  const first = chains[0]!
  const ended = Effect.flatMap(service.exit, (code) =>
    Effect.die(new Error(`the service exited unexpectedly with ${code}: ${service.errors().slice(-500)}`)),
  )
  const caughtUp = Effect.gen(function* () {
    const since = performance.now()
    yield* sample(store, first)
    return performance.now() - since
  })
  const state = Effect.gen(function* () {
    const { number } = yield* first.node.head
    const stored = (yield* store.load(first.id))?.head.number ?? -1
    const defects = yield* errorsOf(service, names[0], "defect")
    return { behind: number - stored, defects } satisfies State
  })
  const follow = Effect.gen(function* () {
    yield* caughtUp
    yield* phase(store, chains, blocks)
    const before = yield* memoryOf(service)
    const epochs = Effect.forEach(chains, ({ id }) =>
      Effect.map(store.stats(id), ({ epoch }) => epoch?.token),
    )
    const begun = JSON.stringify(yield* epochs)

    for (const trouble of troubles) {
      if (performance.now() > until) return
      const outcome = nothingYet({ name: nameOf(trouble) }, kind)
      outcomes.push(outcome)
      const [well, troubled]: [Array<number>, Array<number>] = [[], []]
      while (outcome.times < pairs) {
        well.push(...(yield* phase(store, chains, blocks)))
        const before = yield* state
        trouble.begin(first, service)
        troubled.push(...(yield* phase(store, chains, blocks)))
        const after = yield* state
        trouble.end(first, service)
        if (!trouble.hadEffect(before, after)) {
          outcome.problems.push(`the trouble had no effect: ${JSON.stringify({ before, after })}`)
        }
        outcome.recoveries.push(yield* caughtUp)
        outcome.times++
      }
      const ratio = medianOf(troubled) / medianOf(well)
      outcome.notes.push(
        `latency ${formatLatencies(well)} before, ${formatLatencies(troubled)} meanwhile (${((ratio - 1) * 100).toFixed(1)} %)`,
      )
      if (ratio > maxRatio)
        outcome.problems.push(`the others became slower by more than ${(maxRatio - 1) * 100} %`)
      for (const chain of chains) {
        yield* sample(store, chain)
        record(outcome, yield* judge(store, chain.id, chain.node, { from: 0 }))
      }
      if (JSON.stringify(yield* epochs) !== begun)
        outcome.problems.push("an epoch began, and nothing was lost")
      recordMemory(outcome, (yield* memoryOf(service)) - before)
    }
  })
  yield* Effect.raceFirst(follow, ended)
})

/** Runs each trouble in turn. */
export const run = (job: IsolationJob): Effect.Effect<ReadonlyArray<Outcome>> => {
  const outcomes: Array<Outcome> = []
  return isolate(job, outcomes).pipe(
    Effect.scoped,
    Effect.catchCause((cause) =>
      Effect.sync(() => {
        if (outcomes.length === 0) outcomes.push(nothingYet({ name: nameOf(troubles[0]!) }, job.kind))
        outcomes.at(-1)!.problems.push(Cause.pretty(cause))
      }),
    ),
    Effect.as(outcomes),
    Random.withSeed(job.seed),
  )
}
