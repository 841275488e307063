/** What `check` says of headers and logs as nodes have them. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { blooms, finality, indexes, oneEndpoint } from "../../../src/cli/dialect.ts"
import type { Sample } from "../../../src/cli/dialect.ts"
import type { PlacedLog } from "../../../src/endpoint/Decode.ts"
import { FakeChain } from "../../support/FakeChain.ts"

const unfiltered = { filter: { addresses: [], topics: [] } }

/** The last block of a chain with so many logs, its indexes changed. */
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

describe("one endpoint", () => {
  it("hides as much in README and GUARANTEES as check says", () => {
    for (const path of ["README.md", "docs/GUARANTEES.md"])
      assert.include(readFileSync(path, "utf8").replaceAll(/\s+/g, " "), oneEndpoint, path)
  })
})

describe("log indexes", () => {
  const said = (of: Sample | undefined, hasReceipts = true, chain = unfiltered) => {
    const { level, detail } = indexes(chain, of, hasReceipts)
    return `${level}: ${detail.replace("log indexes: ", "")}`
  }

  it("are of a block, of a transaction, with holes, or no identity at all", () => {
    assert.strictEqual(said(sample(6)), "ok: per block, from 0")
    assert.match(said(sample(6, (index) => index % 3)), /^failure: from 0 in each transaction \(block 1\)/)
    assert.match(
      said(sample(6, () => 0)),
      /^failure: repeated \(block 1\): .*no identity, .*cannot be handled$/,
    )
    assert.match(
      said(sample(6, (index) => index * 2)),
      /^ok: per block, with holes \(block 1\), believed where/,
    )
  })

  it("with holes show nothing where there are no receipts, unless a filter makes holes of its own", () => {
    const holes = sample(6, (index) => index + 1)
    assert.match(said(holes, false), /^failure: .* nothing shows that no log is missing$/)
    const filter = { addresses: [`0x${"1".repeat(40)}`], topics: [] } as const
    assert.match(said(holes, false, { filter } as never), /^ok: /)
  })

  it("are not known where one transaction has all logs, where there are none, or where none are granted", () => {
    assert.strictEqual(said(sample(3)), "ok: from 0, as far as a block with one transaction shows")
    assert.match(said(sample(0)), /^ok: unknown, as the blocks that were read have no logs/)
    assert.match(said(undefined), /^ok: unknown, as no block can be read without a filter/)
  })
})

describe("blooms", () => {
  const trust = { name: "devnet", logsBloom: "trust" } as const
  const { header, logs } = sample(4)
  const full = { ...header, logsBloom: `0x${"f".repeat(512)}` } as const
  const zero = { ...header, logsBloom: `0x${"0".repeat(512)}` } as const
  const missing = { ...header, logsBloom: undefined }

  it("are told by where they come from", () => {
    const said = (...args: [Parameters<typeof blooms>[1], Parameters<typeof blooms>[2]]) =>
      blooms(trust, ...args, undefined).detail.replace("logsBloom: ", "")
    assert.strictEqual(said([zero, header], undefined), "fetched usable")
    assert.strictEqual(said([header], [zero, header]), "fetched usable, announced zero")
    assert.strictEqual(said([header], [zero, zero]), "fetched usable, announced zero (a block without logs)")
    assert.match(
      said([zero, missing], [full, missing]),
      /^fetched zero or missing, announced all ones; as long as/,
    )
  })

  it("that the logs do not make are to be ignored", () => {
    const wrong = { header: { ...header, logsBloom: `0x01${"0".repeat(510)}` }, logs } as const
    const { level, fix } = blooms(trust, [header], undefined, wrong)
    assert.deepStrictEqual([level, fix], ["warning", "set DEVNET_LOGS_BLOOM=ignore"])
    assert.strictEqual(blooms(trust, [header], undefined, { header, logs }).level, "ok")
    const ignored = blooms({ ...trust, logsBloom: "ignore" }, [header], undefined, wrong)
    assert.deepStrictEqual(ignored, {
      level: "ok",
      detail: "logsBloom: fetched usable; ignored, as LOGS_BLOOM says",
    })
  })
})

describe("finality", () => {
  it("is by depth where no block has the tag or it is refused", () => {
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
