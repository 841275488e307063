/**
 * The shortest honest loop from the socket into the journal: parse, push. The same script and the same entries, without
 * any checks; with `checked` each field is validated, and the logs are compared with their block and its bloom.
 * `node bareMain.ts <redis port> <provider port> <chain,…> [checked]`
 */
import { Redis } from "ioredis"
import { readFileSync } from "node:fs"
import { WebSocket } from "ws"
import { headerOf, logsOf } from "../../src/endpoint/Decode.ts"
import { allChecks } from "../../src/logs/Integrity.ts"
import { pack } from "../../src/store/redis/MessagePack.ts"

type Hex = `0x${string}`

interface Head {
  readonly number: Hex
  readonly hash: Hex
  readonly parentHash: Hex
  readonly timestamp: Hex
}

interface Log {
  readonly logIndex: Hex
  readonly transactionHash: Hex
  readonly transactionIndex: Hex
  readonly address: Hex
  readonly topics: ReadonlyArray<Hex>
  readonly data: Hex
}

const logOf = ({ logIndex, transactionHash, transactionIndex, address, topics, data }: Log) => ({
  index: Number(logIndex),
  txHash: transactionHash,
  txIndex: Number(transactionIndex),
  contract: address,
  topics,
  data,
})

const [redisPort, providerPort, chains, checked] = process.argv.slice(2)

const parsed = (logs: ReadonlyArray<Log>) => logs.map(logOf)

/** As the service does it, in plain JavaScript. */
const validated = (head: Head, answer: ReadonlyArray<Log>) => {
  const header = headerOf(head)
  const logs = logsOf(answer)
  if ("detail" in header || "detail" in logs) throw new Error("malformed")
  const reason = allChecks.whole(logs, header)
  if (reason !== undefined) throw new Error(reason)
  return logs
}
const lua = (name: string) =>
  readFileSync(new URL(`../../src/store/redis/lua/${name}.lua`, import.meta.url), "utf8")
const redis = new Redis({ port: Number(redisPort) }) as Redis & {
  push: (...args: ReadonlyArray<string | Buffer>) => Promise<ReadonlyArray<string>>
}
redis.defineCommand("push", { numberOfKeys: 6, lua: `${lua("common")}\n${lua("retention")}\n${lua("push")}` })

/** The script gets at most 1 000 logs per call, as from the service. */
const logsPerCall = 1000

const follow = (chain: string) => {
  const socket = new WebSocket(`ws://127.0.0.1:${providerPort}/${chain}`, { perMessageDeflate: false })
  const asked = new Map<number, Head>()
  let nextId = 2
  let place: ReadonlyArray<string> | undefined

  const push = (head: Head, answer: ReadonlyArray<Log>) => {
    const { number, hash, parentHash, timestamp } = head
    const logs = checked === undefined ? parsed(answer) : validated(head, answer)
    const height = String(Number(number))
    for (let from = 0; from < logs.length; from += logsPerCall) {
      const some = logs.slice(from, from + logsPerCall)
      const whole = from + some.length === logs.length
      place ??= [String(Number(number) - 1), "", "0", ""]
      const packed = pack([{ logs: some }])
      const args = ["none", ...place, chain, "0", "0", "1", "", "epoch", packed, "", height, hash, parentHash]
      args.push(String(Number(timestamp)), whole ? "1" : "0", "", String(some.length))
      place = [height, hash, whole ? "0" : String(from + some.length), ""]
      const key = `{events:${chain}}`
      const keys = ["head", "window", "missed", "readers", "filters"].map((name) => `${key}:${name}`)
      void redis.push(`events:${chain}`, ...keys, ...args)
    }
  }

  const send = (id: number, method: string, params: ReadonlyArray<unknown>) =>
    socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }))

  socket.on("open", () => send(1, "eth_subscribe", ["newHeads"]))
  socket.on("message", (data) => {
    const message = JSON.parse((data as Buffer).toString()) as {
      readonly id?: number
      readonly params?: { readonly result: Head }
      readonly result?: ReadonlyArray<Log>
    }
    if (message.params) {
      asked.set(nextId, message.params.result)
      send(nextId++, "eth_getLogs", [{ blockHash: message.params.result.hash }])
    } else if (message.id !== 1) {
      push(asked.get(message.id!)!, message.result!)
      asked.delete(message.id!)
    }
  })
}

for (const chain of chains!.split(",")) follow(chain)
