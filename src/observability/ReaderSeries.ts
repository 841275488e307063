/** The series of a stream's consumer groups and readers, registered and removed as they come and go. */
import type { Metric } from "effect"
import type { Family, Registry } from "./MetricFamily.ts"
import * as StoreMetrics from "./StoreMetrics.ts"
import type { Group, Reader, Stats } from "../store/StoreAdmin.ts"

/** The maximum number of groups, and of readers, with their own series; also the number of reported groups. */
const mostMembers = 20

/** The members furthest behind; those with an unknown lag come first. */
export const furthestBehind = <One extends Pick<Group, "lag">>(all: ReadonlyArray<One>): ReadonlyArray<One> =>
  all.toSorted((a, b) => (b.lag ?? Infinity) - (a.lag ?? Infinity) || 0).slice(0, mostMembers)

/**
 * For this many polls, a new member reports no missed entries: a counter that starts above 0 has not increased, so that no
 * alert would detect entries missed before.
 */
const pollsAtZero = 3

/** The series of all groups, or of all readers. */
class Members<Label extends string, Member extends Pick<Group, "name" | "lag" | "missed">> {
  readonly #label: Label
  readonly #registered = new Map<string, ReadonlyArray<Metric.Registration>>()
  /** How many polls saw each member as a consumer; members of the first poll existed before this process. */
  readonly #seen = new Map<string, number>()
  #current = new Map<string, Member>()
  #isFirst = true
  readonly #series: ReadonlyArray<readonly [Family<"chain" | Label>, (member: Member) => number]>

  constructor(
    label: Label,
    lag: Family<"chain" | Label>,
    missed: Family<"chain" | Label>,
    others: ReadonlyArray<readonly [Family<"chain" | Label>, (member: Member) => number]>,
  ) {
    this.#label = label
    this.#series = [
      // An unknown lag is NaN.
      [lag, (member) => member.lag ?? Number.NaN],
      [missed, ({ missed, name }) => ((this.#seen.get(name) ?? 0) > pollsAtZero ? missed : 0)],
      ...others,
    ]
  }

  /** @param consumes whether trimmed entries count as missed: they do not for a group that never had a consumer */
  follow(
    all: ReadonlyArray<Member>,
    consumes: (member: Member) => boolean,
    chain: string,
    registry: Registry,
  ): void {
    for (const member of all) {
      const before = this.#seen.get(member.name)
      if (before === undefined && !consumes(member)) continue
      this.#seen.set(member.name, this.#isFirst ? pollsAtZero + 1 : (before ?? 0) + 1)
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
  readonly #registry: Registry
  readonly #groups = new Members<"group", Group>("group", StoreMetrics.groupLag, StoreMetrics.groupMissed, [
    [StoreMetrics.groupPending, ({ pending }) => pending],
    [StoreMetrics.groupConsumers, ({ consumers }) => consumers],
    [StoreMetrics.groupIdle, ({ idle }) => idle ?? 0],
  ])
  readonly #readers = new Members<"reader", Reader>(
    "reader",
    StoreMetrics.readerLag,
    StoreMetrics.readerMissed,
    [[StoreMetrics.readerIdle, ({ seen }) => Math.max(this.#now - (seen ?? Number.NaN), 0)]],
  )
  /** The time of the last poll (unix seconds). */
  #now = 0

  constructor(chain: string, registry: Registry) {
    this.#chain = chain
    this.#registry = registry
  }

  /** Updates the series with the result of a poll. @param now unix seconds */
  follow({ groups, readers }: Stats, now: number): void {
    this.#now = now
    this.#groups.follow(groups, ({ consumers }) => consumers > 0, this.#chain, this.#registry)
    this.#readers.follow(readers, () => true, this.#chain, this.#registry)
  }
}
