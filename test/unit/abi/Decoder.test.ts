import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { encodeAbiParameters, parseAbiParameters } from "viem"
import { make } from "../../../src/abi/Decoder.ts"
import { eventText } from "../../../src/abi/EventText.ts"
import { parseEvents } from "../../../src/config/EventsParser.ts"
import type { Hex } from "../../../src/Domain.ts"
import { block, log } from "../../support/blocks.ts"

const word = (value: string | number | bigint): string => BigInt(value).toString(16).padStart(64, "0")

/** The decoded log of the first event of a definition. @param indexed topics after the first */
const decoded = (definition: string, data: Hex, indexed: ReadonlyArray<Hex> = []) =>
  Effect.map(parseEvents(definition), (abis) => {
    const topics = [abis.events[0]!.topic0, ...indexed]
    const logs = [{ ...log("0x", 0), topics, data }]
    return make(abis)({ ...block(1, "a", 0), logs }).logs[0]!
  })

describe("decoded logs", () => {
  it.effect("name unnamed and repeated parameters", () =>
    Effect.gen(function* () {
      const { args } = yield* decoded(
        "A(int, int a, int a, (int, int arg0) t)",
        `0x${[1, 2, 3, 4, 5].map(word).join("")}`,
      )
      assert.strictEqual(args, '{"arg0":"1","a":"2","a_2":"3","t":{"arg0":"4","arg0_2":"5"}}')
    }),
  )

  it.effect("show a hash where the value does not fit into a topic", () =>
    Effect.gen(function* () {
      const hash: Hex = `0x${"ab".repeat(32)}`
      const { args } = yield* decoded("A(string indexed a, int[2] indexed b, (int) indexed c)", "0x", [
        hash,
        hash,
        hash,
      ])
      assert.strictEqual(args, `{"a":{"hash":"${hash}"},"b":{"hash":"${hash}"},"c":{"hash":"${hash}"}}`)
    }),
  )

  it.effect("show a function as 24 bytes, and ignore data after the arguments", () =>
    Effect.gen(function* () {
      const value = "12".repeat(24)
      const { args } = yield* decoded("A(function f)", `0x${value.padEnd(64, "0")}ff`)
      assert.strictEqual(args, `{"f":"0x${value}"}`)
    }),
  )

  const invalid: ReadonlyArray<readonly [title: string, definition: string, data: Hex]> = [
    ["no data", "A(int a)", "0x"],
    ["a word of 31 bytes", "A(int a)", `0x${"00".repeat(31)}`],
    ["a uint8 of 256", "A(uint8 a)", `0x${word(256)}`],
    ["an int8 of 128", "A(int8 a)", `0x${word(128)}`],
    ["a bool of 2", "A(bool a)", `0x${word(2)}`],
    ["an address of 21 bytes", "A(address a)", `0x${word(`0x${"ff".repeat(21)}`)}`],
    ["a bytes1 of 2 bytes", "A(bytes1 a)", `0x${"ffff".padEnd(64, "0")}`],
    ["an offset beyond the data", "A(bytes a)", `0x${word(1000)}`],
    ["a length beyond the data", "A(bytes a)", `0x${word(32)}${word(33)}${word(0)}`],
    ["an endless array", "A(int[] a)", `0x${word(32)}${word(2n ** 200n)}`],
    ["no UTF-8", "A(string a)", `0x${word(32)}${word(1)}${"ff".padEnd(64, "0")}`],
  ]
  for (const [title, definition, data] of invalid)
    it.effect(`have no args, only event: ${title}`, () =>
      Effect.gen(function* () {
        const { event, args } = yield* decoded(definition, data)
        assert.strictEqual(event, definition.replace(/ a\)/, ")").replace(/\bint(?!\d)/, "int256"))
        assert.isUndefined(args)
      }),
    )

  it.effect(
    "cost no more than their data, where the offsets of an array lead to one long value [G-218]",
    () =>
      Effect.gen(function* () {
        const count = 2000
        const long = `${word(32_000)}${"ab".repeat(32_000)}`
        const offsets = word(32 * count).repeat(count)
        const began = performance.now()
        const { args } = yield* decoded("A(bytes[] a)", `0x${word(32)}${word(count)}${offsets}${long}`)
        assert.isUndefined(args)
        assert.isBelow(performance.now() - began, 1000)
      }),
  )

  it.effect("may have arrays of dynamic values", () =>
    Effect.gen(function* () {
      const types = parseAbiParameters("string[], (bytes[][2] x, int y)[], string[2][]")
      const bytes: ReadonlyArray<ReadonlyArray<Hex>> = [["0x01", "0x"], []]
      const tuples = [
        { x: bytes, y: -1n },
        { x: [[], ["0xff"]], y: 1n },
      ]
      const values = [["a", "ü"], tuples, [["", "b"]]] as never
      const { args } = yield* decoded(
        "A(string[] a, (bytes[][2] x, int y)[] b, string[2][] c)",
        encodeAbiParameters(types, values),
      )
      assert.deepStrictEqual(JSON.parse(args!), {
        a: ["a", "ü"],
        b: [
          { x: [["0x01", "0x"], []], y: "-1" },
          { x: [[], ["0xff"]], y: "1" },
        ],
        c: [["", "b"]],
      })
      assert.strictEqual(
        eventText("A(string[])", args),
        "A(a: [a, ü], b: [(x: [[0x01, 0x], []], y: -1), (x: [[], [0xff]], y: 1)], c: [[, b]])",
      )
    }),
  )

  it("are shown as the signature where the arguments are absent or no JSON", () => {
    for (const args of [undefined, "", "{", "5", "null"])
      assert.strictEqual(eventText("A(int256)", args), "A(int256)")
  })
})
