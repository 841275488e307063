/** The series of a stream's consumer groups and readers, which come and go with them. */
import type { Metric } from "effect"
import * as Metrics from "./Metrics.ts"
import type { Group, Reader, Stats } from "../store/Store.ts"

/** Groups, and readers, of a stream that have series of their own, and groups that are shown. */
const most = 20

/** Those that are furthest behind; where the lag is unknown, it may be any. */
export const furthestBehind = <One extends Pick<Group, "lag">>(all: ReadonlyArray<One>): ReadonlyArray<One> =>
  all.toSorted((a, b) => (b.lag ?? Infinity) - (a.lag ?? Infinity) || 0).slice(0, most)

/**
 * In so many looks after it was first seen, a newcomer has missed nothing: a counter that begins above 0 has not risen, and no
 * alert would see what was missed before.
 */
const looksFromZero = 3

/** The series of all groups, or of all readers. */
class Members<Label extends string, Member extends Pick<Group, "name" | "lag" | "missed">> {
  readonly #label: Label
  readonly #registered = new Map<string, ReadonlyArray<Metric.Registration>>()
  /** How often each was seen with a claim to what it misses; those of the first look have been there before. */
  readonly #seen = new Map<string, number>()
  #current = new Map<string, Member>()
  #isFirst = true
  readonly #series: ReadonlyArray<readonly [Metrics.Family<"chain" | Label>, (member: Member) => number]>

  constructor(
    label: Label,
    lag: Metrics.Family<"chain" | Label>,
    missed: Metrics.Family<"chain" | Label>,
    others: ReadonlyArray<readonly [Metrics.Family<"chain" | Label>, (member: Member) => number]>,
  ) {
    this.#label = label
    this.#series = [
      // A lag that is unknown is NaN.
      [lag, (member) => member.lag ?? Number.NaN],
      [missed, ({ missed, name }) => ((this.#seen.get(name) ?? 0) > looksFromZero ? missed : 0)],
      ...others,
    ]
  }

  /** @param claims whether what it misses is missed by a consumer: a group that was never read has no use for it */
  follow(
    all: ReadonlyArray<Member>,
    claims: (member: Member) => boolean,
    chain: string,
    registry: Metrics.Registry,
  ): void {
    for (const member of all) {
      const before = this.#seen.get(member.name)
      if (before === undefined && !claims(member)) continue
      this.#seen.set(member.name, this.#isFirst ? looksFromZero + 1 : (before ?? 0) + 1)
    }
    this.#isFirst = false
    this.#current = new Map(furthestBehind(all).map((member) => [member.name, member]))
    for (const [name, registered] of this.#registered) {
      if (this.#current.has(name)) continue
      for (const one of registered) one.remove()
      this.#registered.delete(name)
    }
    for (const name of this.#current.keys()) {
      if (this.#registered.has(name)) continue
      const labels = { chain, [this.#label]: name } as Record<"chain" | Label, string>
      const registered = this.#series.map(([family, read]) => {
        const value = () => {
          const member = this.#current.get(name)
          return member === undefined ? 0 : read(member)
        }
        return family.read(labels, value, registry)
      })
      this.#registered.set(name, registered)
    }
  }
}

export class ReaderSeries {
  readonly #chain: string
  readonly #registry: Metrics.Registry
  readonly #groups = new Members<"group", Group>("group", Metrics.streamGroupLag, Metrics.streamGroupMissed, [
    [Metrics.streamGroupPending, ({ pending }) => pending],
    [Metrics.streamGroupConsumers, ({ consumers }) => consumers],
    [Metrics.streamGroupIdle, ({ idle }) => idle ?? 0],
  ])
  readonly #readers = new Members<"reader", Reader>(
    "reader",
    Metrics.streamReaderLag,
    Metrics.streamReaderMissed,
    [],
  )

  constructor(chain: string, registry: Metrics.Registry) {
    this.#chain = chain
    this.#registry = registry
  }

  /** Takes what a look at the stream has found. */
  follow({ groups, readers }: Stats): void {
    this.#groups.follow(groups, ({ consumers }) => consumers > 0, this.#chain, this.#registry)
    this.#readers.follow(readers, () => true, this.#chain, this.#registry)
  }
}
