/** The phase of a chain, and what the page shows of it. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { readFileSync } from "node:fs"
import { ChainStatus, phases } from "../../../src/observability/ChainStatus.ts"
import { fold } from "../../../src/observability/StatusFold.ts"
import { StoreError } from "../../../src/store/StoreError.ts"

describe("the phase of a chain", () => {
  it.effect("is catching-up until a final block is known, where only final blocks are stored", () =>
    Effect.gen(function* () {
      const settings = { name: "base", id: 8453, confirmations: "finalized", endpoints: [], rpc: [] } as const
      const status = new ChainStatus(settings, yield* Clock.Clock)
      status.stored = 50
      status.headAnnounced({ number: 100, timestamp: 1000 }, 0, 2000)
      status.updatePhase()
      assert.strictEqual(status.phase, "catching-up")
      status.finalAnnounced({ number: 50, timestamp: 900 })
      status.updatePhase()
      assert.strictEqual(status.phase, "live")
    }),
  )

  it.effect("is live while no block has enough confirmations", () =>
    Effect.gen(function* () {
      const settings = { name: "base", id: 8453, confirmations: 12, endpoints: [], rpc: [] } as const
      const status = new ChainStatus(settings, yield* Clock.Clock)
      status.headAnnounced({ number: 5, timestamp: 1000 }, 0, 2000)
      status.updatePhase()
      assert.strictEqual(status.phase, "live")
    }),
  )

  it("has a tone on the page, whichever it is", () => {
    const script = readFileSync(new URL("../../../src/http/page/page.js", import.meta.url), "utf8")
    const [tones = ""] = /const tones = \{[^}]*\}/.exec(script) ?? []
    for (const phase of phases) assert.match(tones, new RegExp(`\\b"?${phase}"?: "`), phase)
  })
})

describe("the failures of a chain", () => {
  it.effect(
    "show each cause for which the store is away once, also one that came while the chain waited",
    () =>
      Effect.gen(function* () {
        const settings = { name: "base", id: 8453, confirmations: 0, endpoints: [], rpc: [] } as const
        const clock = yield* Clock.Clock
        const status = new ChainStatus(settings, clock)
        const context = { clock, redact: String, storeOperation: () => {} }
        const wait = { failures: 1, opened: false, seconds: 0.5 }
        const closed = new StoreError({ operation: "push", reason: "unreachable", detail: "closed" })
        const denied = new StoreError({ operation: "ping", reason: "refused", detail: "NOPERM" })
        fold(status, { _tag: "StoreAwaited", error: closed }, context)
        for (const error of [closed, new StoreError({ ...closed, operation: "ping" }), denied, denied])
          fold(status, { _tag: "StoreRetrying", error, wait }, context)
        assert.deepStrictEqual(
          status.failures.map(({ text }) => text),
          ["store ping failed (refused): NOPERM", "store push failed (unreachable): closed"],
        )
        assert.strictEqual(status.errors.store, 2)
      }),
  )
})
