/** Inflicts faults on a cluster. After each one it measures the recovery and verifies the journal. */
import { Cause, Effect, Option, Random, Schedule } from "effect"
import { compare, replay } from "../src/cli/comparison.ts"
import { chainId } from "../test/support/devnet.ts"
import type { Devnet } from "../test/support/devnet.ts"
import type { Client } from "../test/support/ingestor.ts"
import { allEpochs, compareEpochs } from "./epochs.ts"
import type { Fault } from "./Fault.ts"
import { memoryOf } from "./memory.ts"
import { another, caughtUp, neighbourId, start, whileItGrows } from "./Cluster.ts"
import type { Kind, Cluster, ClusterOptions } from "./Cluster.ts"

export interface Outcome {
  readonly fault: string
  readonly kind: Kind
  times: number
  lost: number
  doubled: number
  /** Milliseconds from the end of each fault until the store was at the node's head for good. */
  readonly recoveries: Array<number>
  /** Milliseconds from a store answering again until a move is accepted. */
  readonly resumptions: Array<number>
  /** All other problems, as sentences. */
  readonly problems: Array<string>
  /** Other measurements, as sentences. */
  readonly notes: Array<string>
  /** How many new epochs began. */
  epochs: number
  /** By how many bytes the memory of the service has grown since before the faults. */
  grown: number
}

export const nothingYet = ({ name }: Pick<Fault, "name">, kind: Kind): Outcome => ({
  fault: name,
  kind,
  times: 0,
  lost: 0,
  doubled: 0,
  recoveries: [],
  resumptions: [],
  problems: [],
  notes: [],
  epochs: 0,
  grown: 0,
})

/**
 * Memory is flat: a service may hold this much more (MiB) than when it was warm, garbage not counted. What the allocator
 * keeps after a block of 20 000 logs has been seen to be 21.
 */
export const mostGrown = 32

/** The limit of the time (milliseconds) from the store answering again to an accepted move, however long the outage. */
export const latestResumption = 1500

/** How many faults of one journal are reported individually. */
const mostReported = 5

const mebi = 1024 * 1024

const mostOf = (cluster: Cluster) =>
  Effect.map(
    Effect.forEach(cluster.ingestors, ({ process }) => memoryOf(process())),
    (all) => Math.max(...all),
  )

/** Compares the journal with the node. Entries that a fault deleted on purpose are not lost. */
export const judge = Effect.fnUntraced(function* (
  store: Client,
  chain: number,
  { node, head }: Pick<Devnet, "node" | "head">,
  { from, trimmed = false, deleted }: { from: number; trimmed?: boolean; deleted?: ReadonlySet<string> },
) {
  const { number } = yield* head
  const journal = yield* replay(store, chain, { fromTheBeginning: !trimmed })
  const all = { id: chain, filter: { addresses: [], topics: [] } }
  const { missing, extra, different } = yield* compare(journal, node, all, from, number, trimmed)
  const ids = journal.blocks.flatMap(({ hash, logs }) => logs.map(({ index }) => `${hash}:${index}`))
  const faults = [...journal.faults, ...different.map((id) => `${id} has other contents`)]
  return {
    lost: missing.filter((id) => !deleted?.has(id)).length,
    doubled: extra.length + ids.length - new Set(ids).size,
    // One cause usually makes many faults.
    faults:
      faults.length > mostReported
        ? [...faults.slice(0, mostReported), `and ${faults.length} in all`]
        : faults,
  }
})

/** Records the verdict on one chain. */
export const record = (
  outcome: Outcome,
  { lost, doubled, faults }: Effect.Success<ReturnType<typeof judge>>,
) => {
  outcome.lost += lost
  outcome.doubled += doubled
  outcome.problems.push(...faults)
}

/** Records the growth of the memory. */
export const recordMemory = (outcome: Outcome, grown: number) => {
  outcome.grown = grown
  if (grown <= mostGrown * mebi) return
  outcome.problems.push(`the service holds ${Math.round(grown / mebi)} MiB more than before`)
}

/** More blocks than moves can be in flight whose answers are lost. */
const enough = 5

/** The stored journal. The reader may have to reconnect, too. */
const stored = (cluster: Cluster) =>
  cluster.store.load(chainId).pipe(Effect.map(JSON.stringify), Effect.retry(Schedule.spaced("5 millis")))

/** Milliseconds until a move is taken. */
const resumption = Effect.fnUntraced(function* (cluster: Cluster, since: number) {
  const before = yield* stored(cluster)
  yield* Effect.repeat(stored(cluster), {
    until: (now) => now !== before,
    schedule: Schedule.spaced("5 millis"),
  })
  return performance.now() - since
})

/** Milliseconds until the store is at the node's head and stays there. */
const recovery = Effect.fnUntraced(function* (cluster: Cluster, since: number) {
  for (;;) {
    yield* another(cluster, "100 seconds")
    const millis = performance.now() - since
    const stays = yield* Effect.repeat(another(cluster, "1 second"), { times: enough - 1 }).pipe(
      Effect.option,
    )
    if (Option.isSome(stays)) return millis
  }
})

/** The end of the first service's log. */
const lastLines = ({ ingestors }: Cluster) => ingestors[0]!.process().output().slice(-4000)

const once = Effect.fnUntraced(function* (cluster: Cluster, fault: Fault, outcome: Outcome) {
  const before = yield* allEpochs(cluster)
  cluster.epoch = "kept"
  const millis = yield* whileItGrows(
    cluster,
    Effect.gen(function* () {
      // The seed decides at which moment of the traffic the fault comes: no event could stand for any moment.
      yield* Effect.sleep(yield* Random.nextIntBetween(100, 800))
      yield* fault.inflict(cluster).pipe(
        Effect.timeoutOrElse({
          duration: "100 seconds",
          orElse: () =>
            Effect.die(new Error(`the fault did not happen. The service:\n${lastLines(cluster)}`)),
        }),
      )
      const since = performance.now()
      if (fault.away) {
        const resumed = yield* resumption(cluster, since)
        outcome.resumptions.push(resumed)
        if (resumed > latestResumption)
          outcome.problems.push(`no move was taken for ${Math.round(resumed)} ms`)
      }
      return yield* recovery(cluster, since)
    }),
  )
  yield* caughtUp(cluster)
  record(outcome, yield* judge(cluster.store, chainId, cluster.node, cluster))
  if (cluster.neighbour)
    record(outcome, yield* judge(cluster.store, neighbourId, cluster.neighbour, { from: 0 }))
  for (const [i, after] of (yield* allEpochs(cluster)).entries()) {
    const { began, problem } = compareEpochs(i === 0 ? cluster.epoch : "kept", before[i]!, after)
    outcome.epochs += began
    if (problem !== undefined) outcome.problems.push(problem)
  }
  outcome.times++
  outcome.recoveries.push(millis)
})

export interface Job extends Omit<ClusterOptions, "ingestors" | "neighbour" | "problems"> {
  readonly faults: ReadonlyArray<Fault>
  /** How often each fault. */
  readonly times: (fault: Fault) => number
  /** When it is too late to begin once more (`performance.now`). */
  readonly until?: number
  readonly seed: string
}

/** One cluster and what is done to it, one fault after another. */
export const run = (job: Job): Effect.Effect<ReadonlyArray<Outcome>> => {
  const outcomes: Array<Outcome> = []
  const problems: Array<string> = []
  return Effect.gen(function* () {
    const cluster = yield* start({
      ...job,
      problems,
      ingestors: Math.max(...job.faults.map(({ ingestors = 1 }) => ingestors)),
      neighbour: job.faults.some(({ neighbour }) => neighbour),
    })
    const before = yield* mostOf(cluster)
    for (const fault of job.faults) {
      const outcome = nothingYet(fault, job.kind)
      outcomes.push(outcome)
      for (let i = 0; i < job.times(fault); i++) {
        if (i > 0 && performance.now() > (job.until ?? Infinity)) break
        yield* once(cluster, fault, outcome)
      }
      outcome.problems.push(...problems.splice(0))
      recordMemory(outcome, (yield* mostOf(cluster)) - before)
    }
  }).pipe(
    Effect.scoped,
    Effect.catchCause((cause) =>
      Effect.sync(() => {
        if (outcomes.length === 0) outcomes.push(nothingYet(job.faults[0]!, job.kind))
        outcomes.at(-1)!.problems.push(...problems, Cause.pretty(cause))
      }),
    ),
    Effect.as(outcomes),
    Random.withSeed(job.seed),
  )
}
