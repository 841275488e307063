import { assert, describe, it } from "@effect/vitest"
import { unready } from "../../../src/observability/Readiness.ts"

const now = 1_000_000

const ready: Parameters<typeof unready>[0] = {
  phase: "live",
  head: 100,
  headSince: now - 1000,
  blockTime: 2000,
  blocksBehind: 0,
  target: 100,
  stored: 100,
  finalDisagreement: undefined,
  standoffUntil: undefined,
  holder: undefined,
  final: 90,
  breakerState: { _tag: "Closed", failures: 0 },
  failures: [],
}

const failure = { at: now, type: "connection", text: "it is down" } as const

describe("a chain", () => {
  it("is ready at the head, up to 3 blocks behind it, and when idle", () => {
    assert.deepStrictEqual(unready(ready, now), [])
    assert.deepStrictEqual(unready({ ...ready, blocksBehind: 3 }, now), [])
    assert.deepStrictEqual(unready({ ...ready, phase: "idle" }, now), [])
    assert.deepStrictEqual(unready({ ...ready, breakerState: { _tag: "HalfOpen", failures: 4 } }, now), [])
  })

  it.each([
    ["4 blocks behind", { blocksBehind: 4 }, "4 blocks behind"],
    [
      "no final block yet where only final blocks are stored",
      { target: undefined },
      "no final block seen yet",
    ],
    ["nothing stored", { stored: undefined }, "nothing stored yet"],
    ["no head for a minute", { headSince: now - 61_000 }, "no head for 61 s"],
    ["no head for ten block times", { headSince: now - 121_000, blockTime: 12_000 }, "no head for 121 s"],
    [
      "a head below the finalized block",
      { head: 40, final: 41 },
      "the endpoint is at block 40, below the finalized block 41",
    ],
    ["no head at all", { head: undefined }, "no head yet"],
    [
      "no endpoint",
      { head: undefined, phase: "connecting", failures: [failure] },
      "no endpoint is connected: it is down",
    ],
    [
      "an open breaker",
      { breakerState: { _tag: "Open", failures: 5, until: now + 1 }, failures: [failure] },
      "the breaker is open after 5 failures: it is down",
    ],
    [
      "an unavailable store",
      { phase: "store-unavailable", failures: [failure] },
      "the store accepts no moves: it is down",
    ],
    ["another filter", { phase: "superseded" }, "another ingestor continues the journal with another filter"],
    ["a contradiction", { phase: "halted", failures: [failure] }, "halted: it is down"],
  ] as const)("is not ready with %s", (_, change, reason) => {
    assert.deepStrictEqual(unready({ ...ready, ...change } as typeof ready, now), [reason])
  })

  it("stays ready for ten block times without a head on a slow chain", () =>
    assert.deepStrictEqual(unready({ ...ready, headSince: now - 110_000, blockTime: 12_000 }, now), []))

  it("reports every reason at once", () =>
    assert.strictEqual(
      unready(
        { ...ready, blocksBehind: 50, headSince: 0, breakerState: { _tag: "Open", failures: 3, until: now } },
        now,
      ).length,
      3,
    ))
})
