import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { textOf, topicCount } from "../../../src/abi/EventAbi.ts"
import { fromVariables } from "../../../src/config/AppConfig.ts"
import { parseEvents } from "../../../src/config/EventsParser.ts"
import { fingerprint } from "../../../src/logs/Filter.ts"
import { directory } from "../../support/directory.ts"

const transfer = "Transfer(address indexed from, address indexed to, uint256 value)"
const transferTopic = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

const devnet = { CHAINS: "devnet", DEVNET_CHAIN_ID: "31337", DEVNET_WS_URL: "ws://127.0.0.1:8545" }

const chainOf = (variables: Record<string, string>) =>
  Effect.map(fromVariables({ ...devnet, ...variables }), ({ chains }) => chains[0]!)

const problems = (variables: Record<string, string>) =>
  Effect.map(Effect.flip(chainOf(variables)), (error) => error.problems)

/** Writes an ABI file. */
const abiFile = (content: unknown) =>
  Effect.map(directory, (directory) => {
    const path = join(directory, "abi.json")
    writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content))
    return path
  })

const inputs = [
  {
    name: "order",
    type: "tuple[]",
    indexed: true,
    components: [{ name: "id", type: "uint" }, { type: "bytes" }],
  },
  { name: "amount", type: "int[2]" },
]

describe("EVENTS", () => {
  it.effect("accepts signatures as Solidity has them, with any spaces", () =>
    Effect.gen(function* () {
      const text = `event ${transfer};\n  Filled( (uint id, bytes)[]  indexed order ,int[2] amount ) ; Paused();`
      const { events } = yield* parseEvents(text)
      assert.deepStrictEqual(
        events.map((event) => [event.signature, topicCount(event), textOf(event)]),
        [
          ["Transfer(address,address,uint256)", 3, transfer],
          [
            "Filled((uint256,bytes)[],int256[2])",
            2,
            "Filled((uint256 id, bytes)[] indexed order, int256[2] amount)",
          ],
          ["Paused()", 1, "Paused()"],
        ],
      )
      assert.strictEqual(events[0]!.topic0, transferTopic)
    }),
  )

  it.effect("reads the events of an ABI file, whether a compiler wrote more around it or not", () =>
    Effect.gen(function* () {
      const abi = [
        { type: "constructor", inputs: [] },
        { type: "event", name: "Filled", inputs, anonymous: false },
      ]
      const { events: signed } = yield* parseEvents(
        "Filled((uint256 id, bytes)[] indexed order, int256[2] amount)",
      )
      for (const content of [abi, { contractName: "Shop", abi }]) {
        const { events } = yield* parseEvents(yield* abiFile(content))
        assert.deepStrictEqual(events.map(textOf), signed.map(textOf))
        assert.strictEqual(events[0]!.topic0, signed[0]!.topic0)
      }
    }).pipe(Effect.scoped),
  )

  it.effect("become the topics of a chain's filter, once each", () =>
    Effect.gen(function* () {
      const variants = `${transfer};Transfer(address indexed from, address indexed to, uint256 indexed id)`
      const { filter, events } = yield* chainOf({
        EVENTS: "Paused()",
        DEVNET_EVENTS: `${variants};${transfer}`,
      })
      assert.deepStrictEqual(filter.topics, [[transferTopic]])
      assert.lengthOf(events!.events, 2)
      assert.isUndefined((yield* chainOf({})).events)
    }),
  )

  it.effect("have names that are no part of the filter, but of the digest", () =>
    Effect.gen(function* () {
      const one = yield* chainOf({ EVENTS: "A(uint256 a);B()" })
      const reordered = yield* chainOf({ EVENTS: "B();A(uint a)" })
      const renamed = yield* chainOf({ EVENTS: "A(uint256 b);B()" })
      assert.strictEqual(fingerprint(one.filter), fingerprint(renamed.filter))
      assert.strictEqual(one.events!.digest, reordered.events!.digest)
      assert.notStrictEqual(one.events!.digest, renamed.events!.digest)
    }),
  )

  const wrong: ReadonlyArray<readonly [title: string, value: string, problem: RegExp]> = [
    ["an unknown type", "A(foo x)", /^EVENTS: "A\(foo x\)" is no event: Unknown type\. Type "foo"/],
    ["a signature without its end", "A(uint256 a; B()", /^EVENTS: "A\(uint256 a" is no event/],
    [
      "a word that Solidity reserves",
      "A(uint256 address)",
      /^EVENTS: .* is no event: .*protected Solidity keyword/,
    ],
    ["no event", ";", /^EVENTS: expected an event such as Transfer\(/],
    ["an anonymous event", "A(uint256 a) anonymous", /^EVENTS: A\(uint256 a\) is anonymous/],
    [
      "a fourth indexed parameter",
      "A(int indexed, int indexed, int indexed, int indexed)",
      /more than 3 indexed/,
    ],
    [
      "an array without elements",
      "A(uint256[0] a)",
      /^EVENTS: A\(uint256\[0\] a\) has the type uint256\[0\]/,
    ],
    [
      "other names of one event",
      "A(int a);A(int b)",
      /^EVENTS: A\(int256 a\) and A\(int256 b\) cannot be distinguished/,
    ],
    [
      "variants with equally many topics",
      "A(int indexed a, int b);A(int a, int indexed b)",
      /^EVENTS: A\(int256 indexed a, int256 b\) and A\(int256 a, int256 indexed b\) cannot be distinguished/,
    ],
    [
      "a missing file",
      "./missing.json",
      /^EVENTS: expected a readable file, got ENOENT for \.\/missing\.json$/,
    ],
    ["a directory", "/tmp", /^EVENTS: expected a readable file, got EISDIR for \/tmp$/],
  ]
  for (const [title, value, problem] of wrong)
    it.effect(`are refused: ${title}`, () =>
      Effect.gen(function* () {
        const [first, ...more] = yield* problems({ EVENTS: value })
        assert.match(first!, problem)
        assert.deepStrictEqual(more, [])
      }),
    )

  const files: ReadonlyArray<readonly [title: string, content: unknown, problem: RegExp]> = [
    ["no JSON", "Transfer", /is no ABI in JSON/],
    ["JSON that is no ABI", { events: [] }, /is no ABI in JSON/],
    ["an ABI without events", [{ type: "function", name: "a", inputs: [] }], /has no events$/],
    [
      "an event without a name",
      [{ type: "event", inputs: [] }],
      /^DEVNET_EVENTS: item 0 of .* is no event of an ABI$/,
    ],
    ["an anonymous event", [{ type: "event", name: "A", inputs: [], anonymous: true }], /A\(\) is anonymous/],
    [
      "a tuple without components",
      [{ type: "event", name: "A", inputs: [{ type: "tuple" }] }],
      /the type tuple/,
    ],
    [
      "a fixed-point number",
      [{ type: "event", name: "A", inputs: [{ type: "fixed128x18" }] }],
      /type fixed128x18/,
    ],
    ["a name with a blank", [{ type: "event", name: "A B", inputs: [] }], /has no valid name/],
  ]
  for (const [title, content, problem] of files)
    it.effect(`are refused in a file: ${title}`, () =>
      Effect.gen(function* () {
        const [first, ...more] = yield* problems({ DEVNET_EVENTS: yield* abiFile(content) })
        assert.match(first!, problem)
        assert.deepStrictEqual(more, [])
      }).pipe(Effect.scoped),
    )

  it.effect("are refused beside TOPICS [G-219]", () =>
    Effect.gen(function* () {
      const both = yield* problems({ TOPICS: transferTopic, DEVNET_EVENTS: transfer })
      assert.deepStrictEqual(both, ["DEVNET_EVENTS: set either EVENTS or TOPICS: events are topics"])
    }),
  )
})
