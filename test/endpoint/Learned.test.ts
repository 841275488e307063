import { assert, describe, it } from "@effect/vitest"
import { describe as told, Learned } from "../../src/endpoint/Learned.ts"

describe("what was learned of an endpoint", () => {
  it("is told where it differs from what is believed at first", () => {
    const learned = new Learned()
    assert.deepStrictEqual(told(learned), [])
    learned.refused.add("eth_getLogs")
    learned.narrow(50)
    learned.narrowRecent(10)
    learned.addresses = 100
    learned.receipts = 5
    learned.finalizedTag = false
    assert.deepStrictEqual(told(learned), [
      "refuses eth_getLogs",
      "history in pieces of 50 blocks",
      "recent blocks 5 at a time",
      "at most 100 addresses a request",
      "5 receipts at a time",
      "no finalized tag",
    ])
  })
})
