import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as AuditReads from "../../../src/chain/AuditReads.ts"
import { endOfRead, mostLogs } from "../../../src/chain/AuditReads.ts"
import { hash } from "../../support/blocks.ts"

const record = (number: number, count: number) => ({
  number,
  hash: hash("block", number),
  parentHash: hash("block", number - 1),
  count,
})

const third = Math.ceil(mostLogs / 3)

describe("the end of an audit's read", () => {
  it("is the end of the range where that holds few logs", () => {
    assert.strictEqual(endOfRead([record(3, 1), record(7, mostLogs - 1)], 1, 9), 9)
  })

  it("is the last height before too many logs", () => {
    const window = [record(2, mostLogs), record(3, third), record(4, third), record(9, mostLogs)]
    assert.strictEqual(endOfRead(window, 3, 12), 8)
  })

  it("is a single block where that holds too many", () => {
    assert.strictEqual(endOfRead([record(3, mostLogs + 1), record(4, 1)], 3, 12), 3)
  })
})

describe("the audit's reads of all chains", () => {
  it.effect("run one after the other", () =>
    Effect.gen(function* () {
      const inTurn = yield* AuditReads.make
      let [running, most] = [0, 0]
      const read = Effect.gen(function* () {
        most = Math.max(most, ++running)
        yield* Effect.sleep("1 second")
        running--
      })
      const all = yield* Effect.forkChild(
        Effect.forEach([1, 2, 3, 4], () => inTurn(read), { concurrency: "unbounded" }),
      )
      yield* TestClock.adjust("4 seconds")
      assert.isDefined(all.pollUnsafe())
      assert.strictEqual(most, 1)
    }),
  )

  it.effect("wait ten seconds for an endpoint that does not answer, and fail only on their own", () =>
    Effect.gen(function* () {
      const inTurn = yield* AuditReads.make
      yield* Effect.forkChild(inTurn(Effect.never))
      yield* TestClock.adjust("1 second")
      const other = yield* Effect.forkChild(inTurn(Effect.succeed("read")))
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(other.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      assert.isDefined(other.pollUnsafe())
      const failed = yield* Effect.forkChild(Effect.flip(inTurn(Effect.fail("its own error"))))
      yield* TestClock.adjust("11 seconds")
      assert.isDefined(failed.pollUnsafe())
    }),
  )
})
