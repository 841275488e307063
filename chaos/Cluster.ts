/**
 * The system under test: a real node that constantly mines and reorgs, a real store, and the built service between them,
 * which reaches both through its own proxies.
 */
import { Effect, Random, Schedule, Schema, Scope, Semaphore } from "effect"
import type { Duration } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { blockByNumber } from "../src/endpoint/Eth.ts"
import * as Devnet from "../test/support/devnet.ts"
import { directory } from "../test/support/directory.ts"
import type { Client } from "../test/support/ingestor.ts"
import * as RedisServer from "../test/support/RedisServer.ts"
import { openRedis, standalone } from "../test/support/redisStore.ts"
import * as Service from "../test/support/Service.ts"
import { observed } from "./memory.ts"
import * as TcpProxy from "../test/support/TcpProxy.ts"
import { RedisRequests, WebSocketFrames } from "../test/support/wire.ts"

/**
 * The effect of a fault on the epoch. `lost`: an acknowledged entry is gone, so exactly one new epoch begins. `perhaps`: none
 * or one, because possibly only an unacknowledged entry is gone. `begun`, `reset`: everything is gone, and the journal starts
 * over.
 */
export type Expected = "kept" | "lost" | "perhaps" | "begun" | "reset"

export const kinds = ["sqlite", "redis"] as const
export type Kind = (typeof kinds)[number]

/** One service, and its connections to the node and the store. */
export interface Ingestor {
  /** The proxy in front of the node. */
  readonly ws: TcpProxy.TcpProxy
  /** The proxy in front of Redis. */
  readonly redis: TcpProxy.TcpProxy | undefined
  readonly process: () => Service.Process
  /** Marks the process's exit as expected. */
  readonly expectExit: () => void
  /** Sends `kill -9` and waits for the exit. */
  readonly kill: Effect.Effect<void>
  /** Restarts it. */
  readonly start: Effect.Effect<void>
  /** Runs a command of the same program, in the same environment, until it exits. */
  readonly command: (...args: ReadonlyArray<string>) => ReturnType<typeof Service.run>
  /** Additional environment variables, effective from the next start. */
  variables: Readonly<Record<string, string>>
  /** Shifts its wall clock by so many milliseconds, also after a restart. */
  readonly shiftClock: (millis: number) => Effect.Effect<void>
}

export interface RedisBehind {
  /** The server that has the data now: a replica may replace it. */
  server: RedisServer.RedisServer
}

export interface Cluster {
  readonly kind: Kind
  /** Whether faults are as short as possible. */
  readonly brief: boolean
  readonly node: Effect.Success<ReturnType<typeof Devnet.start>>
  /** Another chain of the same service and store, which no fault affects. */
  readonly neighbour: Effect.Success<ReturnType<typeof Devnet.start>> | undefined
  readonly redis: RedisBehind | undefined
  /** The path of the SQLite file. */
  readonly file: string | undefined
  readonly ingestors: ReadonlyArray<Ingestor>
  /** Reads the store without any proxy. */
  store: Client
  /** The first block of the journal. */
  from: number
  /** Held while the chain grows by a step; its holder has exclusive access to the chain. */
  readonly chain: Semaphore.Semaphore
  /** The identities of entries that a fault deleted, and whether it trimmed the oldest ones. */
  readonly deleted: Set<string>
  trimmed: boolean
  /** The expected effect of the current fault on the epoch. */
  epoch: Expected
  /** Violations, as sentences. */
  readonly problems: Array<string>
}

export interface ClusterOptions {
  readonly kind: Kind
  readonly brief: boolean
  /** The built service. */
  readonly entry: string
  /** How many services share the chain and the store (default 1). */
  readonly ingestors?: number
  /** Whether there is a neighbour chain (default: no). */
  readonly neighbour?: boolean
  /** Where violations are reported. */
  readonly problems: Array<string>
}

/**
 * A silent provider is noticed sooner than by default, so that ten minutes are enough for many faults. The rate limit is far
 * above the request rate: only a shifted clock could make it run out.
 */
const shortTimeouts = { STALL_TIMEOUT: "2s", REQUEST_TIMEOUT: "3s", RPC_RATE: "1000" }

/** The service's own user, whose rights faults may revoke, and its own database. */
export const user = "ingestor"
const password = "secret"
const database = 1

/** A careful Redis setup: an append-only file that is synced every second, no eviction, one user per program. */
const redisArguments =
  `--appendonly yes --appendfsync everysec --user ${user} on >${password} ~* &* +@all`.split(" ")

/** A server whose client, for changes behind the store's back, uses the service's database. */
export const startRedis = Effect.tap(RedisServer.start(redisArguments), ({ client }) =>
  Effect.promise(() => client.select(database)),
)

/** The URL for the service. @param port of the server, or of a proxy in front of it */
export const redisUrl = (port: number) => `redis://${user}:${password}@127.0.0.1:${port}/${database}`

export const openReader = (server: RedisServer.RedisServer) =>
  openRedis(standalone(server.port, { database }))

/** The id of the neighbour chain. */
export const neighbourId = Devnet.chainId + 1

const startIngestor = Effect.fnUntraced(function* (
  entry: string,
  nodePort: number,
  neighbour: Devnet.Devnet | undefined,
  store: { readonly path: string } | { readonly port: number },
  problems: Array<string>,
) {
  const scope = yield* Effect.scope
  const { nextDoubleUnsafe: random } = yield* Random.Random
  const ws = yield* TcpProxy.start(nodePort, { random, cutters: { target: () => new WebSocketFrames() } })
  const redis =
    "port" in store
      ? yield* TcpProxy.start(store.port, { random, cutters: { client: () => new RedisRequests() } })
      : undefined
  const clock = join(yield* directory, "clock")
  const env = Devnet.environment(`ws://127.0.0.1:${ws.port}`, {
    ...shortTimeouts,
    ...observed,
    CLOCK_FILE: clock,
    DEVNET_START_BLOCK: "latest",
    ...(neighbour && {
      CHAINS: "devnet,neighbour",
      NEIGHBOUR_CHAIN_ID: String(neighbourId),
      NEIGHBOUR_WS_URL: neighbour.anvil.url,
      NEIGHBOUR_START_BLOCK: "0",
    }),
    ...("path" in store ? { DATABASE_PATH: store.path } : { REDIS_URL: redisUrl(redis!.port) }),
  })
  let shifts = 0
  let process: Service.Process
  let expectedToExit: Service.Process | undefined
  const expectExit = () => void (expectedToExit = process)

  const start = Effect.gen(function* () {
    const started = yield* Service.start({ entry, env: { ...env, ...ingestor.variables } })
    process = started
    yield* started.exit.pipe(
      Effect.tap((code) =>
        Effect.sync(() => {
          if (expectedToExit === started) return
          problems.push(`the service exited unexpectedly with ${code}: ${started.errors().slice(-500)}`)
        }),
      ),
      Effect.forkIn(scope),
    )
  }).pipe((started) => Scope.provide(started, scope))
  const ingestor: Ingestor = {
    ws,
    redis,
    process: () => process,
    expectExit,
    kill: Effect.suspend(() => {
      expectExit()
      process.kill("SIGKILL")
      return Effect.asVoid(process.exit)
    }),
    start,
    command: (...args) => Service.run({ entry, env, args }),
    variables: {},
    shiftClock: (millis) =>
      Effect.suspend(() => {
        writeFileSync(clock, `${++shifts} ${millis}`)
        process.kill("SIGURG")
        return Effect.asVoid(process.says(new RegExp(`clock ${shifts}: ${millis} ms`)))
      }),
  }
  yield* start
  return ingestor
})

/** The interval between two steps of the chain, in milliseconds. */
const steps = { shortest: 80, longest: 320 } as const

/** One step of the chain: a block of several transactions, or a reorg and a block. */
const step = Effect.fnUntraced(function* ({ node }: Cluster) {
  const sizes = yield* Effect.replicateEffect(Random.nextIntBetween(0, 9), yield* Random.nextIntBetween(0, 4))
  yield* node.block(...sizes)
  if ((yield* Random.next) > 0.15) return
  yield* node.reorg(yield* Random.nextIntBetween(1, 6))
  yield* node.block(3)
})

/** Runs with exclusive access to the chain: nothing is mined meanwhile. */
export const alone = (cluster: Cluster) => cluster.chain.withPermit

/** Lets the chain grow and fork while the effect runs. */
export const whileItGrows = <A, E, R>(cluster: Cluster, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    let over = false
    const grow = Effect.gen(function* () {
      yield* alone(cluster)(step(cluster))
      // The block time of this chain.
      yield* Effect.sleep(yield* Random.nextIntBetween(steps.shortest, steps.longest))
    }).pipe(Effect.repeat({ while: () => !over }))
    const stop = Effect.sync(() => void (over = true))
    const [, result] = yield* Effect.all([grow, Effect.ensuring(effect, stop)], { concurrency: 2 })
    return result
  })

export class Late extends Schema.TaggedError<Late>()("Late", {}) {
  override get message() {
    return "the store was not at the node's head in time"
  }
}

/** Longer than the longest delay of a breaker, with its jitter. */
const catchUpTimeout = "100 seconds"

/** Whether the node still has this block. */
const isCanonical = (
  { node }: Cluster,
  { number, hash }: { readonly number: number; readonly hash: string },
) => Effect.map(blockByNumber(node.node, number), (block) => block?.hash === hash)

/**
 * Waits until the store has the node's head, or, while the chain goes on growing, a canonical block of at least this height:
 * a store that is always a block behind would never have the head itself.
 */
export const caughtUp = (
  cluster: Cluster,
  height?: number,
  within: Duration.Input = catchUpTimeout,
): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    const journal = yield* Effect.orElseSucceed(cluster.store.load(Devnet.chainId), () => undefined)
    const head = journal?.head
    if (head === undefined || head.part !== 0) return false
    if (height !== undefined) return head.number >= height && (yield* isCanonical(cluster, head))
    return (yield* cluster.node.head).hash === head.hash
  }).pipe(
    Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("15 millis") }),
    Effect.timeoutOrElse({
      duration: within,
      orElse: () => Effect.fail(new Late()),
    }),
    Effect.asVoid,
  )

/** Mines a block and waits until it is stored. */
export const another = (cluster: Cluster, within?: Duration.Input) =>
  Effect.gen(function* () {
    const { number } = yield* alone(cluster)(Effect.andThen(cluster.node.block(2), cluster.node.head))
    yield* caughtUp(cluster, number, within)
  })

const openStore = Effect.fnUntraced(function* (kind: Kind) {
  if (kind === "sqlite") {
    const path = join(yield* directory, "events.db")
    return { redis: undefined, store: yield* Devnet.openSqlite(path), where: { path } }
  }
  const server = yield* startRedis
  return { redis: { server }, store: yield* openReader(server), where: { port: server.port } }
})

/** Verifies that the neighbour chain is followed without interruption. */
export const neighbourGoesOn = Effect.fnUntraced(function* ({ neighbour, store, problems }: Cluster) {
  yield* neighbour!.block(3, 2)
  const { number } = yield* neighbour!.head
  yield* Effect.orElseSucceed(store.load(neighbourId), () => undefined).pipe(
    Effect.repeat({
      until: (journal) => (journal?.head.number ?? -1) >= number,
      schedule: Schedule.spaced("15 millis"),
    }),
    Effect.timeoutOrElse({
      duration: "3 seconds",
      orElse: () => Effect.sync(() => problems.push("the neighbour chain was not followed")),
    }),
  )
})

/** Starts everything and lets the service follow the chain for a moment. */
export const start = Effect.fnUntraced(function* (options: ClusterOptions) {
  const node = yield* Devnet.start(["--gas-limit", "1000000000"])
  // More than the deepest reorg.
  for (let i = 0; i < 8; i++) yield* node.block(2)
  const neighbour = options.neighbour ? yield* Devnet.start([], neighbourId) : undefined
  const { redis, store, where } = yield* openStore(options.kind)
  const ingestors: Array<Ingestor> = []
  for (let i = 0; i < (options.ingestors ?? 1); i++) {
    ingestors.push(yield* startIngestor(options.entry, node.anvil.port, neighbour, where, options.problems))
  }
  const { kind, brief, problems } = options
  const cluster: Cluster = {
    kind,
    brief,
    node,
    neighbour,
    redis,
    file: "path" in where ? where.path : undefined,
    ingestors,
    store,
    from: 0,
    chain: yield* Semaphore.make(1),
    deleted: new Set(),
    trimmed: false,
    epoch: "kept",
    problems,
  }
  // Traffic for a while, so that the baseline of the memory is that of a warm process.
  yield* whileItGrows(
    cluster,
    Effect.andThen(caughtUp(cluster), Effect.sleep(brief ? "1 second" : "3 seconds")),
  )
  yield* caughtUp(cluster)
  cluster.from = (yield* store.load(Devnet.chainId))!.start.number
  return cluster
})
