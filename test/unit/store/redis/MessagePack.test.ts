import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Hex, Log } from "../../../../src/Domain.ts"
import { pack } from "../../../../src/store/redis/MessagePack.ts"

/** Decodes a MessagePack sequence of strings. */
const unpack = (packed: Buffer): ReadonlyArray<string> => {
  const texts: Array<string> = []
  for (let at = 0; at < packed.length;) {
    const kind = packed[at]!
    const bytes = kind === 0xd9 ? 1 : kind === 0xda ? 2 : kind === 0xdb ? 4 : 0
    assert.isTrue(bytes > 0 || kind >> 5 === 0b101, `${kind} at ${at} starts a string`)
    const length = bytes === 0 ? kind & 31 : packed.readUIntBE(at + 1, bytes)
    at += 1 + bytes
    texts.push(packed.toString("latin1", at, at + length))
    at += length
  }
  return texts
}

const hex = (bytes: number): Hex => `0x${"5f".repeat(bytes)}`

const logOf = (index: number, topics: number, bytes: number): Log => ({
  index,
  txIndex: index % 7,
  txHash: `0x${"5f".repeat(31)}0${index % 3}`,
  contract: hex(20),
  topics: Array.from({ length: topics }, () => hex(32)),
  data: hex(bytes),
})

const expected = (
  { index, txHash, contract, topics, data, txIndex }: Log,
  i: number,
  all: ReadonlyArray<Log>,
) => [
  String(index),
  txHash === all[i - 1]?.txHash ? "" : txHash,
  contract,
  JSON.stringify(topics),
  data,
  String(txIndex),
]

const check = (blocks: ReadonlyArray<ReadonlyArray<Log>>) =>
  assert.deepStrictEqual(unpack(pack(blocks.map((logs) => ({ logs })))), blocks.flat().flatMap(expected))

describe("the logs of a push", () => {
  it.prop(
    "are what MessagePack reads",
    {
      logs: Schema.Array(
        Schema.Tuple([
          Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0x7fffffff })),
          Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 })),
          Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200 })),
        ]),
      ),
      cut: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10 })),
    },
    ({ logs, cut }) => {
      const all = logs.map(([index, topics, bytes]) => logOf(index, topics, bytes))
      check([all.slice(0, cut), [], all.slice(cut)])
    },
  )

  it.each([14, 15, 126, 127, 32_766, 32_767, 1_000_000])("may have %d bytes of data", (bytes) =>
    check([[logOf(0x7fffffff, 4, bytes)]]),
  )
})
