/** Progress bars, and which chains have one. */
import { assert, describe, it } from "@effect/vitest"
import { makeBackfills } from "../../../src/cli/backfill.ts"
import { InPlace } from "../../../src/cli/InPlace.ts"
import { barsOf, Pace } from "../../../src/cli/ProgressBars.ts"
import type { Task } from "../../../src/cli/ProgressBars.ts"
import type { Phase } from "../../../src/observability/ChainStatus.ts"

const task = (title: string, done: number, pace = new Pace(0), total = 10_000): Task => ({
  title,
  done,
  total,
  unit: "blocks",
  pace,
})

describe("a progress bar", () => {
  it("shows how much is done, and the time left at the rate of the last ten seconds", () => {
    const pace = new Pace(0)
    const at = (done: number, seconds: number) => barsOf([task("base", done, pace)], seconds * 1000, 200)
    assert.deepStrictEqual(at(0, 1), ["base  ░░░░░░░░░░░░░░░░░░░░   0 %  0 of 10 000 blocks"])
    assert.deepStrictEqual(at(4000, 3), [
      "base  ████████░░░░░░░░░░░░  40 %  4 000 of 10 000 blocks  3 s left",
    ])
    assert.match(at(4100, 13)[0]!, / 41 % {2}4 100 of 10 000 blocks {2}10 min left$/)
    assert.deepStrictEqual(at(10_000, 14), [
      "base  ████████████████████ 100 %  10 000 of 10 000 blocks  0 s left",
    ])
  })

  it("appears after a second, fits the terminal, and leaves room for the log", () => {
    assert.deepStrictEqual(barsOf([task("base", 1)], 999, 100), [])
    const many = Array.from({ length: 12 }, (_, i) => task(`chain-${i}`, -5))
    const bars = barsOf(many, 5000, 30)
    assert.strictEqual(bars.length, 9)
    assert.strictEqual(bars.at(-1), "… 4 more")
    for (const bar of bars) assert.isAtMost(bar.length, 30)
    assert.match(barsOf([task("base", 0, new Pace(0), 0)], 5000, 100)[0]!, / 100 % {2}0 of 0 blocks$/)
  })
})

describe("the backfills of a service", () => {
  it("are the chains that catch up, each from where it was, until it is live", () => {
    const chain = {
      name: "base",
      phase: "connecting" as Phase,
      stored: undefined as number | undefined,
      target: undefined as number | undefined,
    }
    const backfills = makeBackfills([chain])
    const counts = (now: number) => backfills(now).map(({ done, total, pace }) => [done, total, pace.since])
    assert.deepStrictEqual(counts(1), [])
    Object.assign(chain, { phase: "catching-up", target: 1000 })
    assert.deepStrictEqual(counts(2), [])
    chain.stored = 100
    assert.deepStrictEqual(counts(3), [[0, 900, 3]])
    Object.assign(chain, { stored: 400, target: 1010 })
    assert.deepStrictEqual(counts(4), [[300, 910, 3]])
    chain.phase = "store-unavailable"
    assert.deepStrictEqual(counts(5), [])
    chain.phase = "catching-up"
    assert.deepStrictEqual(counts(6), [[300, 910, 3]])
    chain.phase = "live"
    assert.deepStrictEqual(counts(7), [])
    chain.phase = "catching-up"
    assert.deepStrictEqual(counts(8), [[0, 610, 8]])
  })
})

describe("lines in place", () => {
  it("replace themselves, and what is printed meanwhile is above them", () => {
    const written: Array<string> = []
    const screen = new InPlace({ write: (text: string) => written.push(text) } as never)
    screen.draw([])
    screen.draw(["a", "b"])
    screen.above(() => written.push("log\n"))
    screen.draw(["c"])
    screen.draw([])
    assert.deepStrictEqual(written, [
      "a\nb\n",
      "\r\u001b[2A\u001b[J",
      "log\n",
      "a\nb\n",
      "\r\u001b[2A\u001b[Jc\n",
      "\r\u001b[1A\u001b[J",
    ])
  })
})
