/**
 * The limit of the provider: requests the logs of given ranges, as many at a time as the service, and only parses the answers.
 * `node fetchMain.ts <provider port> <chain>`, with the ranges as a message; it answers with the number of logs.
 */
import { once } from "node:events"
import { WebSocket } from "ws"
import type { BlockRange } from "../provider.ts"

const [port, chain] = process.argv.slice(2)
const [ranges] = (await once(process, "message")) as [ReadonlyArray<BlockRange>]

const socket = new WebSocket(`ws://127.0.0.1:${port}/${chain}`, { perMessageDeflate: false })
/** `finalizedAhead` of the service. */
const ahead = 4
const hex = (value: number) => `0x${value.toString(16)}`
let requested = 0
let answered = 0
let logs = 0

const request = () => {
  const range = ranges[requested]
  if (range === undefined) return
  const [fromBlock, toBlock] = range.map(hex)
  const params = [{ fromBlock, toBlock }]
  socket.send(JSON.stringify({ jsonrpc: "2.0", id: requested++, method: "eth_getLogs", params }))
}

socket.on("open", () => {
  for (let i = 0; i < ahead; i++) request()
})
socket.on("message", (data) => {
  logs += (JSON.parse((data as Buffer).toString()) as { readonly result: ReadonlyArray<unknown> }).result
    .length
  request()
  if (++answered === ranges.length) process.send!(logs, () => process.exit())
})
