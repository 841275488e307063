/**
 * Fuzzes every decoder of external input with almost valid inputs: mutated frames, logs, headers and settings. The result
 * is a typed error, or a value that keeps every promise of its type; nothing is thrown.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted, Stream } from "effect"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Entry } from "../../src/Domain.ts"
import { ConfigProblems, fromVariables } from "../../src/config/AppConfig.ts"
import { rejected } from "../../src/endpoint/RpcClient.ts"
import type { PlacedLog } from "../../src/endpoint/Decode.ts"
import { headerOf, logsOf } from "../../src/endpoint/Decode.ts"
import { Malformed } from "../../src/endpoint/EndpointError.ts"
import { decode } from "../../src/endpoint/JsonRpc.ts"
import { withDotEnv } from "../../src/config/Environment.ts"
import { makeRedactor } from "../../src/Redactor.ts"
import { lineOf } from "../../src/cli/tail.ts"
import { Replay } from "../../src/store/Replay.ts"
import { StoreError } from "../../src/store/StoreError.ts"
import { openSqlite } from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { find, headersIn, logsIn, nodes, read } from "../support/frames.ts"
import { Dice, fuzz, inputs, mutated, seed } from "../support/mutate.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import * as Service from "../support/Service.ts"

const recordings = ["notifications", "calls", "getLogs", "block", "subscribe"] as const

const recorded = <A>(of: (value: unknown) => ReadonlyArray<A>): ReadonlyArray<A> =>
  nodes.flatMap((node) => recordings.flatMap((file) => of(read(node, file))))

const texts = (values: ReadonlyArray<unknown>) => values.map((value) => JSON.stringify(value))

const frames = texts(
  recorded((value) =>
    find(value, (object) => "jsonrpc" in object && !("params" in object && "id" in object)),
  ),
)

/** The result of `JSON.parse`; `undefined` if the text is not JSON. */
const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const redact = makeRedactor({ urls: [], words: [] })

describe("the frame decoder", () => {
  it("decodes every recording exactly", () => {
    assert.isAbove(frames.length, 100)
    for (const frame of frames) {
      const { id, result, error, params } = JSON.parse(frame)
      const [message, ...others] = decode(frame)
      assert.isEmpty(others)
      if (error) assert.deepInclude(message, { _tag: "Failure", id })
      else if (params) assert.deepEqual<unknown>(message, { _tag: "Notification", ...params })
      else assert.deepEqual<unknown>(message, { _tag: "Result", id, result })
    }
  })

  it("decodes any other input to messages or `Malformed`", () =>
    fuzz(
      (dice) => mutated(frames, dice),
      (frame) => {
        const value = parsed(frame)
        const messages = decode(frame)
        assert.strictEqual(messages.length, Array.isArray(value) ? value.length : 1)
        if (value === undefined) assert.strictEqual(messages[0]!._tag, "Malformed")
        for (const message of messages) {
          switch (message._tag) {
            case "Result":
              assert.isNumber(message.id)
              break
            case "Failure": {
              const { id, failure } = message
              assert.isTrue(id === undefined || typeof id === "number")
              assert.isTrue(Number.isFinite(failure.code) && typeof failure.message === "string")
              const answer = rejected("fuzz", "eth_getLogs", failure, { redact, rateLimiter: undefined })
              assert.isTrue(answer._tag === "Rejected" && answer.error.message.length < 400)
              break
            }
            case "Notification":
              assert.isString(message.subscription)
              break
            case "Malformed":
              assert.isBelow(message.detail.length, 100)
              break
            case "Other":
          }
        }
      },
    ))
})

const lowerHex = (text: string, digits: number) => new RegExp(`^0x[0-9a-f]{${digits}}$`).test(text)

/** Whether a decoded number equals the node's text, parsed independently. */
const same = (raw: unknown, value: number) =>
  (typeof raw === "string" || typeof raw === "number") &&
  Number.isSafeInteger(value) &&
  BigInt(raw) === BigInt(value)

const sameText = (raw: unknown, value: string, bytes: number) =>
  lowerHex(value, bytes * 2) && typeof raw === "string" && raw.toLowerCase() === value

/** Whether a decoded log equals the node's JSON, field by field. */
const isSame = (wire: Readonly<Record<string, unknown>>, log: PlacedLog) => {
  const topics = (wire["topics"] ?? []) as ReadonlyArray<unknown>
  return (
    same(wire["logIndex"], log.index) &&
    same(wire["transactionIndex"], log.txIndex) &&
    same(wire["blockNumber"], log.blockNumber) &&
    sameText(wire["blockHash"], log.blockHash, 32) &&
    sameText(wire["transactionHash"], log.txHash, 32) &&
    sameText(wire["address"], log.contract, 20) &&
    sameText(wire["data"], log.data, (log.data.length - 2) / 2) &&
    log.topics.length === topics.length &&
    log.topics.every((topic, i) => sameText(topics[i], topic, 32)) &&
    (log.blockTimestamp === undefined || same(wire["blockTimestamp"], log.blockTimestamp)) &&
    log.removed === (wire["removed"] === true)
  )
}

const checkLogs = (input: string) => {
  const raw = parsed(input)
  const logs = logsOf(raw)
  if (logs instanceof Malformed) return
  const wires = (raw ?? []) as ReadonlyArray<Record<string, unknown>>
  assert.isAtMost(logs.length, wires.length)
  for (const log of logs) {
    assert.isTrue(log.index < 2 ** 31 && log.txIndex < 2 ** 31 && log.topics.length <= 4)
    assert.isTrue(wires.some((wire) => isSame(wire, log)))
  }
  for (const wire of wires) assert.isTrue(logs.some((log) => isSame(wire, log)))
}

const checkHeader = (input: string) => {
  const raw = parsed(input) as Record<string, unknown>
  const header = headerOf(raw)
  if (header instanceof Malformed) return
  assert.isTrue(same(raw["number"], header.number) && same(raw["timestamp"], header.timestamp))
  assert.isTrue(sameText(raw["hash"], header.hash, 32) && sameText(raw["parentHash"], header.parentHash, 32))
  assert.isTrue(header.logsBloom === undefined || sameText(raw["logsBloom"], header.logsBloom, 256))
}

describe("the log decoder", () => {
  const logs = recorded(logsIn)
  const answers = texts(Array.from({ length: 60 }, (_, i) => logs.slice(i * 2, i * 2 + (i % 4) + 1)))
  const headers = texts(recorded(headersIn))

  it("decodes every recording exactly", () => {
    for (const answer of answers) {
      assert.notInstanceOf(logsOf(JSON.parse(answer)), Malformed)
      checkLogs(answer)
    }
    for (const header of headers) {
      assert.notInstanceOf(headerOf(JSON.parse(header)), Malformed)
      checkHeader(header)
    }
  })

  it("decodes logs exactly or rejects them", () => fuzz((dice) => mutated(answers, dice), checkLogs))

  it("decodes headers exactly or rejects them", () => fuzz((dice) => mutated(headers, dice), checkHeader))
})

const secret = "s3cretkey0123456789"

/** Valid settings. */
const environments: ReadonlyArray<Record<string, string>> = [
  {},
  { CHAINS: "ethereum,base,31337", CHAIN_31337_WS_URL: `ws://127.0.0.1:8545/${secret}` },
  {
    CHAINS: "devnet",
    DEVNET_CHAIN_ID: "31337",
    DEVNET_WS_URL: `wss://one.example/v2/${secret},wss://two.example/?key=${secret}`,
    DEVNET_RPC_URL: `https://user:${secret}@one.example/`,
    DEVNET_ADDRESSES: `0x${"Ab".repeat(20)},0x${"12".repeat(20)}`,
    DEVNET_TOPICS: `0x${"cd".repeat(32)}|0x${"ef".repeat(32)},,0x${"01".repeat(32)}`,
    DEVNET_START_BLOCK: "17",
    DEVNET_CONFIRMATIONS: "finalized",
    LOGS_BLOOM: "ignore",
    FINALITY_DEPTH: "7",
  },
  { REDIS_URL: `rediss://user:${secret}@redis.example:6380/3`, STREAM_PREFIX: "a:b", STREAM_MAXLEN: "0" },
  { REDIS_HOST: "::1", REDIS_PORT: "6379", REDIS_PASSWORD: secret, REDIS_SENTINEL_MASTER: "main" },
  { REDIS_URL: "redis://a,redis://b:7000", REDIS_CLUSTER: "true", DATABASE_PATH: "x" },
  { STALL_TIMEOUT: "2 minutes", REQUEST_TIMEOUT: "500ms", SHUTDOWN_TIMEOUT: "1.5s", WS_MAX_PAYLOAD: "64MiB" },
  { HTTP_HOST: "0.0.0.0", METRICS_PORT: "0", METRICS_TOKEN: secret, LOG_LEVEL: "debug", LOG_FORMAT: "json" },
  { AUDIT: "off", RPC_RATE: "2.5", CONFIRMATIONS: "3", CHAINS: "arbitrum" },
]

const files = texts(environments).map((json) =>
  Object.entries(JSON.parse(json) as Record<string, string>)
    .map(([name, value]) => `${name}=${value}`)
    .join("\n"),
)

/** Odd values for a variable or a line of a file. */
const oddities = [
  "",
  " ",
  ",",
  "%",
  "%zz",
  "@",
  "://",
  "0x",
  "\u0000",
  "\ud800",
  "=",
  "\n",
  "#",
  '"',
  "9".repeat(400),
  "a".repeat(5000),
  "-",
  "NaN",
  "Infinity",
  "1e9",
  "${HOME}",
]

const mutatedText = (dice: Dice): string => {
  let text = dice.pick(files)
  for (let i = dice.roll(4); i >= 0; i--) {
    const at = dice.roll(text.length + 1)
    const cut = dice.roll(3) === 0 ? dice.roll(20) : 0
    const other = dice.pick(files)
    const put = dice.pick([
      ...oddities,
      other.slice(dice.roll(other.length + 1)),
      String.fromCharCode(dice.roll(256)),
    ])
    text = text.slice(0, at) + put + text.slice(at + cut)
  }
  return text
}

const checkSettings = (variables: Readonly<Record<string, string | undefined>>) => {
  const exit = Effect.runSyncExit(fromVariables(variables))
  if (Exit.isFailure(exit)) {
    const problem = Exit.findErrorOption(exit)
    assert.isTrue(problem._tag === "Some" && problem.value instanceof ConfigProblems, String(exit.cause))
    return
  }
  const settings = exit.value
  assert.isNotEmpty(settings.chains)
  assert.strictEqual(new Set(settings.chains.map(({ id }) => id)).size, settings.chains.length)
  for (const { id, endpoints, rpc, filter, startBlock, confirmations, finalityDepth } of settings.chains) {
    assert.isTrue(Number.isSafeInteger(id) && id > 0)
    assert.isNotEmpty(endpoints)
    for (const { url } of [...endpoints, ...rpc]) {
      assert.match(new URL(Redacted.value(url)).protocol, /^(wss?|https?):$/)
      assert.notInclude(settings.redact(`${Redacted.value(url)}`), secret)
    }
    assert.isTrue(filter.addresses.every((address) => lowerHex(address, 40)) && filter.topics.length <= 4)
    assert.isTrue(filter.topics.flat().every((topic) => topic === null || lowerHex(topic, 64)))
    for (const count of [startBlock, confirmations, finalityDepth])
      assert.isTrue(typeof count === "string" || (Number.isSafeInteger(count) && count >= 0))
  }
  assert.isTrue(settings.http.port >= 0 && settings.http.port < 65_536)
  assert.isAbove(settings.wsMaxPayload, 0)
  if (settings.store._tag === "Redis") {
    for (const { host, port } of settings.store.nodes) assert.isTrue(host !== "" && port > 0 && port < 65_536)
    assert.isTrue(Number.isInteger(settings.store.database))
  }
}

describe("the configuration", () => {
  it("accepts valid settings", () => {
    for (const environment of environments) {
      assert.isTrue(
        Exit.isSuccess(Effect.runSyncExit(fromVariables(environment))),
        JSON.stringify(environment),
      )
      checkSettings(environment)
    }
  })

  it("either accepts any settings or reports their problems", () =>
    fuzz(mutatedText, (text) => {
      const lines = text.split("\n").map((line) => line.split("=", 2) as [string, string | undefined])
      checkSettings(Object.fromEntries(lines))
    }))

  it.effect(
    "reads any `.env` file without a defect",
    () =>
      Effect.gen(function* () {
        const place = yield* directory
        fuzz(mutatedText, (text) => {
          writeFileSync(join(place, ".env"), text)
          const read = () => withDotEnv({ CHAINS: "" }, place)
          if (text.includes("\0")) assert.throws(read, "as UTF-8")
          else checkSettings(read())
        })
      }),
    60_000,
  )
})

const entry = {
  chain_id: "31337",
  block_number: "12",
  block_hash: `0x${"ab".repeat(32)}`,
  tx_hash: `0x${"cd".repeat(32)}`,
  log_index: "3",
  contract: `0x${"ef".repeat(20)}`,
  topics: JSON.stringify([`0x${"01".repeat(32)}`]),
  data: "0x00",
  timestamp: "1700000000",
  tx_index: "1",
  removed: "false",
}

const topics = (count: number) =>
  Array.from({ length: count }, (_, i) => `0x${`0${i + 1}`.repeat(32)}` as const)

/** Valid entries of every shape. */
const corpus: ReadonlyArray<Entry> = [
  entry,
  { ...entry, topics: "[]" },
  { ...entry, topics: JSON.stringify(topics(4)) },
  { ...entry, data: "0x" },
  { ...entry, data: `0x${"0123456789abcdef".repeat(2000)}` },
  { ...entry, removed: "true" },
  { ...entry, traceparent: `00-${"ab".repeat(16)}-${"cd".repeat(8)}-01` },
]

/** Fields and values that another program might write to the stream. */
const mutatedEntry = (dice: Dice): string => {
  const fields = Object.entries(dice.pick(corpus)).flatMap(([name, value]) => {
    if (dice.roll(8) > 0) return [[name, value]]
    const other = dice.pick([...oddities, "[", "[1]", "null", "[null]", "{}", "-1", "8640000000001", "true"])
    return dice.pick([
      [],
      [[name, other]],
      [[other || "x", value]],
      [
        [name, other],
        [name, value],
      ],
    ])
  })
  return JSON.stringify(fields.length === 0 ? [["x", ""]] : fields)
}

describe("tail", () => {
  it("prints an entry as one line", () =>
    assert.strictEqual(
      lineOf("devnet", entry),
      "2023-11-14 22:13:20  devnet 12/3               0xefefefefefefefefefefefefefefefefefefefef  0x01010101…0101  tx 0xcdcdcdcd…cdcd",
    ))

  it("prints any entry as one line", () =>
    fuzz(mutatedEntry, (text) => {
      const fields = Object.fromEntries(JSON.parse(text) as ReadonlyArray<readonly [string, string]>)
      const line = lineOf("devnet", fields as never)
      // oxlint-disable-next-line no-control-regex -- matches control characters on purpose
      assert.notMatch(line, /[\u0000-\u001a\u001c-\u001f\u007f-\u009f\u2028\u2029]/)
      assert.isBelow(line.length, 400)
    }))

  it.live("reads every entry of a stream that other programs have written to", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const store = yield* openRedis(standalone(server.port))
      const pipeline = server.client.pipeline()
      for (let i = 0; i < inputs; i++) {
        const fields = JSON.parse(mutatedEntry(new Dice(seed * 1_000_003 + i))) as ReadonlyArray<
          [string, string]
        >
        pipeline.xadd("events:31337", "*", ...fields.flat())
      }
      yield* Effect.promise(() => pipeline.exec())
      const replay = new Replay()
      const found = yield* Stream.runCollect(store.after(31337))
      for (const stored of found) replay.apply(stored)
      assert.strictEqual(found.length, inputs)
      assert.strictEqual(replay.entries, inputs)
      yield* store.seek(31337, 12)
      const env = {
        CHAINS: "devnet",
        DEVNET_CHAIN_ID: "31337",
        DEVNET_WS_URL: "ws://127.0.0.1:1",
        REDIS_URL: server.url,
      }
      for (const args of [["tail"], ["tail", "--json"]]) {
        const { code, output, errors } = yield* Service.run({ args, env })
        assert.deepStrictEqual([code, errors], [0, ""])
        const lines = output.trimEnd().split("\n")
        assert.strictEqual(lines.length, inputs)
        if (args.length > 1) for (const line of lines) assert.isObject(JSON.parse(line))
      }
    }).pipe(Effect.scoped),
  )

  it.live("reads a damaged file correctly or fails with a store error", () =>
    Effect.gen(function* () {
      const place = yield* directory
      const whole = join(place, "whole.db")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const store = yield* openSqlite(whole)
          const logs = Array.from({ length: 50 }, (_, index) => ({
            index,
            txIndex: 0,
            txHash: `0x${"cd".repeat(32)}` as const,
            contract: `0x${"ef".repeat(20)}` as const,
            topics: topics(index % 5),
            data: `0x${"ab".repeat(32 * (index % 7))}` as const,
          }))
          const block = {
            number: 0,
            hash: `0x${"ab".repeat(32)}`,
            parentHash: `0x${"00".repeat(32)}`,
            timestamp: 1,
          } as const
          yield* store.push(31337, "none", {
            _tag: "Push",
            expected: { number: -1, hash: "", part: 0 },
            blocks: [{ ...block, logs, whole: true }],
            final: false,
          })
        }),
      )
      const bytes = readFileSync(whole)
      let broken = 0
      for (let i = 0; i < inputs; i++) {
        const dice = new Dice(seed * 1_000_003 + i)
        const copy = Buffer.from(
          bytes.subarray(0, dice.roll(4) === 0 ? dice.roll(bytes.length) : bytes.length),
        )
        for (let flips = dice.roll(40); flips >= 0 && copy.length > 0; flips--)
          copy[dice.roll(dice.roll(3) === 0 ? Math.min(copy.length, 200) : copy.length)] = dice.roll(256)
        const path = join(place, `${i}.db`)
        writeFileSync(path, copy)
        const exit = yield* Effect.exit(
          Effect.scoped(
            Effect.gen(function* () {
              const store = yield* openSqlite(path)
              yield* store.load(31337)
              const page = yield* Stream.runCollect(store.after(31337))
              for (const { entry } of page) lineOf("devnet", entry)
              yield* store.seek(31337, 0)
              yield* store.stats(31337)
            }),
          ),
        )
        for (const file of [path, `${path}-wal`, `${path}-shm`]) rmSync(file, { force: true })
        if (Exit.isSuccess(exit)) continue
        broken++
        const error = Exit.findErrorOption(exit)
        assert.isTrue(
          error._tag === "Some" && error.value instanceof StoreError,
          `input ${i} of FUZZ_SEED=${seed}: ${String(exit.cause)}`,
        )
      }
      assert.isAbove(broken, 10)
    }).pipe(Effect.scoped),
  )
})
