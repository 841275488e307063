/** The consumer library beside the shortest loop that reads the same stream: speed of a backfill, memory, lag behind a live chain. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterPush, emptyHead } from "../../src/store/Journal.ts"
import type { Position } from "../../src/store/Journal.ts"
import { pushes } from "../../src/store/Pushes.ts"
import type { Store } from "../../src/store/Store.ts"
import { directory } from "../../test/support/directory.ts"
import * as PostgresServer from "../../test/support/PostgresServer.ts"
import * as RedisServer from "../../test/support/RedisServer.ts"
import { openRedis, standalone } from "../../test/support/redisStore.ts"
import { base, Chain } from "../chain.ts"
import type { Contents } from "../chain.ts"
import { loadAverage, now, start } from "../child.ts"
import type { Cost } from "../run.ts"
import { median, quantile } from "../statistics.ts"
import { redisCpuSeconds, verify } from "../store.ts"
import type { ConsumerNews, ConsumerOrder, ConsumerReport, Target } from "../subjects/consumerMain.ts"
import { summary } from "./sustained.ts"
import type { Sustained } from "./sustained.ts"

export interface Lag {
  readonly subject: string
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** CPU in percent of one core. */
  readonly cpu: number
  readonly loadAverage: number
}

export interface Consumer {
  /** Backfill of blocks of 200 logs, and of blocks of one log. */
  readonly dense: ReadonlyArray<Sustained>
  readonly sparse: ReadonlyArray<Sustained>
  /** Peak resident memory in MB of backfills of two lengths. */
  readonly memory: ReadonlyArray<{
    readonly subject: string
    readonly logs: number
    readonly peak: number
    readonly loadAverage: number
  }>
  readonly lags: ReadonlyArray<Lag>
}

/** So many blocks of so many logs. */
interface Shape {
  readonly blocks: number
  readonly logs: number
}

/** The blocks that can be retracted while a chain is followed: five seconds of the load. */
const unfinal = 250
const filter = "none"

const chainOf = ({ logs }: Shape) => new Chain(900_001, { logs, bloom: false })

const contentsOf = ({ blocks, logs }: Shape): Contents => {
  let checksum = 0
  for (let number = base + 1; number <= base + blocks; number++)
    checksum += logs * number + (logs * (logs - 1)) / 2
  return { count: blocks * logs, checksum }
}

/** Writes blocks of a chain as the service does, from a position on. @returns the position after them */
const write = Effect.fnUntraced(function* (
  store: Store,
  chain: Chain,
  from: Position,
  to: number,
  final: boolean,
) {
  let at = from
  const blocks = function* () {
    for (let number = from.number + 1; number <= to; number++) yield chain.block(number)
  }
  for (const push of pushes(from, blocks(), final)) {
    const { _tag } = yield* store.push(chain.id, filter, push)
    if (_tag !== "Pushed") return yield* Effect.die(new Error(`the push: ${_tag}`))
    at = afterPush(push)
  }
  return at
}, Effect.orDie)

/** A Redis with an empty stream. */
const openStream = Effect.gen(function* () {
  const redis = yield* RedisServer.start()
  return { redis, store: yield* openRedis(standalone(redis.port)) }
})

type Subject = Pick<ConsumerOrder, "reader" | "target">
const nameOf = ({ reader, target }: Subject) => `${reader}, ${target}`

interface Started {
  /** Its first handler was entered. */
  readonly began: Promise<void>
  readonly done: Promise<ConsumerReport>
}

const startConsumer = Effect.fnUntraced(function* (
  order: Omit<ConsumerOrder, "database">,
): Effect.fn.Return<Started, never, Scope.Scope> {
  const database =
    order.target === "Postgres" ? yield* PostgresServer.start : join(yield* directory, "logs.db")
  const file = new URL("../subjects/consumerMain.ts", import.meta.url)
  const { process: child } = yield* start(file, [JSON.stringify({ ...order, database })], {}, { ipc: true })
  const began = Promise.withResolvers<void>()
  const done = Promise.withResolvers<ConsumerReport>()
  child.on("message", (news: ConsumerNews) => (news._tag === "Began" ? began.resolve() : done.resolve(news)))
  child.once("exit", () => {
    for (const { promise, reject } of [began, done]) {
      promise.catch(() => {})
      reject(new Error(`${nameOf(order)}: the consumer has ended`))
    }
  })
  return { began: began.promise, done: done.promise }
})

/** One consumer reads a whole stream that is final. */
const backfill = Effect.fnUntraced(function* (
  redis: RedisServer.RedisServer,
  shape: Shape,
  subject: Subject,
): Effect.fn.Return<Cost, never, Scope.Scope> {
  const expected = contentsOf(shape)
  const loadBefore = loadAverage()
  const cpu = Effect.promise(() => redisCpuSeconds(redis.client))
  const before = yield* cpu
  const { done } = yield* startConsumer({
    ...subject,
    redisPort: redis.port,
    chain: 900_001,
    logs: expected.count,
    timed: false,
  })
  const report = yield* Effect.promise(() => done)
  yield* verify(nameOf(subject), report.contents, expected)
  return {
    perSecond: (expected.count / report.milliseconds) * 1000,
    cpu: report.cpu / expected.count,
    redisCpu: (((yield* cpu) - before) / expected.count) * 1e6,
    peak: report.peak,
    loadAverage: loadBefore,
  }
}, Effect.scoped)

const withStream = <A>(
  shape: Shape,
  use: (redis: RedisServer.RedisServer) => Effect.Effect<A, never, Scope.Scope>,
): Effect.Effect<A> =>
  Effect.gen(function* () {
    const { redis, store } = yield* openStream
    yield* write(store, chainOf(shape), emptyHead(base + 1), base + shape.blocks, true)
    return yield* use(redis)
  }).pipe(Effect.scoped)

const backfills = (shape: Shape, targets: ReadonlyArray<Target>, rounds: number) =>
  withStream(
    shape,
    Effect.fnUntraced(function* (redis) {
      const pairs = targets.map((target) => ({ target, bare: [] as Array<Cost>, ours: [] as Array<Cost> }))
      for (let round = 0; round < rounds; round++) {
        for (const { target, bare, ours } of pairs) {
          bare.push(yield* backfill(redis, shape, { reader: "bare", target }))
          ours.push(yield* backfill(redis, shape, { reader: "ours", target }))
        }
      }
      return pairs.flatMap(({ target, bare, ours }) => [
        summary(`bare, ${target}`, bare, bare),
        summary(`ours, ${target}`, ours, bare),
      ])
    }),
  )

const memory = Effect.fnUntraced(function* (
  targets: ReadonlyArray<Target>,
  lengths: ReadonlyArray<number>,
): Effect.fn.Return<Consumer["memory"]> {
  const peaks = yield* Effect.forEach(lengths, (logs) => {
    const shape = { blocks: logs / 200, logs: 200 }
    return withStream(shape, (redis) =>
      Effect.forEach(targets, (target) => {
        const subject = { reader: "ours", target } as const
        return Effect.map(backfill(redis, shape, subject), ({ peak, loadAverage }) => ({
          subject: nameOf(subject),
          logs,
          peak,
          loadAverage,
        }))
      }),
    )
  })
  return peaks.flat()
})

/** A live chain, written at a steady pace. */
interface LiveLoad {
  readonly logs: number
  readonly blocksPerSecond: number
  /** Seconds that do not count. */
  readonly warmUp: number
  readonly seconds: number
}

/** From the push of a block by this process until the consumer's handler is entered. */
const lag = Effect.fnUntraced(function* (
  { logs, blocksPerSecond, warmUp, seconds }: LiveLoad,
  subject: Subject,
): Effect.fn.Return<Lag, never, Scope.Scope> {
  const shape = { blocks: 1 + blocksPerSecond * (warmUp + seconds), logs }
  const chain = chainOf(shape)
  const loadBefore = loadAverage()
  const { redis, store } = yield* openStream
  const { began, done } = yield* startConsumer({
    ...subject,
    redisPort: redis.port,
    chain: chain.id,
    logs: shape.blocks * logs,
    timed: true,
  })
  let at = yield* write(store, chain, emptyHead(base + 1), base + 1, false)
  yield* Effect.promise(() => began)
  const since = now()
  const written = [since]
  for (let i = 1; i < shape.blocks; i++) {
    const due = since + (i * 1000) / blocksPerSecond
    yield* Effect.promise(() => sleep(Math.max(due - now(), 0)))
    written.push(now())
    at = yield* write(store, chain, at, base + 1 + i, false)
    if (i % blocksPerSecond > 0 || i < unfinal) continue
    const { number, hash } = chain.block(base + 1 + i - unfinal)
    yield* Effect.orDie(store.finalize(chain.id, filter, { _tag: "Finalize", expected: at, number, hash }))
  }
  const report = yield* Effect.promise(() => done)
  yield* verify(nameOf(subject), report.contents, contentsOf(shape))
  const lags = report.entered.map((at, i) => at - written[i]!).slice(1 + blocksPerSecond * warmUp)
  return {
    subject: nameOf(subject),
    p50: quantile(lags, 0.5),
    p99: quantile(lags, 0.99),
    max: quantile(lags, 1),
    cpu: (report.cpu / 1000 / report.milliseconds) * 100,
    loadAverage: loadBefore,
  }
}, Effect.scoped)

const lags = Effect.fnUntraced(function* (load: LiveLoad, targets: ReadonlyArray<Target>, rounds: number) {
  const subjects = targets.flatMap((target) =>
    (["bare", "ours"] as const).map((reader) => ({ reader, target })),
  )
  const all: Array<Lag> = []
  for (let round = 0; round < rounds; round++)
    for (const subject of subjects) all.push(yield* lag(load, subject))
  return subjects.map((one): Lag => {
    const subject = nameOf(one)
    const middle = (field: Exclude<keyof Lag, "subject">) =>
      median(all.filter((lag) => lag.subject === subject).map((lag) => lag[field]))
    return {
      subject,
      p50: middle("p50"),
      p99: middle("p99"),
      max: middle("max"),
      cpu: middle("cpu"),
      loadAverage: middle("loadAverage"),
    }
  })
})

export const consumer = (rounds: number): Effect.Effect<Consumer> =>
  Effect.all({
    dense: backfills({ blocks: 1000, logs: 200 }, ["no-op", "SQLite", "Postgres"], rounds),
    sparse: backfills({ blocks: 100_000, logs: 1 }, ["no-op", "SQLite", "Postgres"], rounds),
    memory: memory(["no-op", "SQLite"], [100_000, 1_000_000]),
    lags: lags({ logs: 200, blocksPerSecond: 50, warmUp: 5, seconds: 10 }, ["no-op", "SQLite"], rounds),
  })
