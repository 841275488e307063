/** The chains of a fleet in the body of `/status`. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { AppConfig, fromVariables } from "../../../src/config/AppConfig.ts"
import type { View } from "../../../src/fleet/Fleet.ts"
import * as Report from "../../../src/http/Report.ts"
import { Status } from "../../../src/observability/Status.ts"

const config = fromVariables({
  CHAINS: "here,there,moving,left",
  ...Object.fromEntries(
    ["HERE", "THERE", "MOVING", "LEFT"].flatMap((name, i) => [
      [`${name}_CHAIN_ID`, String(500 + i)],
      [`${name}_WS_URL`, "ws://127.0.0.1:1"],
    ]),
  ),
  REDIS_URL: "redis://127.0.0.1:1",
  FLEET: "main",
})

const view: View = {
  name: "main",
  replica: "me",
  isMember: true,
  error: undefined,
  members: ["me", "other"],
  holders: new Map([
    ["here", "me"],
    ["there", "other"],
    // Taken a moment ago.
    ["moving", "me"],
  ]),
}

describe("the status of a fleet", () => {
  it.effect("has the report of the replica that follows a chain, and says when none does", () =>
    Effect.gen(function* () {
      const status = yield* Status
      status.chain("here").setFollowed(true)
      const now = yield* Report.now
      const reported = (name: string) =>
        ({
          ...Report.chainReport(status.chain("here"), now, view),
          name,
          phase: "live",
          head: 7,
          ready: true,
        }) as const
      const shown = (reports: ReadonlyMap<string, unknown>) =>
        Report.statusReport(status, now, view, reports).chains.map(
          ({ name, phase, replica, ready, head }) => ({
            name,
            phase,
            replica,
            ready,
            head,
          }),
        )
      const here = { name: "here", phase: "connecting", replica: "me", ready: false, head: null }
      const moving = { name: "moving", phase: "elsewhere", replica: "me", ready: true, head: null }
      const left = { name: "left", phase: "elsewhere", replica: null, ready: false, head: null }
      assert.deepStrictEqual<unknown>(
        shown(new Map(status.chains.map(({ name }) => [name, reported(name)]))),
        [here, { name: "there", phase: "live", replica: "other", ready: true, head: 7 }, moving, left],
      )
      assert.deepStrictEqual<unknown>(shown(new Map()), [
        here,
        { name: "there", phase: "elsewhere", replica: "other", ready: true, head: null },
        moving,
        left,
      ])
      const { chains, ready } = Report.statusReport(status, now, view)
      assert.deepStrictEqual(chains[3]!.reasons, ["no replica of the fleet follows the chain"])
      assert.isFalse(ready)
    }).pipe(Effect.provide(Status.layer.pipe(Layer.provide(Layer.effect(AppConfig, config))))),
  )
})
