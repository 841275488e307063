/** A fleet of real replicas, on real chains and a real Redis. */
import { assert } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import type { Redis } from "ioredis"
import * as Devnet from "./devnet.ts"
import { fetchFrom, jsonFrom } from "./http.ts"
import type { Client } from "./ingestor.ts"
import { judgeByNode } from "./oracle.ts"
import type * as Service from "./Service.ts"

export interface FleetChain extends Devnet.Devnet {
  readonly name: string
  readonly id: number
}

/** Starts chains, each with a contract of its own. */
export const startChains = (count: number): Effect.Effect<ReadonlyArray<FleetChain>, unknown, Scope.Scope> =>
  Effect.forEach(
    Array.from({ length: count }, (_, i) => i),
    (i) =>
      Effect.map(Devnet.start([], Devnet.chainId + i), (devnet) => ({
        ...devnet,
        name: `chain-${i}`,
        id: Devnet.chainId + i,
      })),
    { concurrency: 4 },
  )

/** The environment of a replica. */
export const environment = (
  chains: ReadonlyArray<FleetChain>,
  variables: Readonly<Record<string, string>>,
) => ({
  CHAINS: chains.map(({ name }) => name).join(),
  FLEET: "test",
  ...Object.fromEntries(
    chains.flatMap(({ name, id, anvil }) => {
      const prefix = name.toUpperCase().replace("-", "_")
      return [
        [`${prefix}_CHAIN_ID`, String(id)],
        [`${prefix}_WS_URL`, anvil.url],
        [`${prefix}_START_BLOCK`, "0"],
      ]
    }),
  ),
  ...variables,
})

/** The part of `/status` that tests read. */
export interface ReplicaStatus {
  readonly ready: boolean
  readonly fleet: {
    readonly replica: string
    readonly is_member: boolean
    readonly error: string | null
    readonly members: ReadonlyArray<string>
    readonly chains: Readonly<Record<string, string>>
  }
  readonly chains: ReadonlyArray<{
    readonly name: string
    readonly phase: string
    readonly replica: string | null
    readonly ready: boolean
    readonly reasons: ReadonlyArray<string>
    readonly stored: number | null
    readonly endpoints: ReadonlyArray<{ readonly connects: number }>
  }>
}

export const statusOf = (process: Service.Process): Effect.Effect<ReplicaStatus, Error> =>
  Effect.flatMap(process.port, (port) =>
    Effect.map(jsonFrom(port, "/status"), ({ body }) => body as ReplicaStatus),
  )

/** The names of the chains that a replica follows. */
export const followedBy = ({ chains, fleet }: ReplicaStatus): ReadonlyArray<string> =>
  chains
    .filter(({ phase, replica }) => phase !== "elsewhere" && replica === fleet.replica)
    .map(({ name }) => name)

type Named = Pick<FleetChain, "name">

/** Waits until the replicas follow each chain once, and their shares are as wanted. */
const untilShared = (
  replicas: ReadonlyArray<Service.Process>,
  chains: ReadonlyArray<Named>,
  isWanted: (sizes: ReadonlyArray<number>) => boolean,
) => {
  const names = chains.map(({ name }) => name)
  return Effect.forEach(replicas, (replica) => Effect.map(statusOf(replica), followedBy)).pipe(
    Effect.repeat({
      until: (shares) =>
        shares.flat().toSorted().join() === names.join() && isWanted(shares.map(({ length }) => length)),
      schedule: Schedule.spaced("100 millis"),
    }),
  )
}

/** Waits until the replicas follow each chain once. */
export const shared = (replicas: ReadonlyArray<Service.Process>, chains: ReadonlyArray<Named>) =>
  untilShared(replicas, chains, () => true)

/** Waits until the replicas follow each chain once, and none follows two more than another. */
export const sharedEvenly = (replicas: ReadonlyArray<Service.Process>, chains: ReadonlyArray<Named>) =>
  untilShared(replicas, chains, (sizes) => Math.max(...sizes) - Math.min(...sizes) <= 1)

/** Mines blocks with logs on every chain, sometimes with a reorg, until the effect has ended. */
export const whileMining = <A, E, R>(chains: ReadonlyArray<FleetChain>, effect: Effect.Effect<A, E, R>) => {
  let isOver = false
  const mine = (chain: FleetChain, i: number) => {
    let height = 0
    return Effect.gen(function* () {
      yield* chain.block(2, 1)
      // Not the block that deployed the contract.
      if (++height % 7 === 3 + (i % 4)) {
        yield* chain.reorg(2)
        yield* chain.block(1)
      }
      yield* Effect.sleep("300 millis") // The block time of the chain: no test waits for it.
    }).pipe(Effect.repeat({ while: () => !isOver }))
  }
  const over = Effect.sync(() => void (isOver = true))
  return Effect.map(
    Effect.all([Effect.ensuring(effect, over), Effect.forEach(chains, mine, { concurrency: "unbounded" })], {
      concurrency: 2,
    }),
    ([result]) => result,
  )
}

/** Waits until each of the chains, which are being mined, has this many more blocks. */
export const untilMined = (chains: ReadonlyArray<FleetChain>, blocks: number) =>
  Effect.forEach(
    chains,
    ({ head }) =>
      Effect.flatMap(head, ({ number }) =>
        Effect.repeat(head, {
          until: (now) => now.number >= number + blocks,
          schedule: Schedule.spaced("100 millis"),
        }),
      ),
    { concurrency: "unbounded", discard: true },
  )

/** The longest time (milliseconds) since then in which nothing was stored of a chain that is being mined. */
export const longestSilence = (redis: Redis, { id }: Pick<FleetChain, "id">, since: number) =>
  Effect.promise(async () => {
    const entries = await redis.xrange(`events:${id}`, since, "+")
    const times = [...entries.map(([id]) => Number.parseInt(id)), Date.now()]
    return Math.max(...times.map((time, i) => time - (times[i - 1] ?? since)))
  })

/** Waits until the store has the head of every chain. */
export const untilStored = (store: Client, chains: ReadonlyArray<FleetChain>) =>
  Effect.forEach(
    chains,
    ({ id, head }) =>
      Effect.gen(function* () {
        const { number, hash } = yield* head
        yield* Effect.orElseSucceed(store.load(id), () => undefined).pipe(
          Effect.repeat({
            until: (journal) => journal?.head.number === number && journal.head.hash === hash,
            schedule: Schedule.spaced("50 millis"),
          }),
        )
      }),
    { discard: true },
  )

/** Waits until the store has the head of every chain, and compares it with the nodes. */
export const assertComplete = (store: Client, chains: ReadonlyArray<FleetChain>) =>
  Effect.andThen(
    untilStored(store, chains),
    Effect.forEach(
      chains,
      ({ id, node, head }) =>
        Effect.gen(function* () {
          const { verdict } = yield* judgeByNode(store, id, node, (yield* head).number)
          const { lost, doubled, faults } = verdict
          assert.deepStrictEqual({ lost, doubled, faults }, { lost: 0, doubled: 0, faults: [] })
        }),
      { discard: true },
    ),
  )

/** The value of each chain's series of a metric. */
export const seriesOf = (process: Service.Process, metric: string) =>
  Effect.gen(function* () {
    const { text } = yield* fetchFrom(yield* process.port, "/metrics")
    const series = new RegExp(`^event_ingestor_${metric}\\{chain="([^"]+)"[^}]*\\} (\\S+)$`, "gm")
    return new Map([...text.matchAll(series)].map(([, chain, value]) => [chain!, Number(value)]))
  })
