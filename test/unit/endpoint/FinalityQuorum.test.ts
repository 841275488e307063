/** The finality quorum: endpoints that serve different blocks at a final height. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { finalVerdict } from "../../../src/endpoint/FinalityQuorum.ts"
import type { Vote } from "../../../src/endpoint/FinalityQuorum.ts"
import { eventually } from "../../support/ingestor.ts"
import { blockTime, withBoth, scenario } from "../../support/quirks.ts"

const votes = (shown: string): ReadonlyArray<Vote> =>
  [...shown].map((block, i) => ({ name: `${i + 2}`, hash: `0x${block}` }))

describe("the verdict on a final block", () => {
  // What the other endpoints serve, which are absent, and the verdict if the endpoint in use serves `a`.
  const cases = [
    ["", [], "Agreed", []],
    ["a", [], "Agreed", []],
    ["b", [], "Split", ["2"]],
    ["ab", [], "Agreed", ["3"]],
    ["bb", [], "Outvoted", undefined],
    ["bc", [], "Split", ["2", "3"]],
    ["abb", [], "Split", ["3", "4"]],
    ["", ["2"], "Split", ["2"]],
    ["a", ["3"], "Agreed", ["3"]],
    ["b", ["3"], "Split", ["2", "3"]],
  ] as const
  for (const [shown, absent, tag, others] of cases)
    it(`is ${tag} if the others serve "${shown}" and ${absent.length} that disagreed are absent`, () => {
      const verdict = finalVerdict("0xa", votes(shown), absent)
      assert.strictEqual(verdict._tag, tag)
      assert.deepStrictEqual("others" in verdict ? verdict.others : undefined, others)
    })
})

/** Two nodes serve different forks for some minutes; then they agree again. */
const divided = (title: string, reconnects: boolean) =>
  scenario(title, ({ chain, two, one, store, start }) =>
    Effect.gen(function* () {
      chain.extend(...Array.from({ length: 40 }, () => 1))
      const { status } = yield* start(withBoth)
      yield* eventually("it is stored", () => status.stored === chain.head.number)
      const fork = chain.head.number - 3
      const view = chain.branch(3, 0, 0, 0)
      one.follow(view)
      for (let i = 0; i < 60; i++) {
        chain.extend(0)
        view.extend(0)
        if (reconnects && i === 30) {
          // Both disconnect, and the canonical one is still down when the chain is followed again.
          for (const node of [one, two]) {
            node.up = false
            node.drop()
          }
          for (const branch of [chain, view]) branch.jump(...Array.from({ length: 40 }, () => 0))
          one.up = true
        }
        yield* TestClock.adjust(`${blockTime} seconds`)
        const journal = yield* store.load(chain.id)
        assert.isAtMost(journal?.final?.number ?? -1, fork)
      }
      two.up = true
      one.follow(chain)
      yield* eventually("it is stored", () => status.stored === chain.head.number, 120)
      chain.extend(0, 0)
      yield* TestClock.adjust("90 seconds")
      const journal = yield* store.load(chain.id)
      assert.isAbove(journal!.final!.number, fork)
      assert.strictEqual(journal!.final!.hash, chain.at(journal!.final!.number)!.header.hash)
    }),
  )

describe("the service", () => {
  divided("finalizes nothing while two endpoints disagree [G-078]", false)
  divided("finalizes nothing while one of two disagreeing endpoints is disconnected [G-079]", true)
})
