import { assert, describe, it } from "@effect/vitest"
import { Context, Metric } from "effect"
import { PrometheusMetrics } from "effect/observability"
import type { Group, Reader, Stats } from "../../../src/store/StoreAdmin.ts"
import { ReaderSeries } from "../../../src/observability/ReaderSeries.ts"

const group = (name: string, change: Partial<Group> = {}): Group => ({
  name,
  consumers: 1,
  pending: 0,
  lag: 5,
  idle: undefined,
  lastDelivered: "0-0",
  missed: 0,
  ...change,
})

const reader = (name: string, change: Partial<Reader> = {}): Reader => ({
  name,
  id: "0-0",
  block: 1,
  seen: 1,
  lag: 5,
  missed: 0,
  ...change,
})

/** Unix seconds of each poll. */
const now = 1000

const watched = () => {
  const registry = Context.make(Metric.MetricRegistry, new Map())
  const series = new ReaderSeries("devnet", registry)
  const poll = (groups: ReadonlyArray<Group>, readers: ReadonlyArray<Reader> = []) =>
    series.follow({ groups, readers } as unknown as Stats, now)
  /** The value of each series of a metric, by group or reader. */
  const values = (name: string) =>
    Object.fromEntries(
      [
        ...PrometheusMetrics.formatUnsafe(registry).matchAll(
          new RegExp(`^event_ingestor_${name}\\{chain="devnet",(?:group|reader)="(\\w+)"\\} (\\S+)$`, "gm"),
        ),
      ].map(([, who, value]) => [who!, Number(value)]),
    )
  return { poll, values }
}

describe("the series of consumer groups and readers", () => {
  it("cover the 20 members furthest behind, and are removed with them", () => {
    const { poll, values } = watched()
    const many = Array.from({ length: 30 }, (_, i) => group(`g${i}`, { lag: i, pending: i, idle: 2.5 }))
    poll([...many, group("odd", { lag: undefined })], [reader("mirror", { lag: 7 })])
    const lags = values("stream_group_lag")
    assert.deepStrictEqual(
      Object.keys(lags).toSorted(),
      ["odd", ...many.slice(11).map(({ name }) => name)].toSorted(),
    )
    assert.isNaN(lags["odd"])
    assert.strictEqual(lags["g29"], 29)
    assert.strictEqual(values("stream_group_pending")["g29"], 29)
    assert.strictEqual(values("stream_group_idle_seconds")["g29"], 2.5)
    assert.strictEqual(values("stream_group_idle_seconds")["odd"], 0)
    assert.strictEqual(values("stream_group_consumers")["odd"], 1)
    assert.deepStrictEqual(values("stream_reader_lag"), { mirror: 7 })
    poll([group("g29")])
    assert.deepStrictEqual(values("stream_group_lag"), { g29: 5 })
    assert.deepStrictEqual(values("stream_reader_lag"), {})
  })

  it("report for how long a reader has been silent", () => {
    const { poll, values } = watched()
    // Its clock may be ahead.
    poll(
      [],
      [reader("mirror", { seen: 400 }), reader("ahead", { seen: 1001 }), reader("odd", { seen: undefined })],
    )
    assert.deepStrictEqual(values("stream_reader_idle_seconds"), { mirror: 600, ahead: 0, odd: Number.NaN })
  })

  it("report at once what was missed before this process started", () => {
    const { poll, values } = watched()
    poll([group("slow", { missed: 300 })], [reader("mirror", { missed: 40 })])
    assert.deepStrictEqual(values("stream_group_missed_total"), { slow: 300 })
    assert.deepStrictEqual(values("stream_reader_missed_total"), { mirror: 40 })
  })

  it("start at 0 for a new group or reader, so that an alert detects the increase [G-215]", () => {
    const { poll, values } = watched()
    poll([])
    for (let i = 0; i < 3; i++) {
      poll([group("new", { missed: 300 })], [reader("mirror", { missed: 40 })])
      assert.deepStrictEqual(values("stream_group_missed_total"), { new: 0 })
      assert.deepStrictEqual(values("stream_reader_missed_total"), { mirror: 0 })
    }
    poll([group("new", { missed: 310 })], [reader("mirror", { missed: 40 })])
    assert.deepStrictEqual(values("stream_group_missed_total"), { new: 310 })
    assert.deepStrictEqual(values("stream_reader_missed_total"), { mirror: 40 })
  })

  it("keep their values for a group that returns to the 20", () => {
    const { poll, values } = watched()
    const others = Array.from({ length: 20 }, (_, i) => group(`g${i}`, { lag: 100 + i }))
    poll([group("slow", { missed: 300 })])
    poll([group("slow", { missed: 300 }), ...others])
    assert.isUndefined(values("stream_group_missed_total")["slow"])
    poll([group("slow", { missed: 300 })])
    assert.deepStrictEqual(values("stream_group_missed_total"), { slow: 300 })
  })

  it("count nothing as missed by a group that never had a consumer", () => {
    const { poll, values } = watched()
    for (let i = 0; i < 5; i++) poll([group("unread", { consumers: 0, missed: 300 })])
    assert.deepStrictEqual(values("stream_group_missed_total"), { unread: 0 })
    for (let i = 0; i < 4; i++) poll([group("unread", { missed: 300 })])
    assert.deepStrictEqual(values("stream_group_missed_total"), { unread: 300 })
  })
})
