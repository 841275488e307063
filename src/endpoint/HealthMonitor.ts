/**
 * Compares the endpoint in use with the standby endpoints.
 *
 * Fails over when the endpoint in use is silent although another endpoint has a new block, and when it lags behind the
 * others. If all endpoints are silent, the chain has no new blocks. Fails back to a preferred endpoint once it has been
 * connected for a while and does not lag.
 */
import { Clock, Effect, Schedule } from "effect"
import * as Monotonic from "../Monotonic.ts"
import * as Eth from "./Eth.ts"
import { Stalled } from "./EndpointError.ts"
import { recordSuccess, isStable } from "./PoolMember.ts"
import type { PoolMember } from "./PoolMember.ts"

/** The last head announced by the endpoint in use, its time (monotonic milliseconds), and the block time (0: unknown). */
export interface Announced {
  readonly number: number
  readonly at: number
  readonly blockTime: number
  /** How late heads may arrive (milliseconds), where they are polled. */
  readonly late?: number
}

export interface Pool {
  /** The other connected endpoints, preferred ones first. */
  readonly others: () => ReadonlyArray<PoolMember>
  readonly announced: () => Announced | undefined
  /** Switches to another endpoint. */
  readonly use: (one: PoolMember) => Effect.Effect<void>
}

/** Silence after which the other endpoints are queried: in block times, and at least in milliseconds. */
const silentBlockTimes = 1.5
const minSilence = 2000

/** Interval of comparisons, and longest interval of probes while the chain is silent. */
const interval = 15_000

/** Tolerated lag in blocks and in milliseconds; the larger one applies. */
const blocksBehind = 3
const timeBehind = 6000

/** Time to catch up before a failover: a tenth of a block time, within these limits (milliseconds). */
const minGracePeriod = 100
const maxGracePeriod = 1000

/** The head reported by an endpoint; -1 without a response. */
const headOf = ({ connection }: PoolMember) =>
  Eth.blockNumber(connection).pipe(
    Effect.timeoutOrElse({ duration: minSilence, orElse: () => Effect.succeed(-1) }),
    Effect.orElseSucceed(() => -1),
  )

const headsOf = (endpoints: ReadonlyArray<PoolMember>) =>
  Effect.forEach(endpoints, (one) => Effect.map(headOf(one), (head) => ({ one, head })), {
    concurrency: "unbounded",
  })

/** Monitors one endpoint while it is in use. */
export const watch = Effect.fnUntraced(function* (inUse: PoolMember, { others, announced, use }: Pool) {
  const clock = yield* Clock.Clock
  const now = () => Monotonic.millisUnsafe(clock)
  const blockTime = () => announced()?.blockTime ?? 0
  const late = () => announced()?.late ?? 0
  const headAt = () => announced()?.number ?? -1

  const gracePeriod = Effect.suspend(() =>
    Effect.sleep(Math.min(Math.max(blockTime() / 10, minGracePeriod), maxGracePeriod)),
  )

  const failOver = (detail: string) =>
    Effect.suspend(() => {
      const seconds = (now() - (announced()?.at ?? inUse.since)) / 1000
      return inUse.connection.end(new Stalled({ seconds, detail }))
    })

  /** Also queries the silent endpoint: it may have the block that it does not announce. */
  const probeStall = Effect.gen(function* () {
    const before = headAt()
    const heads = yield* headsOf([inUse, ...others()])
    const highest = Math.max(...heads.map(({ head }) => head))
    if (highest <= before) return
    yield* gracePeriod
    if (headAt() === before)
      yield* failOver(`the chain is at ${highest}, the last announced head is ${before}`)
  })

  const watchSilence = Effect.gen(function* () {
    const silence = () => Math.max(silentBlockTimes * blockTime(), minSilence) + late()
    let last = announced()
    let wait = silence()
    for (;;) {
      yield* Effect.sleep(wait)
      const head = announced()
      if (head !== undefined && head !== last) {
        last = head
        wait = Math.max(head.at + silence() - now(), 1)
      } else {
        if (others().length > 0) yield* probeStall
        // A probe costs one call per endpoint, so the interval doubles while the chain is silent.
        wait = Math.max(Math.min(wait * 2, interval), silence())
      }
    }
  })

  const lagThreshold = () =>
    Math.max(blocksBehind, blockTime() > 0 ? Math.ceil((timeBehind + late()) / blockTime()) : 0)

  const isBehind = Effect.gen(function* () {
    const ownHead = headAt()
    const otherHeads = yield* headsOf(others())
    for (const { one, head } of otherHeads)
      if (head >= 0 && head >= ownHead - lagThreshold()) yield* recordSuccess(one)
    return ownHead >= 0 && otherHeads.some(({ head }) => head > ownHead + lagThreshold())
  })

  const failBack = Effect.gen(function* () {
    const preferred = others().filter((other) => other.rank < inUse.rank && isStable(other, now()))
    const before = headAt()
    const best = (yield* headsOf(preferred)).find(({ head }) => head >= before)
    if (best === undefined) return
    yield* use(best.one)
  })

  const compare = Effect.gen(function* () {
    if (others().length === 0) return
    if (yield* isBehind) {
      yield* gracePeriod
      if (yield* isBehind) return yield* failOver("lags behind the other endpoints")
    }
    yield* failBack
  })

  yield* Effect.all([watchSilence, Effect.repeat(compare, Schedule.spaced(interval))], {
    concurrency: "unbounded",
    discard: true,
  })
})
