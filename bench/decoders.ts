/**
 * The libraries that could decode events, on the three commonest ones: what it takes to load each, and to decode a log.
 * `node bench/decoders.ts` runs each in a process of its own.
 */
import { execFileSync } from "node:child_process"
import type { AbiEvent } from "viem"
import type { Hex } from "../src/Domain.ts"

const repeats = 100_000

const word = (digits: string) => digits.padStart(64, "0")
const topics: ReadonlyArray<Hex> = [
  `0x${word("28c6c06298d514db089934071355e5743bf21d60")}`,
  `0x${word("a0b86991c6218b36c1d19d4a2e9eb0ce3606eb48")}`,
]
const data = {
  Transfer: `0x${word("5f5e100")}`,
  Approval: `0x${"f".repeat(64)}`,
  Swap: `0x${["1e1dc0", "1bc16d674ec80000", "5f3e4b2c1a0987654", "1234567890", "fcf2c"].map(word).join("")}`,
} as const satisfies Record<string, Hex>

const signatures: Record<keyof typeof data, string> = {
  Transfer: "Transfer(address indexed from, address indexed to, uint256 value)",
  Approval: "Approval(address indexed owner, address indexed spender, uint256 value)",
  Swap: "Swap(address indexed sender, address indexed recipient, int256 amount0, int256 amount1, uint160 sqrtPriceX96, uint128 liquidity, int24 tick)",
}

type Decode = (topics: ReadonlyArray<Hex>, data: Hex) => unknown

/** Loads a library. The result prepares the decoding of one event. */
const loaders: Record<string, () => Promise<(signature: string) => Promise<Decode>>> = {
  viem: async () => {
    const { decodeEventLog } = await import("viem/utils")
    return async (signature) => {
      const event = await eventOf(signature)
      return (topics, data) => decodeEventLog({ abi: [event], topics: topics as [Hex, ...Array<Hex>], data })
    }
  },
  ox: async () => {
    const AbiEvent = await import("ox/AbiEvent")
    return async (signature) => {
      const event = AbiEvent.from(await eventOf(signature))
      return (topics, data) => AbiEvent.decode(event, { topics: topics as [Hex, ...Array<Hex>], data })
    }
  },
  "ours, with ox": async () => {
    const { make } = await import("../src/abi/Decoder.ts")
    return async (signature) => {
      const [{ parseEvents }, { Effect }] = await Promise.all([
        import("../src/config/EventsParser.ts"),
        import("effect"),
      ])
      const decode = make(await Effect.runPromise(parseEvents(signature)))
      const log = { index: 0, txIndex: 0, txHash: "0x", contract: "0x" } as const
      const block = { number: 1, hash: "0x", parentHash: "0x", timestamp: 1 } as const
      return (topics, data) => decode({ ...block, logs: [{ ...log, topics, data }] }).logs[0]!.args!
    }
  },
}

const eventOf = async (signature: string): Promise<AbiEvent> =>
  (await import("abitype")).parseAbiItem(`event ${signature}`) as unknown as AbiEvent

const measure = async (name: string) => {
  const [began, before] = [performance.now(), process.memoryUsage().rss]
  const prepare = await loaders[name]!()
  const millis = performance.now() - began
  const megabytes = (process.memoryUsage().rss - before) / 1e6
  const { toEventSelector } = await import("viem/utils")
  const times: Array<string> = []
  for (const [event, signature] of Object.entries(signatures)) {
    const decode = await prepare(signature)
    const all = [toEventSelector(`event ${signature}`), ...topics]
    const bytes = data[event as keyof typeof data]
    for (let i = 0; i < repeats / 5; i++) decode(all, bytes)
    const from = performance.now()
    for (let i = 0; i < repeats; i++) decode(all, bytes)
    times.push(`${event} ${(((performance.now() - from) * 1000) / repeats).toFixed(1)} µs`)
  }
  console.log(`${name}: loads in ${millis.toFixed(0)} ms, ${megabytes.toFixed(0)} MB; ${times.join(", ")}`)
}

const [name] = process.argv.slice(2)
if (name === undefined) {
  for (const one of Object.keys(loaders))
    execFileSync(process.execPath, [import.meta.filename, one], { stdio: "inherit" })
} else await measure(name)
