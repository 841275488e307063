/** The reports of a fleet, in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Answer } from "../../../src/fleet/FleetStorage.ts"
import * as Reports from "../../../src/fleet/Reports.ts"
import { version } from "../../../src/Version.ts"

/** Reports on a server in memory, which may be silent. */
const make = () => {
  const stored = new Map<string, { readonly text: string; readonly at: number }>()
  const server = { isSilent: false, isReachable: true, calls: 0, stored }
  const call = (operation: string, ...args: ReadonlyArray<string>): Effect.Effect<Answer> =>
    Effect.gen(function* () {
      server.calls++
      if (server.isSilent) return yield* Effect.never
      const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
      const fields = args.slice(4)
      if (operation === "report")
        for (let i = 0; i < fields.length; i += 2) stored.set(fields[i]!, { text: fields[i + 1]!, at: now })
      const found = [...stored].flatMap(([chain, { text, at }]) => [chain, String(now - at), text])
      return [operation === "reports" ? found : [], []]
    })
  return { server, ...Reports.make(call, () => server.isReachable) }
}

describe("the reports of a fleet", () => {
  it.effect("are written with one call, read at most once a second, and valid for ten seconds", () =>
    Effect.gen(function* () {
      const { publish, read, server } = make()
      yield* publish(new Map())
      assert.strictEqual(server.calls, 0)
      yield* publish(
        new Map([
          ["a", { head: 1 }],
          ["b", { head: 2 }],
        ]),
      )
      assert.strictEqual(server.calls, 1)
      assert.deepStrictEqual(
        [...(yield* read)],
        [
          ["a", { head: 1 }],
          ["b", { head: 2 }],
        ],
      )
      yield* publish(new Map([["a", { head: 3 }]]))
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual((yield* read).get("a"), { head: 1 })
      yield* TestClock.adjust("1 millis")
      const both = yield* Effect.all([read, read], { concurrency: 2 })
      assert.deepStrictEqual(
        both.map((reports) => reports.get("a")),
        [{ head: 3 }, { head: 3 }],
      )
      assert.strictEqual(server.calls, 4)
      server.isReachable = false
      yield* TestClock.adjust("8 seconds")
      yield* publish(new Map([["a", { head: 4 }]]))
      assert.deepStrictEqual([...(yield* read).keys()], ["a", "b"])
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual([...(yield* read).keys()], [], "both are ten seconds old")
      assert.strictEqual(server.calls, 4, "nothing is sent while Redis is away")
    }),
  )

  it.effect("do not delay their reader while Redis is silent", () =>
    Effect.gen(function* () {
      const { publish, read, server } = make()
      yield* publish(new Map([["a", { head: 1 }]]))
      yield* read
      server.isSilent = true
      yield* TestClock.adjust("1 seconds")
      const fiber = yield* Effect.forkChild(read, { startImmediately: true })
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual([...(yield* Fiber.join(fiber)).keys()], ["a"])
    }),
  )

  it.effect("of another version, or that are none, are ignored", () =>
    Effect.gen(function* () {
      const { read, server } = make()
      for (const text of ["", "{", "[]", '{"version":"0.0.1","report":{}}'])
        server.stored.set(`bad${text}`, { text, at: 0 })
      server.stored.set("good", { text: JSON.stringify({ version, report: {} }), at: 0 })
      assert.deepStrictEqual([...(yield* read).keys()], ["good"])
    }),
  )
})
