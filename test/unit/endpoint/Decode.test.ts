import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Hex } from "../../../src/Domain.ts"
import { headerOf, hex, logsOf, quantity } from "../../../src/endpoint/Decode.ts"
import { Malformed } from "../../../src/endpoint/EndpointError.ts"
import { headersIn, logsIn, nodes, read } from "../../support/frames.ts"

const hash: Hex = `0x${"ab".repeat(32)}`

const header = {
  number: "0x10",
  hash,
  parentHash: `0x${"CD".repeat(32)}`,
  timestamp: "0x6553f100",
  logsBloom: `0x${"0".repeat(512)}`,
}

const log = {
  address: `0x${"AA".repeat(20)}`,
  topics: [hash],
  data: "0x00FF",
  blockHash: hash,
  blockNumber: "0x10",
  blockTimestamp: "0x6553f100",
  transactionHash: hash,
  transactionIndex: "0x1",
  logIndex: "0x2",
  removed: false,
}

const without = (object: object, field: string) =>
  Object.fromEntries(Object.entries(object).filter(([name]) => name !== field))

describe("quantity", () => {
  it.each([
    ["0x0", 0],
    ["0xff", 255],
    [255, 255],
    ["255", 255],
    ["0xFF", 255],
    ["0x00000010", 16],
    ["0x1fffffffffffff", Number.MAX_SAFE_INTEGER],
  ])("decodes %s as %d", (text, value) => assert.strictEqual(quantity(text), value))

  it.each([
    "",
    "0x",
    "1e3",
    "12345678901234567",
    "0xg",
    " 0x1",
    "0x1 ",
    "-0x1",
    "0x20000000000000",
    `0x${"f".repeat(1000)}`,
    `0x${"0".repeat(1000)}1`,
    -1,
    1.5,
    null,
    undefined,
    {},
  ])("rejects %s", (text) => assert.isUndefined(quantity(text)))

  it.prop(
    "decodes what hex encodes",
    [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 53 - 1 }))],
    ([n]) => assert.strictEqual(quantity(hex(n)), n),
  )
})

describe("headers", () => {
  it("are decoded to lower case", () =>
    assert.deepStrictEqual<unknown>(headerOf(header), {
      number: 16,
      hash,
      parentHash: `0x${"cd".repeat(32)}`,
      timestamp: 1_700_000_000,
      logsBloom: header.logsBloom,
      executed: false,
      origin: "fetched",
    }))

  it("have no bloom if it is invalid", () => {
    for (const logsBloom of [null, undefined, "0x", "0x00", `0x${"0".repeat(510)}`, 7, {}]) {
      const read = headerOf({ ...header, logsBloom })
      assert.isTrue(!(read instanceof Malformed) && read.logsBloom === undefined)
    }
  })

  it("show whether the block executed transactions", () => {
    const empty = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    const executed = (fields: object) => {
      const read = headerOf({ ...header, ...fields })
      return !(read instanceof Malformed) && read.executed
    }
    assert.isFalse(executed({ gasUsed: "0x0", transactionsRoot: empty, receiptsRoot: empty }))
    assert.isFalse(executed({ transactionsRoot: `0x${"0".repeat(64)}` }))
    assert.isTrue(executed({ gasUsed: "0x5208" }))
    assert.isTrue(executed({ transactionsRoot: hash }))
    assert.isTrue(executed({ receiptsRoot: hash }))
  })

  it.each(Object.keys(without(header, "logsBloom")))("are malformed without %s", (field) => {
    assert.instanceOf(headerOf(without(header, field)), Malformed)
    assert.instanceOf(headerOf({ ...header, [field]: null }), Malformed)
    assert.instanceOf(headerOf({ ...header, [field]: "0xzz" }), Malformed)
    assert.instanceOf(headerOf({ ...header, [field]: { toString: () => "0x1" } }), Malformed)
  })

  it.each([null, undefined, "0x", 7, []])("are malformed if they are %s", (value) =>
    assert.instanceOf(headerOf(value), Malformed),
  )

  it.each(nodes)("of %s are read as recorded", (node) => {
    const recorded = [...headersIn(read(node, "notifications")), ...headersIn(read(node, "block"))]
    assert.isNotEmpty(recorded)
    for (const raw of recorded) assert.notInstanceOf(headerOf(raw), Malformed)
  })
})

describe("logs", () => {
  it("are decoded to lower case, with quantities as numbers", () =>
    assert.deepStrictEqual<unknown>(logsOf([log]), [
      {
        index: 2,
        txIndex: 1,
        txHash: hash,
        contract: `0x${"aa".repeat(20)}` as Hex,
        topics: [hash],
        data: "0x00ff",
        blockNumber: 16,
        blockHash: hash,
        blockTimestamp: 1_700_000_000,
        removed: false,
      },
    ]))

  it("are valid without blockTimestamp and removed", () => {
    const logs = logsOf([without(without(log, "blockTimestamp"), "removed")])
    assert.isTrue(Array.isArray(logs) && logs[0]?.removed === false && logs[0].blockTimestamp === undefined)
  })

  it.each([
    ["data", "0x0"],
    ["data", "00"],
    ["data", "0x0g"],
    ["data", null],
    ["topics", [hash, hash, hash, hash, hash]],
    ["topics", ["0x12"]],
    ["topics", [null]],
    ["logIndex", "0x80000000"],
    ["logIndex", null],
    ["transactionIndex", "-0x1"],
    ["blockNumber", null],
    ["blockHash", null],
    ["transactionHash", "0x"],
    ["address", hash],
    ["removed", "no"],
  ] as ReadonlyArray<readonly [string, unknown]>)("are malformed with %s = %j", (field, value) => {
    assert.instanceOf(logsOf([{ ...log, [field]: value }]), Malformed)
  })

  it.each([undefined, {}, "[]", [null], [[]], [7]])("are malformed if they are %j", (value) =>
    assert.instanceOf(logsOf(value), Malformed),
  )

  it("are empty if the response is null", () => assert.deepStrictEqual(logsOf(null), []))

  it("are sorted by block and index, without duplicates", () => {
    const at = (blockNumber: string, logIndex: string) => ({ ...log, blockNumber, logIndex })
    const mixed = [at("0x2", "0x0"), at("0x1", "0x1"), at("0x1", "0x0"), at("0x1", "0x1")]
    assert.deepStrictEqual(logsOf(mixed), logsOf([at("0x1", "0x0"), at("0x1", "0x1"), at("0x2", "0x0")]))
    const other = { ...at("0x1", "0x1"), data: "0x" }
    const both = logsOf([at("0x1", "0x1"), other])
    assert.isTrue(Array.isArray(both) && both.length === 2)
  })

  it.each(nodes)("of %s are read as recorded", (node) => {
    const recorded = [...logsIn(read(node, "notifications")), ...logsIn(read(node, "getLogs"))]
    assert.isAbove(recorded.length, 10)
    assert.notInstanceOf(logsOf(recorded), Malformed)
  })

  /** Unusual values for each field. */
  const odd: ReadonlyArray<readonly [field: keyof typeof log, value: unknown]> = [
    ...Object.keys(log).flatMap((field) =>
      ["", "0x", "0x1", "0X10", "0xzz", "10", 16, true, false, null, undefined, [], {}, hash].map(
        (value) => [field as keyof typeof log, value] as const,
      ),
    ),
    // The low byte of these characters is that of a digit; Node's hex decoder may ignore the high byte.
    ...(["address", "data", "transactionHash"] as const).map(
      (field) => [field, log[field].replace(/..$/, "\u0661\u0130")] as const,
    ),
    ["topics", [hash.replace(/..$/, "\u0661\u0130")]],
    ["topics", [hash, hash.toUpperCase()]],
    ["topics", [`0x${"CD".repeat(32)}`, hash]],
    ["topics", [hash, hash, hash, hash, hash]],
    ["topics", [`${hash}00`]],
    ["topics", [hash.slice(0, -1)]],
    ["topics", [`${hash.slice(0, -2)}zz`]],
    ["topics", [`${hash.slice(0, -1)}`, `${hash}0`]],
    ["data", "0x"],
    ["data", `0x${"0f".repeat(50_000)}`],
    ["data", `0x${"0f".repeat(50_000)}0g`],
    ["data", "0x0g"],
    ["data", "0x00 "],
    ["address", `0x${"a".repeat(39)}`],
    ["address", `0x${"a".repeat(41)}`],
    ["address", `0y${"a".repeat(40)}`],
    ["transactionIndex", "0x2"],
    ["logIndex", "0xffffffff"],
  ]

  it("are decoded equally by the fast and the slow path", () => {
    const lower = { ...log, address: log.address.toLowerCase(), data: "0x00ff" }
    for (const before of [log, lower]) {
      for (const change of [{}, { transactionHash: `0x${"ef".repeat(32)}` }]) {
        for (const [field, value] of odd) {
          const raw = { ...before, ...change, logIndex: "0x8", [field]: value }
          const alone = logsOf([raw])
          const after = logsOf([before, raw])
          if (Array.isArray(alone)) assert.deepStrictEqual(after, logsOf([raw, before]), field)
          else assert.instanceOf(after, Malformed, `${field}: ${String(value)}`)
        }
      }
    }
  })
})
