import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { readFileSync } from "node:fs"
import { normalizeRpcError } from "../../../src/endpoint/RpcError.ts"
import type { RpcFailure } from "../../../src/endpoint/RpcError.ts"

interface Recorded {
  readonly provider: string
  readonly http?: number
  readonly code?: number
  readonly message: string
  readonly data?: unknown
  readonly action: string
}

const fixture = <A>(name: string) =>
  (
    JSON.parse(readFileSync(new URL(`../../fixtures/${name}.json`, import.meta.url), "utf8")) as {
      readonly errors: ReadonlyArray<A>
    }
  ).errors

const errors = fixture<Recorded>("provider-errors")

/** Recorded errors of development nodes. */
const answered = fixture<{
  readonly client: string
  readonly request: readonly [method: string, params: ReadonlyArray<unknown>]
  readonly error: RpcFailure
  readonly action: string
}>("client-errors")

/** The action in the recording → the expected kind. */
const actions: Readonly<Record<string, string>> = {
  split: "RangeTooLarge",
  split_hint: "RangeTooLarge",
  addr: "TooManyAddresses",
  wait_head: "BlockNotFound",
  backoff: "RateLimited",
  other: "Unavailable",
  cfg: "Unauthorized",
}

describe("provider errors", () => {
  it("cover all recorded refusals", () => assert.strictEqual(errors.length, 55))

  for (const { provider, http, code, message, data, action } of errors) {
    it(`classify ${provider}: ${message.slice(0, 90)}`, () => {
      const refusal = normalizeRpcError({ code: code ?? 0, message, data, ...(http && { status: http }) })
      // Refused for any range, so the next step is another method, not another endpoint.
      const expected = message.startsWith("Please specify an address") ? "AddressRequired" : actions[action]
      assert.strictEqual(refusal.kind, expected)
      if (action === "split_hint" && refusal.kind === "RangeTooLarge") {
        assert.isDefined(refusal.blocks ?? refusal.through, "the hint was found")
      }
    })
  }

  for (const { client, request, error, action } of answered) {
    it(`classify ${client}, ${request[0]}: ${error.message}`, () =>
      assert.strictEqual(normalizeRpcError(error).kind, action))
  }

  it("do not mistake an unknown API key for a missing block", () =>
    assert.strictEqual(normalizeRpcError({ code: -32000, message: "API key not found" }).kind, "Unavailable"))

  const hint = (message: string, data?: unknown) => normalizeRpcError({ code: -32602, message, data })

  it("yield hexadecimal, decimal and abbreviated range hints", () => {
    assert.deepStrictEqual(hint("Try with this block range [0xBDE5F8, 0x102DBCC]."), {
      kind: "RangeTooLarge",
      through: 0x102dbcc,
    })
    assert.deepStrictEqual(hint("query exceeds max results 20000, retry with the range 100-149"), {
      kind: "RangeTooLarge",
      through: 149,
    })
    assert.deepStrictEqual(hint("eth_getLogs range is too large, max is 1k blocks"), {
      kind: "RangeTooLarge",
      blocks: 1000,
    })
    assert.deepStrictEqual(hint("eth_getLogs is limited to 0 - 50 blocks range"), {
      kind: "RangeTooLarge",
      blocks: 50,
    })
  })

  it("yield no hint from an inverted range", () =>
    assert.deepStrictEqual(hint("this block range should work: [0x20, 0x10]"), { kind: "RangeTooLarge" }))

  it("yield the delay of Chainstack's rate limits", () => {
    assert.deepStrictEqual(hint("RPS limit", { try_again_in: "107.5ms" }), {
      kind: "RateLimited",
      retryAfter: 107.5,
    })
    assert.deepStrictEqual(hint("RPS limit", { try_again_in: "1.2s" }), {
      kind: "RateLimited",
      retryAfter: 1200,
    })
  })

  it("are classified by HTTP status if the text is inconclusive", () => {
    assert.deepStrictEqual(normalizeRpcError({ code: 0, message: "", status: 429 }), { kind: "RateLimited" })
    assert.deepStrictEqual(normalizeRpcError({ code: 0, message: "", status: 401 }), { kind: "Unauthorized" })
    assert.deepStrictEqual(normalizeRpcError({ code: 0, message: "", status: 413 }), {
      kind: "RangeTooLarge",
    })
  })

  // The error of zksync-era's Web3 API for a block that it does not have.
  it("report a block that does not exist yet as missing", () =>
    assert.deepStrictEqual(
      normalizeRpcError({ code: -32602, message: "Block with such an ID doesn't exist yet" }),
      {
        kind: "BlockNotFound",
      },
    ))

  const means = (action: string, words: ReadonlyArray<readonly [string, number, string, unknown?]>) => {
    for (const [provider, code, message, data] of words) {
      it(`classify ${provider}: "${message}" (${code}) as ${action}`, () =>
        assert.strictEqual(normalizeRpcError({ code, message, data }).kind, action))
    }
  }

  means("BlockNotFound", [
    ["Kaia", -32000, "the header does not exist (hash 0x5c1f…)"],
    ["Kaia", -32000, "the block does not exist (block number: 17)"],
    ["Avalanche", -32000, "cannot query unfinalized data"],
    ["Avalanche", -32000, "requested block 120 after last accepted block 119"],
    ["Sei", -32000, "could not find block for height 826401374464"],
    ["Sei", -32000, "block not found for hash 0x5c1f"],
    ["Sei", -32000, "requested height 120 is not yet available; safe latest is 119"],
    ["Erigon", -32000, "block 05cc1de71b1ca86a587c368755deb2258c0dbf914db0e30a0c6ffd2055aeb12f not found"],
    ["Erigon", -32000, "block 12317165 not found"],
    ["Erigon", -32000, 'block "0x10" not available (head block: 21459236)'],
    ["geth", -32000, "header for hash not found"],
    ["geth", -32000, "header not found"],
    ["geth", -32000, "unknown block"],
    ["geth", -32602, "block range extends beyond current head block"],
    ["reth", -32001, "block not found: hash 0x5c1f"],
    ["reth", -32000, "unknown block or tx index"],
    ["Nethermind", -32001, "Block 120 could not be found"],
    ["Nethermind", -32001, "Cannot find header 0x5c1f"],
    ["Nethermind", -32001, "resource not found"],
    ["Nethermind", -32000, "Receipt not available for block 120"],
    ["Besu", -32000, "Block not found"],
    ["Besu", -39001, "Unknown block"],
    ["EIP-1474", -32001, "Resource not found"],
    ["Hedera", -32001, "Requested resource not found. Block with hash 0x5c1f"],
    ["Filecoin", -32000, "requested a future epoch (beyond 'latest'): block is in the future"],
    ["viem", -32001, "block with number 120 was not found"],
    ["viem", -32001, "block with hash 0x5c1f could not be found"],
    ["Hardhat", -32000, "Received invalid block tag 120. Latest block number is 119, block not found"],
    ["Moonbeam", -32603, "block number 120 is greater than latest block"],
    ["zksync-era", -32602, "Block with such an ID doesn't exist yet"],
    ["another", -32000, "requested block 0x10 is not available"],
  ])

  means("RateLimited", [
    [
      "Infura",
      -32005,
      "project ID request rate exceeded",
      { rate: { allowed_rps: 1, backoff_seconds: 30, current_rps: 1.4 }, see: "https://infura.io/dashboard" },
    ],
    ["Infura", -32005, "daily request count exceeded, request rate limited"],
    ["Infura", -32005, "daily request count exceeded"],
    ["EIP-1474", -32005, "Limit exceeded"],
    ["EIP-1474", -32005, "limit exceeded"],
    ["EIP-1474", -32005, "limit exceeded", "too many"],
    ["any", -32000, "request rate exceeded"],
    ["Alchemy", 429, "Your app has exceeded its compute units per second capacity"],
    ["Alchemy", -32000, "Your app has exceeded its throughput limit"],
    ["any", -32000, "capacity exceeded"],
    ["Tatum", -32000, "You have exceeded the quota usage"],
    ["Blast", -32097, "Reached the quota limit"],
    ["Ankr", -32029, "too many"],
    ["Ankr", -32000, "call rate limit exhausted, retry in 10s"],
    ["OnFinality", -32029, "Too Many Requests"],
    ["BlockPI", -33000, "limit reached"],
    ["any", -32000, "too many connections"],
    ["any", -32000, "too many concurrent requests"],
    ["any", -32000, "please slow down"],
    ["any", -32000, "request throttled"],
    ["any", -32603, "server is busy"],
    ["QuickNode", -32007, "50/second request limit reached - reduce calls per second or upgrade"],
    ["Cloudflare", -32000, "Rate-limited"],
  ])

  means("RangeTooLarge", [
    ["Infura", -32005, "query returned more than 10000 results"],
    ["Infura", -32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."],
    ["Arbitrum", -32000, "logs matched by query exceeds limit of 10000"],
    ["geth", -32000, "batch too large"],
    ["another", -32005, "Block range limit exceeded."],
    ["another", -32000, "query timeout exceeded"],
    ["another", -32000, "max block range exceeded"],
    ["another", -32000, "cannot query a block range that is not available here"],
  ])

  means("MethodNotSupported", [
    ["geth", -32601, "the method eth_getBlockReceipts does not exist/is not available"],
    ["another", -32000, "method does not exist"],
    ["another", -32000, "the method eth_getBlockReceipts is not available"],
    ["another", -32601, "block not found"],
  ])

  means("Unavailable", [
    ["geth", -32000, "missing trie node 5c1f (path ) state 0x5c1f is not available, not found"],
    ["another", -32000, "it does not exist"],
    ["another", -32000, "block 17 is not available without an archive node"],
    ["another", -32000, "internal error"],
  ])

  it("yield the delay of rate limits of Infura, of Ankr and of Retry-After", () => {
    const message = "project ID request rate exceeded"
    const data = { rate: { allowed_rps: 1, backoff_seconds: 30 } }
    assert.deepStrictEqual(normalizeRpcError({ code: -32005, message, data }), {
      kind: "RateLimited",
      retryAfter: 30_000,
    })
    assert.deepStrictEqual(
      normalizeRpcError({ code: 0, message: "call rate limit exhausted, retry in 10s" }),
      {
        kind: "RateLimited",
        retryAfter: 10_000,
      },
    )
    assert.deepStrictEqual(normalizeRpcError({ code: 0, message: "", status: 503, retryAfter: 2000 }), {
      kind: "RateLimited",
      retryAfter: 2000,
    })
  })

  const known = new Set([
    "TooManyAddresses",
    "BlockNotFound",
    "RateLimited",
    "RangeTooLarge",
    "AddressRequired",
    "MethodNotSupported",
    "Unavailable",
    "Unauthorized",
  ])
  const words = errors.flatMap(({ message }) => message.split(" "))
  const Text = Schema.Array(
    Schema.Union([Schema.Literals(words as [string, ...Array<string>]), Schema.String]),
  )

  it.prop(
    "never throw, and yield only valid hints, for any text",
    { code: Schema.Int, text: Text, data: Schema.Unknown },
    ({ code, text, data }) => {
      const refusal = normalizeRpcError({ code, message: text.join(" "), data })
      assert.isTrue(known.has(refusal.kind))
      if (refusal.kind === "RangeTooLarge") {
        for (const hint of [refusal.blocks, refusal.through]) {
          if (hint !== undefined) assert.isTrue(Number.isSafeInteger(hint) && hint >= 0)
        }
        if (refusal.blocks !== undefined) assert.isAtLeast(refusal.blocks, 1)
      }
      if (refusal.kind === "RateLimited" && refusal.retryAfter !== undefined)
        assert.isAtMost(refusal.retryAfter, 60_000)
    },
    { arbitrary: { runs: 500 } },
  )

  it("are classified in bounded time for long texts", () => {
    const before = performance.now()
    for (const part of ["limited to 1", "range [0x", "9".repeat(50), "max block range ", "try_again_in"]) {
      normalizeRpcError({ code: -32602, message: part.repeat(200_000) })
    }
    assert.isBelow(performance.now() - before, 1000)
  })
})
