import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { readFileSync } from "node:fs"
import { classify } from "../../src/endpoint/Refusal.ts"

interface Recorded {
  readonly provider: string
  readonly http?: number
  readonly code?: number
  readonly message: string
  readonly data?: unknown
  readonly action: string
}

const { errors } = JSON.parse(
  readFileSync(new URL("../fixtures/provider-errors.json", import.meta.url), "utf8"),
) as { readonly errors: ReadonlyArray<Recorded> }

/** What the recording calls it → what we do. */
const actions: Readonly<Record<string, string>> = {
  split: "split",
  split_hint: "split",
  addr: "fewer addresses",
  wait_head: "wait for head",
  backoff: "back off",
  other: "other endpoint",
  cfg: "operator",
}

describe("classify", () => {
  it("has all recorded refusals", () => assert.strictEqual(errors.length, 55))

  for (const { provider, http, code, message, data, action } of errors) {
    it(`${provider}: ${message.slice(0, 90)}`, () => {
      const refusal = classify({ code: code ?? 0, message, data, ...(http && { status: http }) })
      // Refused whatever the range, so another endpoint is not the first thing to try.
      const expected = message.startsWith("Please specify an address") ? "use receipts" : actions[action]
      assert.strictEqual(refusal.action, expected)
      if (action === "split_hint" && refusal.action === "split") {
        assert.isDefined(refusal.blocks ?? refusal.through, "the hint was found")
      }
    })
  }

  const hint = (message: string, data?: unknown) => classify({ code: -32602, message, data })

  it("reads hexadecimal, decimal and abbreviated hints", () => {
    assert.deepStrictEqual(hint("Try with this block range [0xBDE5F8, 0x102DBCC]."), {
      action: "split",
      through: 0x102dbcc,
    })
    assert.deepStrictEqual(hint("query exceeds max results 20000, retry with the range 100-149"), {
      action: "split",
      through: 149,
    })
    assert.deepStrictEqual(hint("eth_getLogs range is too large, max is 1k blocks"), {
      action: "split",
      blocks: 1000,
    })
    assert.deepStrictEqual(hint("eth_getLogs is limited to 0 - 50 blocks range"), {
      action: "split",
      blocks: 50,
    })
  })

  it("does not believe an inverted hint", () =>
    assert.deepStrictEqual(hint("this block range should work: [0x20, 0x10]"), { action: "split" }))

  it("knows how long to wait", () => {
    assert.deepStrictEqual(hint("RPS limit", { try_again_in: "107.5ms" }), {
      action: "back off",
      retryAfter: 107.5,
    })
    assert.deepStrictEqual(hint("RPS limit", { try_again_in: "1.2s" }), {
      action: "back off",
      retryAfter: 1200,
    })
  })

  it("goes by the HTTP status where the text says nothing", () => {
    assert.deepStrictEqual(classify({ code: 0, message: "", status: 429 }), { action: "back off" })
    assert.deepStrictEqual(classify({ code: 0, message: "", status: 401 }), { action: "operator" })
    assert.deepStrictEqual(classify({ code: 0, message: "", status: 413 }), { action: "split" })
  })

  // The words of zksync-era's Web3 API for a block that it does not have.
  it("waits for a block that does not exist yet", () =>
    assert.deepStrictEqual(classify({ code: -32602, message: "Block with such an ID doesn't exist yet" }), {
      action: "wait for head",
    }))

  const known = new Set([
    "fewer addresses",
    "wait for head",
    "back off",
    "split",
    "use receipts",
    "unsupported",
    "other endpoint",
    "operator",
  ])
  const words = errors.flatMap(({ message }) => message.split(" "))
  const Text = Schema.Array(
    Schema.Union([Schema.Literals(words as [string, ...Array<string>]), Schema.String]),
  )

  it.prop(
    "never throws, and its hints are sane, whatever the text",
    { code: Schema.Int, text: Text, data: Schema.Unknown },
    ({ code, text, data }) => {
      const refusal = classify({ code, message: text.join(" "), data })
      assert.isTrue(known.has(refusal.action))
      if (refusal.action === "split") {
        for (const hint of [refusal.blocks, refusal.through]) {
          if (hint !== undefined) assert.isTrue(Number.isSafeInteger(hint) && hint >= 0)
        }
        if (refusal.blocks !== undefined) assert.isAtLeast(refusal.blocks, 1)
      }
      if (refusal.action === "back off" && refusal.retryAfter !== undefined)
        assert.isAtMost(refusal.retryAfter, 60_000)
    },
    { arbitrary: { runs: 500 } },
  )

  it("does not hang on long texts", () => {
    const before = performance.now()
    for (const part of ["limited to 1", "range [0x", "9".repeat(50), "max block range ", "try_again_in"]) {
      classify({ code: -32602, message: part.repeat(200_000) })
    }
    assert.isBelow(performance.now() - before, 1000)
  })
})
