import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { decode, encode } from "../../../src/endpoint/JsonRpc.ts"
import { find, logsIn, nodes, read } from "../../support/frames.ts"

const one = (value: unknown) => decode(JSON.stringify(value))

describe("JSON-RPC frames", () => {
  it("encodes requests as in EIP-1474", () => {
    assert.deepStrictEqual(JSON.parse(encode(7, [{ method: "eth_chainId", params: [] }])), {
      jsonrpc: "2.0",
      id: 7,
      method: "eth_chainId",
      params: [],
    })
    const batch = JSON.parse(
      encode(7, [
        { method: "a", params: [] },
        { method: "b", params: [1] },
      ]),
    )
    assert.deepStrictEqual(
      batch.map(({ id, method }: { id: number; method: string }) => [id, method]),
      [
        [7, "a"],
        [8, "b"],
      ],
    )
  })

  it.each([
    ["a result", { jsonrpc: "2.0", id: 1, result: "0x1" }, { _tag: "Result", id: 1, result: "0x1" }],
    ["a result of null", { id: 1, result: null }, { _tag: "Result", id: 1, result: null }],
    ["a result beside a null error", { id: 1, error: null, result: 5 }, { _tag: "Result", id: 1, result: 5 }],
    [
      "an error",
      { id: 2, error: { code: -32000, message: "no", data: { a: 1 } } },
      { _tag: "Failure", id: 2, failure: { code: -32000, message: "no", data: { a: 1 } } },
    ],
    [
      "an error without an id",
      { id: null, error: { code: 1, message: "no" } },
      { _tag: "Failure", id: undefined, failure: { code: 1, message: "no" } },
    ],
    ["an id as a string of digits", { id: "7", result: "0x1" }, { _tag: "Result", id: 7, result: "0x1" }],
    [
      "an error with an id as a string of digits",
      { id: "7", error: { code: 1, message: "no" } },
      { _tag: "Failure", id: 7, failure: { code: 1, message: "no" } },
    ],
    [
      "an error with an unknown id",
      { id: "0x7", error: { code: 1, message: "no" } },
      { _tag: "Failure", id: undefined, failure: { code: 1, message: "no" } },
    ],
    [
      "an error that is a text",
      { id: 2, error: "no" },
      { _tag: "Failure", id: 2, failure: { code: 0, message: "no" } },
    ],
    [
      "an error with a code in quotes",
      { id: 2, error: { code: "429", message: 5 } },
      { _tag: "Failure", id: 2, failure: { code: 429, message: "" } },
    ],
    [
      "a notification, whatever the order of its keys",
      { params: { result: 1, subscription: "0x1" }, method: "eth_subscription" },
      { _tag: "Notification", subscription: "0x1", result: 1 },
    ],
    ["another notification", { method: "net_hello", params: [] }, { _tag: "Other" }],
    [
      "a response without result and error",
      { id: 1 },
      { _tag: "Malformed", detail: "response without result and error" },
    ],
    ["a number", 5, { _tag: "Malformed", detail: "message is not an object" }],
    ["null", null, { _tag: "Malformed", detail: "message is not an object" }],
    ["an empty object", {}, { _tag: "Malformed", detail: "neither a response nor a notification" }],
    [
      "a notification without a subscription",
      { method: "eth_subscription", params: {} },
      { _tag: "Malformed", detail: "neither a response nor a notification" },
    ],
  ])("decodes %s", (_, frame, message) => assert.deepStrictEqual(one(frame) as unknown, [message]))

  it("decodes a batch as several messages", () =>
    assert.deepStrictEqual(
      one([{ id: 1, result: 1 }, { id: 2, error: { code: 0, message: "" } }, 7]).map(({ _tag }) => _tag),
      ["Result", "Failure", "Malformed"],
    ))

  it.each(["", "{", "hello", "\u0000", `${"[".repeat(100_000)}`])("rejects text that is not JSON", (text) =>
    assert.strictEqual(decode(text)[0]?._tag, "Malformed"),
  )

  it.each([
    ["a code beyond the number range", '{"id":1,"error":{"code":1e400,"message":"no"}}', 0, "no"],
    ["a code that is an object", '{"id":1,"error":{"code":{"valueOf":1,"toString":1}}}', 0, ""],
    ["objects without a text", '{"id":1,"error":[{"toString":1,"valueOf":1}]}', 0, ""],
    ["arrays in arrays", `{"id":1,"error":${"[".repeat(200_000)}${"]".repeat(200_000)}}`, 0, ""],
    ["true", '{"id":1,"error":true}', 0, "true"],
  ])("decodes an error with %s", (_, frame, code, message) =>
    assert.deepStrictEqual<unknown>(decode(frame), [{ _tag: "Failure", id: 1, failure: { code, message } }]),
  )

  const megabytes = 4 * 1024 * 1024
  it.each([
    ["nested arrays", `${"[".repeat(megabytes / 2)}${"]".repeat(megabytes / 2)}`],
    ["nested objects", `${'{"a":'.repeat(megabytes / 6)}1${"}".repeat(megabytes / 6)}`],
    ["empty objects", `[${"{},".repeat(megabytes / 3)}{}]`],
    ["numbers", `[${"1,".repeat(megabytes / 2)}1]`],
    ["keys", `{${Array.from({ length: megabytes / 8 }, (_, i) => `"${i}":1`).join(",")}}`],
  ])("rejects megabytes of %s without parsing them", (_, text) =>
    assert.match((decode(text)[0] as { detail: string }).detail, /nearly all of them brackets and commas/),
  )

  it("parses megabytes of logs, transactions and text", () => {
    const log = logsIn(read("anvil", "getLogs"))[0]
    const bare = { ...log, topics: [], data: "0x" }
    for (const item of [log, bare, `0x${"ab".repeat(32)}`]) {
      const result = Array.from({ length: Math.ceil(megabytes / JSON.stringify(item).length) }, () => item)
      assert.deepStrictEqual<unknown>(one({ id: 1, result }), [{ _tag: "Result", id: 1, result }])
    }
    const message = "no ".repeat(megabytes / 3)
    assert.strictEqual(one({ id: 1, error: { code: 1, message } })[0]?._tag, "Failure")
  })

  it.each(nodes)("decodes every recorded message of %s", (node) => {
    const recorded = find(read(node, "notifications"), (object) => object["method"] === "eth_subscription")
    const answers = find(
      read(node, "calls"),
      (object) => "jsonrpc" in object && ("result" in object || "error" in object),
    )
    assert.isNotEmpty(recorded)
    for (const frame of recorded) assert.strictEqual(one(frame)[0]?._tag, "Notification")
    for (const frame of answers) assert.notStrictEqual(one(frame)[0]?._tag, "Malformed")
  })

  it.prop("never throws", { text: Schema.String, value: Schema.Unknown }, ({ text, value }) => {
    decode(text)
    decode(JSON.stringify(value) ?? "")
  })
})
