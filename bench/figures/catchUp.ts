/** Backfill of a long history into an empty store, beside the speed at which the provider serves the same ranges. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { once } from "node:events"
import { cpuSeconds, loadAverage, now, peakMemory, start, startProvider } from "../child.ts"
import type { BlockRange, Load } from "../provider.ts"
import { expectedOf, running, until } from "../run.ts"
import { median } from "../statistics.ts"
import { contentsOf, verify } from "../store.ts"
import type { Subject } from "../subjects/Subject.ts"

export interface CatchUp {
  readonly blocks: number
  readonly logs: number
  readonly seconds: number
  readonly perSecond: number
  readonly blocksPerSecond: number
  /** Microseconds of CPU per event. */
  readonly cpu: number
  /** MB. */
  readonly peak: number
  readonly loadAverage: number
  /** Events a second of a loop that requests the same ranges and only parses the answers. */
  readonly limit: number
  /** Ours relative to it. */
  readonly ratio: number
  /** Blocks that were requested, relative to those of the history. */
  readonly requested: number
}

const sizeOf = (ranges: ReadonlyArray<BlockRange>) =>
  ranges.reduce((sum, [from, to]) => sum + to - from + 1, 0)

/** The provider alone: the time of a process that fetches these ranges, and nothing else. */
const limitOf = Effect.fnUntraced(function* (
  load: Load,
  ranges: ReadonlyArray<BlockRange>,
): Effect.fn.Return<number, never, Scope.Scope> {
  const provider = yield* startProvider(load)
  const from = now()
  const file = new URL("../subjects/fetchMain.ts", import.meta.url)
  const args = [String(provider.port), String(load.chains[0])]
  const { process: child } = yield* start(file, args, {}, { ipc: true })
  child.send(ranges)
  const [logs] = (yield* Effect.promise(() => once(child, "message"))) as [number]
  const count = sizeOf(ranges) * load.shape.logs
  yield* verify("the provider", { count: logs, checksum: 0 }, { count, checksum: 0 })
  return (logs / (now() - from)) * 1000
}, Effect.scoped)

const round = (subject: Subject, load: Load): Effect.Effect<CatchUp> =>
  Effect.gen(function* () {
    const { history: blocks, chains } = load
    const expected = expectedOf(load)
    const loadBefore = loadAverage()
    const { redis, provider, startedAt, pid, stored } = yield* running(subject, load)
    const { at } = yield* Effect.promise(() => until("the catch-up", expected.count, stored))
    const [cpu, peak] = [cpuSeconds(pid), peakMemory(pid)]
    const [ranges] = (yield* Effect.promise(provider.report)).ranges
    yield* verify("catch-up", yield* Effect.promise(() => contentsOf(redis.client, chains)), expected)
    const seconds = (at - startedAt) / 1000
    const perSecond = expected.count / seconds
    return { perSecond, seconds, cpu, peak, ranges: ranges!, loadBefore, blocks, events: expected.count }
  }).pipe(
    Effect.scoped,
    Effect.flatMap(
      Effect.fnUntraced(function* ({ perSecond, seconds, cpu, peak, ranges, loadBefore, blocks, events }) {
        const limit = yield* limitOf(load, ranges)
        return {
          blocks,
          logs: load.shape.logs,
          seconds,
          perSecond,
          blocksPerSecond: blocks / seconds,
          cpu: (cpu / events) * 1e6,
          peak,
          loadAverage: loadBefore,
          limit,
          ratio: perSecond / limit,
          requested: sizeOf(ranges) / blocks,
        }
      }),
    ),
  )

/** The medians of several rounds. */
export const catchUp = (
  subject: Subject,
  blocks: number,
  logs: number,
  rounds: number,
): Effect.Effect<CatchUp> => {
  const load: Load = {
    chains: [900_001],
    shape: { logs, bloom: true },
    history: blocks,
    blocks: 0,
    pace: 1,
  }
  return Effect.map(Effect.replicateEffect(round(subject, load), rounds), (all) => {
    const middle = (field: keyof CatchUp) => median(all.map((one) => one[field]))
    return Object.fromEntries(
      (Object.keys(all[0]!) as ReadonlyArray<keyof CatchUp>).map((field) => [field, middle(field)]),
    ) as unknown as CatchUp
  })
}
