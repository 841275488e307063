/** What `check` reports about the headers and logs of nodes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { make } from "../../../src/abi/Decoder.ts"
import { blooms, events, finality, indexes, oneEndpoint } from "../../../src/cli/dialect.ts"
import type { Sample } from "../../../src/cli/dialect.ts"
import { parseEvents } from "../../../src/config/EventsParser.ts"
import type { Hex } from "../../../src/Domain.ts"
import type { PlacedLog } from "../../../src/endpoint/Decode.ts"
import { FakeChain } from "../../support/FakeChain.ts"

const unfiltered = { filter: { addresses: [], topics: [] } }

/** A block with this many logs, whose indexes are changed. */
const sample = (logs: number, reindex: (index: number) => number = (index) => index): Sample => {
  const chain = new FakeChain()
  chain.extend(logs)
  const { head: header } = chain
  return {
    header,
    logs: chain.at(1)!.logs.map((log): PlacedLog => {
      const place = { blockNumber: 1, blockHash: header.hash, blockTimestamp: undefined, removed: false }
      return { ...log, ...place, index: reindex(log.index) }
    }),
  }
}

describe("the warning about a single endpoint", () => {
  it("is the same in `check` and GUARANTEES", () => {
    assert.include(readFileSync("docs/GUARANTEES.md", "utf8").replaceAll(/\s+/g, " "), oneEndpoint)
  })
})

describe("decoded events", () => {
  it.effect("are shown for the logs of the sampled block that match", () =>
    Effect.gen(function* () {
      const abis = yield* parseEvents("Set(uint8 value)")
      const topics = [abis.events[0]!.topic0]
      const filter = { addresses: [], topics: [topics] }
      const decode = make(abis)
      const { header, logs } = sample(3)
      const withData = (data: Hex): Sample => ({
        header,
        logs: logs.map((log) => (log.index === 1 ? { ...log, topics, data } : log)),
      })
      const traitOf = (of: Sample | undefined) => {
        const { level, detail } = events({ filter }, of, decode)
        return `${level}: ${detail}`
      }
      assert.strictEqual(
        traitOf(withData(`0x${"05".padStart(64, "0")}`)),
        "ok: events: 1 of 3 logs of block 1 match, such as Set(value: 5)",
      )
      assert.strictEqual(
        traitOf(withData("0x05")),
        "warning: events: 1 of 3 logs of block 1 match, and log 1 (Set(uint8)) cannot be decoded",
      )
      assert.strictEqual(traitOf({ header, logs }), "ok: events: 0 of 3 logs of block 1 match")
      assert.strictEqual(traitOf(undefined), "ok: events: unknown: no block can be read without a filter")
    }),
  )
})

describe("log indexes", () => {
  const describeSample = (of: Sample | undefined, hasReceipts = true, chain = unfiltered) => {
    const { level, detail } = indexes(chain, of, hasReceipts)
    return `${level}: ${detail.replace("log indexes: ", "")}`
  }

  it("are classified as per block, per transaction, with gaps, or ambiguous", () => {
    assert.strictEqual(describeSample(sample(6)), "ok: per block, from 0")
    assert.match(
      describeSample(sample(6, (index) => index % 3)),
      /^failure: from 0 in each transaction \(block 1\)/,
    )
    assert.match(
      describeSample(sample(6, () => 0)),
      /^failure: repeated \(block 1\): .*no identity, .*not supported$/,
    )
    assert.match(
      describeSample(sample(6, (index) => index * 2)),
      /^ok: per block, with gaps \(block 1\), accepted if/,
    )
  })

  it("with gaps are a failure without receipts, unless a filter explains the gaps", () => {
    const gaps = sample(6, (index) => index + 1)
    assert.match(describeSample(gaps, false), /^failure: .* a missing log cannot be detected$/)
    const filter = { addresses: [`0x${"1".repeat(40)}`], topics: [] } as const
    assert.match(describeSample(gaps, false, { filter } as never), /^ok: /)
  })

  it("are unknown if one transaction has all logs, if there are none, or if the endpoint serves none", () => {
    assert.strictEqual(
      describeSample(sample(3)),
      "ok: from 0 (the sampled block has logs of one transaction only)",
    )
    assert.match(describeSample(sample(0)), /^ok: unknown: the sampled blocks have no logs/)
    assert.match(describeSample(undefined), /^ok: unknown: no block can be read without a filter/)
  })
})

describe("blooms", () => {
  const trust = { name: "devnet", logsBloom: "trust" } as const
  const { header, logs } = sample(4)
  const full = { ...header, logsBloom: `0x${"f".repeat(512)}` } as const
  const zero = { ...header, logsBloom: `0x${"0".repeat(512)}` } as const
  const missing = { ...header, logsBloom: undefined }

  it("are reported by source: fetched and announced", () => {
    const describeBlooms = (...args: [Parameters<typeof blooms>[1], Parameters<typeof blooms>[2]]) =>
      blooms(trust, ...args, undefined).detail.replace("logsBloom: ", "")
    assert.strictEqual(describeBlooms([zero, header], undefined), "fetched usable")
    assert.strictEqual(describeBlooms([header], [zero, header]), "fetched usable, announced zero")
    assert.strictEqual(
      describeBlooms([header], [zero, zero]),
      "fetched usable, announced zero (a block without logs)",
    )
    assert.match(
      describeBlooms([zero, missing], [full, missing]),
      /^fetched zero or missing, announced all ones; the logs of every block are fetched/,
    )
  })

  it("should be ignored if they do not match the logs", () => {
    const wrong = { header: { ...header, logsBloom: `0x01${"0".repeat(510)}` }, logs } as const
    const { level, fix } = blooms(trust, [header], undefined, wrong)
    assert.deepStrictEqual([level, fix], ["warning", "set DEVNET_LOGS_BLOOM=ignore"])
    assert.strictEqual(blooms(trust, [header], undefined, { header, logs }).level, "ok")
    const ignored = blooms({ ...trust, logsBloom: "ignore" }, [header], undefined, wrong)
    assert.deepStrictEqual(ignored, {
      level: "ok",
      detail: "logsBloom: fetched usable; ignored (LOGS_BLOOM=ignore)",
    })
  })
})

describe("finality", () => {
  it("is by depth if no block has the finalized tag or the tag is refused", () => {
    const { header } = sample(1)
    const chain = { name: "devnet", finality: "tag", finalityDepth: 64 } as const
    assert.match(
      finality(chain, header, undefined).detail,
      /by depth, 64 blocks: no block has the finalized tag$/,
    )
    const refusal = { refusal: "unknown tag", isNothing: false }
    assert.match(finality(chain, header, refusal).detail, /by depth, 64 blocks: unknown tag$/)
    assert.strictEqual(
      finality(chain, header, header).fix,
      "on a development node, set DEVNET_FINALITY=depth",
    )
  })
})
