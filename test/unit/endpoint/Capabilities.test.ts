import { assert, describe, it } from "@effect/vitest"
import { Learned } from "../../../src/endpoint/Capabilities.ts"
import { hash } from "../../support/blocks.ts"

describe("what was learned of an endpoint", () => {
  it("fades: what was refused is tried again, what was made smaller grows again", () => {
    const fresh = new Learned().description
    const learned = new Learned()
    learned.refused.add("eth_getLogs")
    learned.finalizedTag = false
    learned.announcesHeads = false
    learned.addresses = 9
    learned.headers = 3
    learned.receipts = 5
    assert.isFalse(learned.allows("eth_getLogs", hash("a")))
    learned.fade()
    assert.isTrue(learned.allows("eth_getLogs", hash("a")))
    assert.isTrue(learned.finalizedTag)
    assert.deepStrictEqual([learned.addresses, learned.headers, learned.receipts], [18, 6, 10])
    for (let hour = 0; hour < 10; hour++) learned.fade()
    assert.deepStrictEqual(learned.description, fresh)
  })

  it("closes a way of asking that is refused for two blocks, or for an old one", () => {
    const learned = new Learned()
    learned.refuse("eth_getLogs", hash("a"), false)
    learned.refuse("eth_getLogs", hash("a"), false)
    assert.isTrue(learned.allows("eth_getLogs", hash("a")))
    assert.isTrue(learned.doubts("eth_getLogs"))
    learned.refuse("eth_getLogs", hash("b"), false)
    assert.isFalse(learned.allows("eth_getLogs", hash("c")))
    learned.refuse("eth_getBlockReceipts", hash("a"), true)
    assert.isFalse(learned.allows("eth_getBlockReceipts", hash("a")))
    learned.refuseHash(hash("a"))
    assert.isTrue(learned.byHash)
    learned.refuseHash(hash("b"))
    assert.isFalse(learned.byHash)
    learned.fade()
    assert.isTrue(learned.byHash && learned.allows("eth_getLogs", hash("a")))
    assert.isFalse(learned.doubts("eth_getLogs"))
  })

  it("does not fade where it is about one block, nor where it is proof", () => {
    const learned = new Learned()
    learned.tooLarge("eth_getLogs", hash("a"))
    learned.blooms.announced = true
    learned.fade()
    assert.isFalse(learned.allows("eth_getLogs", hash("a")))
    assert.isTrue(learned.allows("eth_getLogs", hash("b")))
    assert.isTrue(learned.blooms.announced)
  })

  it("closes a way of asking after two refusals, and not if it worked in between", () => {
    const learned = new Learned()
    learned.refuse("eth_getLogs", hash("a"), false)
    learned.works("eth_getLogs")
    learned.refuse("eth_getLogs", hash("b"), false)
    assert.isTrue(learned.allows("eth_getLogs", hash("b")))
    learned.refuse("eth_getLogs", hash("c"), false)
    assert.isFalse(learned.allows("eth_getLogs", hash("c")))
    learned.refuseRange(1, false)
    learned.works("range")
    learned.refuseRange(11, false)
    assert.isTrue(learned.ranges)
    learned.refuseRange(21, true)
    assert.isFalse(learned.ranges)
    learned.fade()
    assert.isTrue(learned.ranges)
  })

  it("is told as plain JSON", () => {
    const learned = new Learned()
    learned.refused.add("eth_getLogs").add("eth_getBlockReceipts")
    learned.narrow(10)
    learned.narrowRecent(20)
    learned.tooLarge("eth_getTransactionReceipt", hash("a"))
    assert.deepStrictEqual(JSON.parse(JSON.stringify(learned.description)), {
      refused: ["eth_getLogs", "eth_getBlockReceipts"],
      range: 10,
      recent_range: 10,
      addresses: 1000,
      headers_per_batch: 20,
      receipts_per_batch: 20,
      finalized_tag: true,
      bloom_mismatches: 0,
      nothing_final: false,
      logs_by_hash: true,
      logs_of_ranges: true,
      announces_heads: true,
      computes_blooms: false,
      oversized_blocks: 1,
    })
  })

  it("is told where it differs from what is believed at first", () => {
    const learned = new Learned()
    assert.deepStrictEqual(learned.notes, [])
    learned.refused.add("eth_getLogs")
    learned.narrow(50)
    learned.narrowRecent(10)
    learned.addresses = 100
    learned.receipts = 5
    learned.finalizedTag = false
    learned.nothingFinal = true
    learned.byHash = false
    learned.announcesHeads = false
    assert.deepStrictEqual(learned.notes, [
      "refuses eth_getLogs",
      "history in pieces of 50 blocks",
      "recent blocks 5 at a time",
      "at most 100 addresses a request",
      "5 receipts in a batch",
      "refuses eth_getLogs by blockHash",
      "no finalized tag",
      "nothing is final yet",
      "heads are polled",
    ])
  })
})
