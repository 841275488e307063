import { assert, describe, it } from "@effect/vitest"
import type { Hex } from "../../../src/Domain.ts"
import { logParams } from "../../../src/endpoint/Eth.ts"
import { fingerprint, isUnfiltered, makeMatches } from "../../../src/logs/Filter.ts"

const a: Hex = `0x${"aa".repeat(20)}`
const b: Hex = `0x${"bb".repeat(20)}`
const [t1, t2, t3] = ["11", "22", "33"].map((digits): Hex => `0x${digits.repeat(32)}`) as [Hex, Hex, Hex]

describe("a filter", () => {
  it("without addresses and topics matches every log and adds no parameters", () => {
    const none = { addresses: [], topics: [] }
    assert.isTrue(isUnfiltered(none))
    assert.isTrue(makeMatches(none)({ contract: a, topics: [] }))
    assert.deepStrictEqual(logParams(none), {})
    assert.strictEqual(fingerprint(none), "none")
  })

  it.each([
    [{ addresses: [a], topics: [] }, { contract: a, topics: [] }, true],
    [{ addresses: [a], topics: [] }, { contract: b, topics: [t1] }, false],
    [{ addresses: [a, b], topics: [[t1, t2]] }, { contract: b, topics: [t2] }, true],
    [{ addresses: [], topics: [[t1]] }, { contract: a, topics: [t2, t1] }, false],
    [{ addresses: [], topics: [null, [t2]] }, { contract: a, topics: [t1, t2] }, true],
    [{ addresses: [], topics: [null, [t2]] }, { contract: a, topics: [t1] }, false],
    [{ addresses: [], topics: [[t1], null] }, { contract: a, topics: [t1] }, false],
    [{ addresses: [], topics: [[t1], null] }, { contract: a, topics: [t1, t3] }, true],
    [{ addresses: [], topics: [[]] }, { contract: a, topics: [t1] }, true],
  ])("%j applied to %j: %s", (filter, log, expected) =>
    assert.strictEqual(makeMatches(filter)(log), expected),
  )

  it("is encoded as eth_getLogs parameters", () =>
    assert.deepStrictEqual(logParams({ addresses: [a], topics: [null, [t1]] }), {
      address: [a],
      topics: [null, [t1]],
    }))

  it("has a fingerprint independent of the order of its values", () => {
    const one = fingerprint({ addresses: [a, b], topics: [[t1, t2]] })
    assert.strictEqual(fingerprint({ addresses: [b, a], topics: [[t2, t1]] }), one)
    assert.notStrictEqual(fingerprint({ addresses: [a, b], topics: [[t1], [t2]] }), one)
    assert.notStrictEqual(fingerprint({ addresses: [a], topics: [[t1, t2]] }), one)
    assert.match(one, /^[0-9a-f]{16}$/)
  })
})
