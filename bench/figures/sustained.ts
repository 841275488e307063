/** Throughput and cost per event: every subject in turn, in several rounds. */
import { Effect } from "effect"
import type { Load } from "../provider.ts"
import { throughput } from "../run.ts"
import type { Cost } from "../run.ts"
import { median } from "../statistics.ts"
import type { Subject } from "../subjects/Subject.ts"

/** The medians of the rounds. `ratio`: the speed relative to the first subject in the same round. */
export interface Sustained extends Cost {
  readonly subject: string
  readonly ratio: number
  readonly ratios: ReadonlyArray<number>
  /** CPU per event in each round. Missing in older results. */
  readonly cpus?: ReadonlyArray<number>
}

export interface Entrant {
  readonly subject: Subject
  readonly load: Load
  /** By default that of the subject. */
  readonly name?: string
}

export const summary = (
  subject: string,
  rounds: ReadonlyArray<Cost>,
  first: ReadonlyArray<Cost>,
): Sustained => {
  const ratios = rounds.map(({ perSecond }, i) => perSecond / first[i]!.perSecond)
  const middle = (field: keyof Cost) => median(rounds.map((cost) => cost[field]))
  return {
    subject,
    perSecond: middle("perSecond"),
    cpu: middle("cpu"),
    redisCpu: middle("redisCpu"),
    peak: middle("peak"),
    loadAverage: middle("loadAverage"),
    ratio: median(ratios),
    ratios,
    cpus: rounds.map(({ cpu }) => cpu),
  }
}

/**
 * The first subject is the baseline of the others.
 *
 * @param before runs at the beginning of each round
 */
export const sustained = Effect.fnUntraced(function* (
  entrants: ReadonlyArray<Entrant>,
  rounds: number,
  before: Effect.Effect<unknown> = Effect.void,
) {
  const costs = entrants.map((): Array<Cost> => [])
  for (let round = 0; round < rounds; round++) {
    yield* before
    for (const [i, { subject, load }] of entrants.entries()) {
      costs[i]!.push(yield* throughput(subject, load))
    }
  }
  return entrants.map(({ subject, name = subject.name }, i) => summary(name, costs[i]!, costs[0]!))
})

/** The speed of one subject relative to another: the median of the rounds. */
export const timesFaster = (one: Sustained, other: Sustained): number =>
  median(one.ratios.map((ratio, round) => ratio / other.ratios[round]!))
