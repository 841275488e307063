/**
 * The approach of the original system: three round trips per event, one event at a time.
 * `node perEventMain.ts <redis port> <provider port> <chain,…>`
 */
import { Redis } from "ioredis"
import { WebSocket } from "ws"

const [redisPort, providerPort, chains] = process.argv.slice(2)
const redis = new Redis({ port: Number(redisPort) })
const day = 86_400

interface Head {
  readonly number: string
  readonly hash: string
  readonly timestamp: string
}

type Log = Readonly<Record<string, string>> & { readonly topics: ReadonlyArray<string> }

const publish = async (chain: string, head: Head, logs: ReadonlyArray<Log>) => {
  for (const log of logs) {
    const seen = `seen:${chain}`
    const isNew = await redis.sadd(seen, `${chain}:${log["blockHash"]}:${log["logIndex"]}`)
    await redis.expire(seen, day)
    if (isNew === 0) continue
    await redis.xadd(
      `events:${chain}`,
      "*",
      "chain_id",
      chain,
      "block_number",
      String(Number(head.number)),
      "block_hash",
      head.hash,
      "tx_hash",
      log["transactionHash"]!,
      "log_index",
      String(Number(log["logIndex"])),
      "contract",
      log["address"]!,
      "topics",
      JSON.stringify(log.topics),
      "data",
      log["data"]!,
      "timestamp",
      String(Number(head.timestamp)),
      "tx_index",
      String(Number(log["transactionIndex"])),
      "removed",
      "false",
    )
  }
}

const follow = (chain: string) => {
  const socket = new WebSocket(`ws://127.0.0.1:${providerPort}/${chain}`, { perMessageDeflate: false })
  const asked = new Map<number, Head>()
  let nextId = 2
  let last = Promise.resolve()
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
      const head = asked.get(message.id!)!
      last = last.then(() => publish(chain, head, message.result!))
    }
  })
}

for (const chain of chains!.split(",")) follow(chain)
