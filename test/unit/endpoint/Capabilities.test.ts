import { assert, describe, it } from "@effect/vitest"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import { hash } from "../../support/blocks.ts"

describe("endpoint capabilities", () => {
  it("tries refused methods again every hour, and doubles reduced limits", () => {
    const fresh = new Capabilities().description
    const capabilities = new Capabilities()
    capabilities.refused.add("eth_getLogs")
    capabilities.finalizedTag = false
    capabilities.announcesHeads = false
    capabilities.addresses.shrink(9)
    capabilities.headers.shrink(3)
    capabilities.receipts.shrink(5)
    assert.isFalse(capabilities.allows("eth_getLogs", hash("a")))
    capabilities.relax()
    assert.isTrue(capabilities.allows("eth_getLogs", hash("a")))
    assert.isTrue(capabilities.finalizedTag)
    const { addresses, headers, receipts } = capabilities
    assert.deepStrictEqual([addresses.current, headers.current, receipts.current], [18, 6, 10])
    for (let hour = 0; hour < 10; hour++) capabilities.relax()
    assert.deepStrictEqual(capabilities.description, fresh)
  })

  it("disables a method that is refused for two blocks or for an old block", () => {
    const capabilities = new Capabilities()
    capabilities.refuse("eth_getLogs", hash("a"), false)
    capabilities.refuse("eth_getLogs", hash("a"), false)
    assert.isTrue(capabilities.allows("eth_getLogs", hash("a")))
    assert.isTrue(capabilities.wasRefused("eth_getLogs"))
    capabilities.refuse("eth_getLogs", hash("b"), false)
    assert.isFalse(capabilities.allows("eth_getLogs", hash("c")))
    capabilities.refuse("eth_getBlockReceipts", hash("a"), true)
    assert.isFalse(capabilities.allows("eth_getBlockReceipts", hash("a")))
    capabilities.refuseHash(hash("a"))
    assert.isTrue(capabilities.byHash)
    capabilities.refuseHash(hash("b"))
    assert.isFalse(capabilities.byHash)
    capabilities.relax()
    assert.isTrue(capabilities.byHash && capabilities.allows("eth_getLogs", hash("a")))
    assert.isFalse(capabilities.wasRefused("eth_getLogs"))
  })

  it("keeps oversized blocks and proven blooms when limits relax", () => {
    const capabilities = new Capabilities()
    capabilities.markOversized("eth_getLogs", hash("a"))
    capabilities.blooms.announced = true
    capabilities.relax()
    assert.isFalse(capabilities.allows("eth_getLogs", hash("a")))
    assert.isTrue(capabilities.allows("eth_getLogs", hash("b")))
    assert.isTrue(capabilities.blooms.announced)
  })

  it("disables a method after two refusals without a success in between", () => {
    const capabilities = new Capabilities()
    capabilities.refuse("eth_getLogs", hash("a"), false)
    capabilities.recordSupported("eth_getLogs")
    capabilities.refuse("eth_getLogs", hash("b"), false)
    assert.isTrue(capabilities.allows("eth_getLogs", hash("b")))
    capabilities.refuse("eth_getLogs", hash("c"), false)
    assert.isFalse(capabilities.allows("eth_getLogs", hash("c")))
    capabilities.refuseRange(1, false)
    capabilities.recordSupported("range")
    capabilities.refuseRange(11, false)
    assert.isTrue(capabilities.ranges)
    capabilities.refuseRange(21, true)
    assert.isFalse(capabilities.ranges)
    capabilities.relax()
    assert.isTrue(capabilities.ranges)
  })

  it("describes itself as plain JSON", () => {
    const capabilities = new Capabilities()
    capabilities.refused.add("eth_getLogs").add("eth_getBlockReceipts")
    capabilities.width.shrink(10)
    capabilities.recentWidth.shrink(10)
    capabilities.markOversized("eth_getTransactionReceipt", hash("a"))
    assert.deepStrictEqual(JSON.parse(JSON.stringify(capabilities.description)), {
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

  it("lists only the limits that differ from the defaults", () => {
    const capabilities = new Capabilities()
    assert.deepStrictEqual(capabilities.limits, [])
    capabilities.refused.add("eth_getLogs")
    capabilities.width.shrink(50)
    capabilities.recentWidth.shrink(5)
    capabilities.addresses.shrink(100)
    capabilities.receipts.shrink(5)
    capabilities.finalizedTag = false
    capabilities.nothingFinal = true
    capabilities.byHash = false
    capabilities.announcesHeads = false
    assert.deepStrictEqual(capabilities.limits, [
      "refuses eth_getLogs",
      "history in ranges of 50 blocks",
      "recent blocks in ranges of 5",
      "at most 100 addresses per request",
      "5 receipts per batch",
      "refuses eth_getLogs by blockHash",
      "no finalized tag",
      "nothing is final yet",
      "heads are polled",
    ])
  })
})
