import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Sparkline, samplesKept } from "../../../src/observability/Sparkline.ts"
import { rowsKept, RecentEntries } from "../../../src/observability/RecentEntries.ts"
import type { Log } from "../../../src/Domain.ts"
import { block } from "../../support/blocks.ts"

const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 160 }))
/** Pushes blocks with these numbers of logs, or pops the newest block, at most this many logs at a time. */
const Step = Schema.Union([
  Schema.Array(Count).check(Schema.isMaxLength(4)),
  Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 200 })),
])

describe("the recent entries", () => {
  it("show decoded events, in removals too, and only the signature where the arguments are long", () => {
    const tail = new RecentEntries()
    const plain = block(1, "a", 3)
    const event = "Set(string)"
    const [first, second, third] = plain.logs as [Log, Log, Log]
    const long = `{"text":"${"x".repeat(1000)}"}`
    const logs = [{ ...first, event, args: '{"text":"a\\u00fc"}' }, { ...second, event, args: long }, third]
    tail.pushed([{ ...plain, logs, whole: true }])
    tail.popped(plain, 3)
    const shown = tail.after(0).map(({ event }) => event)
    const text = "Set(text: aü)"
    assert.deepStrictEqual(shown, [text, event, undefined, undefined, event, text])
  })

  it.prop(
    "show the latest entries with their positions in the stream, within a fixed limit",
    [Schema.Array(Step), Schema.Literals([0, 1])],
    ([steps, readers]) => {
      const tail = new RecentEntries()
      tail.readers = readers
      const journal: Array<string> = []
      const stack: Array<ReturnType<typeof block>> = []
      const entry = (hash: string, index: number, removed: boolean) =>
        `${removed ? "-" : "+"}${hash}:${index}`
      for (const step of steps) {
        if (typeof step !== "number") {
          const [first, ...more] = step.map((logs, i) =>
            block(stack.length + i, `fork${journal.length}`, logs),
          )
          if (first === undefined) continue
          stack.push(first, ...more)
          for (const { hash, logs } of [first, ...more]) {
            journal.push(...logs.map(({ index }) => entry(hash, index, false)))
          }
          tail.pushed([{ ...first, whole: true }, ...more.map((one) => ({ ...one, whole: true }))])
        } else {
          const top = stack.pop()
          if (top === undefined) continue
          for (let left = top.logs.length; left > 0; left -= step) {
            const removed = Math.min(step, left)
            for (let i = 1; i <= removed; i++) journal.push(entry(top.hash, left - i, true))
            tail.popped(top, removed)
          }
        }
      }
      assert.strictEqual(tail.seq, journal.length)
      const rows = tail.after(0)
      assert.isAtMost(rows.length, readers > 0 ? rowsKept.read : rowsKept.unread)
      for (const { seq, block_hash, log_index, removed } of rows) {
        assert.strictEqual(entry(block_hash, log_index, removed), journal[seq - 1])
      }
      const places = rows.map(({ seq }) => seq)
      assert.deepStrictEqual(
        places,
        [...new Set(places)].sort((a, b) => a - b),
      )
      const middle = Math.floor(journal.length / 2)
      assert.deepStrictEqual(
        tail.after(middle),
        rows.filter(({ seq }) => seq > middle),
      )
      assert.deepStrictEqual(tail.after(tail.seq), [])
    },
  )

  it("keep the last hundred of a large push while there are readers, with at most one word of data each", () => {
    const tail = new RecentEntries()
    const large = block(7, "main", 1000)
    const logs = large.logs.map((log) => ({ ...log, data: `0x${"ab".repeat(5000)}` as const }))
    tail.readers = 1
    tail.pushed([{ ...large, logs, whole: true }])
    const rows = tail.after(0)
    assert.deepStrictEqual([rows.length, rows[0]!.seq, rows[99]!.seq], [100, 901, 1000])
    assert.deepInclude(rows[99], { data: `0x${"ab".repeat(32)}`, data_bytes: 5000, log_index: 999 })
  })

  it("keep only the last ten while there is no reader, and more from the next push on once there is one", () => {
    const tail = new RecentEntries()
    const places = () => tail.after(0).map(({ seq }) => seq)
    const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)
    const push = (number: number) => tail.pushed([{ ...block(number, "main", 20), whole: true }])
    tail.readers = 1
    push(1)
    assert.deepStrictEqual(places(), range(1, 20))
    tail.readers = 0
    push(2)
    assert.deepStrictEqual(places(), range(31, 40))
    tail.readers = 1
    push(3)
    assert.deepStrictEqual(places(), range(31, 60))
  })
})

describe("the sparkline", () => {
  it("shows logs per second whatever the time between two samples, and keeps five minutes", () => {
    const history = new Sparkline()
    assert.strictEqual(history.perSecond, 0)
    history.sample(10_000, 1234, 500)
    history.sample(12_000, 80, 900)
    history.sample(12_500, 0, 950)
    assert.deepStrictEqual(history.lag, [1.2, 0.1, 0])
    assert.deepStrictEqual(history.rate, [0, 200, 100])
    assert.strictEqual(history.perSecond, 100)
    for (let i = 1; i <= 1000; i++) history.sample(12_500 + i * 1000, i, 950)
    assert.deepStrictEqual([history.lag.length, history.rate.length], [samplesKept, samplesKept])
    assert.strictEqual(history.perSecond, 0)
  })
})
