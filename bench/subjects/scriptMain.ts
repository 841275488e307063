/**
 * A typical script for the logs of a chain in Redis, after the examples of the libraries, that keeps blocks in order.
 * `node scriptMain.ts <redis port> <provider port> <chain,…>`
 */
import { Redis } from "ioredis"
import { createPublicClient, webSocket } from "viem"
import type { Block } from "viem"

const [redisPort, providerPort, chains] = process.argv.slice(2)
const redis = new Redis({ port: Number(redisPort) })

for (const chain of chains!.split(",")) {
  const client = createPublicClient({ transport: webSocket(`ws://127.0.0.1:${providerPort}/${chain}`) })

  const publish = async ({ number, hash, timestamp }: Block<bigint, boolean, "latest">) => {
    for (const log of await client.getLogs({ blockHash: hash })) {
      await redis.xadd(
        `events:${chain}`,
        "*",
        "chain_id",
        chain,
        "block_number",
        String(number),
        "block_hash",
        hash,
        "tx_hash",
        log.transactionHash,
        "log_index",
        String(log.logIndex),
        "contract",
        log.address,
        "topics",
        JSON.stringify(log.topics),
        "data",
        log.data,
        "timestamp",
        String(timestamp),
        "tx_index",
        String(log.transactionIndex),
        "removed",
        "false",
      )
    }
  }

  let last = Promise.resolve()
  client.watchBlocks({ onBlock: (block) => void (last = last.then(() => publish(block))) })
}
