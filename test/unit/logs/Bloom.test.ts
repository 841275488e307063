import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { createKeccak } from "hash-wasm"
import type { Hex } from "../../../src/Domain.ts"
import { headerOf, logsOf } from "../../../src/endpoint/Decode.ts"
import type { PlacedLog } from "../../../src/endpoint/Decode.ts"
import { bloomOf, isZero, mayMatch } from "../../../src/logs/Bloom.ts"
import { block } from "../../support/blocks.ts"
import { headersIn, logsIn, nodes, read } from "../../support/frames.ts"

describe("blooms", () => {
  it.each(nodes)("match those that %s computes", (node) => {
    const files = ["notifications", "block", "getLogs", "calls"].map((file) => read(node, file))
    const logs = logsOf(files.flatMap(logsIn)) as ReadonlyArray<PlacedLog>
    let compared = 0
    for (const raw of files.flatMap(headersIn)) {
      const header = headerOf(raw)
      if (!("hash" in header)) throw header
      const own = logs.filter((log) => log.blockHash === header.hash)
      if (own.length === 0) continue
      assert.strictEqual(bloomOf(own), header.logsBloom)
      compared++
    }
    assert.isAbove(compared, 0)
  })

  it("are zero without logs", () => {
    assert.isTrue(isZero(bloomOf([])))
    assert.isFalse(mayMatch(bloomOf([]), [], []))
  })

  it.prop(
    "have no false negatives",
    [Schema.Int, Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 }))],
    ([n, size]) => {
      const { logs } = block(n, "bloom", size)
      const bloom = bloomOf(logs)
      for (const { contract, topics } of logs) {
        assert.isTrue(mayMatch(bloom, [contract], []))
        assert.isTrue(
          mayMatch(
            bloom,
            [],
            topics.map((topic) => [topic]),
          ),
        )
        assert.isTrue(mayMatch(bloom, [contract], [null, ...topics.slice(1).map((topic) => [topic])]))
      }
    },
  )

  it("keep false positives rare", () => {
    const bloom = bloomOf(block(1, "bloom", 5).logs)
    const others = Array.from({ length: 1000 }, (_, i) => `0x${i.toString(16).padStart(40, "0")}` as Hex)
    assert.isBelow(others.filter((other) => mayMatch(bloom, [other], [])).length, 20)
    assert.isFalse(mayMatch(bloom, [], [null, [`0x${"77".repeat(32)}`]]))
    assert.isTrue(mayMatch(bloom, [], []))
  })

  /** A literal implementation of the yellow paper. */
  const plain = async () => {
    const keccak = await createKeccak(256)
    return (word: Hex): string => {
      const hash = keccak
        .init()
        .update(Buffer.from(word.slice(2), "hex"))
        .digest("binary")
      const bloom = Buffer.alloc(256)
      for (const i of [0, 2, 4]) {
        const bit = (hash[i]! * 256 + hash[i + 1]!) % 2048
        bloom[255 - Math.floor(bit / 8)]! |= 2 ** (bit % 8)
      }
      return `0x${bloom.toString("hex")}`
    }
  }

  it("are correct for words that share a cache slot or a prefix", async () => {
    const bloomOfWord = await plain()
    const hex = (i: number, digits: number) => i.toString(16).padStart(digits, "0")
    const words = Array.from({ length: 40_000 }, (_, i): Hex =>
      i % 3 === 0
        ? `0x${hex(i, 40)}`
        : i % 3 === 1
          ? `0x${hex(i - 1, 40)}${"0".repeat(24)}`
          : `0x${hex(i, 64)}`,
    )
    for (let round = 0; round < 2; round++) {
      for (const [i, word] of words.entries()) {
        if (bloomOf([{ contract: word, topics: [] }]) !== bloomOfWord(word)) assert.fail(`${i}: ${word}`)
      }
      words.reverse()
    }
  })
})
