/**
 * A node with more logs than fit into memory, in its own process: `node loadGenerator.ts <logs in a block> <finality>`.
 *
 * Blocks are rendered on request from one template. Lines on standard input mine blocks: `12 5000 3` mines twelve blocks
 * of 5 000 logs, three per second. It prints its port first, and `head <number>` after each line.
 */
import { createHash } from "node:crypto"
import type { AddressInfo } from "node:net"
import { setTimeout } from "node:timers/promises"
import { createInterface } from "node:readline"
import { WebSocketServer } from "ws"
import type { WebSocket } from "ws"

/** The first height; up to sixteen million, all heights have six digits, so that all templates have the same length. */
export const firstHeight = 0x100000
const firstTime = 0x65000000

export const chainId = 31339

/** Logs per transaction. */
const perTransaction = 100

/** The maximum number of logs in a range, as providers limit it. */
const mostInRange = 20_000

const digest = (...words: ReadonlyArray<string | number>) =>
  `0x${createHash("sha256").update(words.join("/")).digest("hex")}`

export const hashOf = (number: number): string => digest("load", number)

const transactionHash = (index: number, block: string) =>
  `0x${index.toString(16).padStart(8, "0")}${block.slice(10)}`

const hex = (value: number) => `0x${value.toString(16)}`

/** A template of a block's logs, with placeholders for block hash, number, time and the end of a transaction's hash. */
interface Template {
  readonly text: Buffer
  readonly hashes: ReadonlyArray<number>
  readonly numbers: ReadonlyArray<number>
  readonly times: ReadonlyArray<number>
  readonly tails: ReadonlyArray<number>
  /** The offset of each log, and the end. */
  readonly starts: ReadonlyArray<number>
}

const templates = new Map<number, Template>()

const render = (logs: number): Template => {
  const [hashes, numbers, times, tails, starts] = [[], [], [], [], []] as Array<Array<number>> as [
    Array<number>,
    Array<number>,
    Array<number>,
    Array<number>,
    Array<number>,
  ]
  const parts: Array<string> = []
  let length = 0
  const add = (part: string) => {
    parts.push(part)
    length += part.length
  }
  const hole = (where: Array<number>, size: number) => {
    where.push(length)
    add("0".repeat(size))
  }
  const transfer = digest("Transfer")
  for (let i = 0; i < logs; i++) {
    starts.push(length)
    const [from, to] = [digest("holder", i % 1000), digest("holder", (i * 7) % 1000)]
    add(`{"address":"${digest("contract", i % 50).slice(0, 42)}","topics":["${transfer}","${from}","${to}"],`)
    add(`"data":"${digest("amount", i)}","blockNumber":"`)
    hole(numbers, 8)
    const transaction = Math.floor(i / perTransaction)
    add(`","transactionHash":"0x${transaction.toString(16).padStart(8, "0")}`)
    hole(tails, 56)
    add(`","transactionIndex":"${hex(transaction)}","blockHash":"`)
    hole(hashes, 66)
    add('","blockTimestamp":"')
    hole(times, 10)
    add(`","logIndex":"${hex(i)}","removed":false},`)
  }
  starts.push(length)
  return { text: Buffer.from(parts.join(""), "latin1"), hashes, numbers, times, tails, starts }
}

const templateOf = (logs: number): Template => {
  const template = templates.get(logs) ?? render(logs)
  templates.set(logs, template)
  return template
}

/** The number of logs of each block, from the first on. */
const sizes: Array<number> = []
const numberOf = new Map<string, number>()
const subscriptions = new Map<WebSocket, string>()
const [logs = 10, finality = 64] = process.argv.slice(2).map(Number)

const head = () => firstHeight + sizes.length - 1

const grow = (count: number) => {
  sizes.push(count)
  numberOf.set(hashOf(head()), head())
}

/** The logs `from … to` of a block, with a comma after each. */
const logsOf = (number: number, from = 0, to = sizes[number - firstHeight]!): Buffer => {
  const { text, hashes, numbers, times, tails, starts } = templateOf(sizes[number - firstHeight]!)
  const [begin, end] = [starts[from]!, starts[to]!]
  const copy = Buffer.from(text.subarray(begin, end))
  const [hash, height] = [Buffer.from(hashOf(number)), Buffer.from(hex(number))]
  const time = Buffer.from(hex(firstTime + number))
  for (let i = from; i < to; i++) {
    hash.copy(copy, hashes[i]! - begin)
    height.copy(copy, numbers[i]! - begin)
    time.copy(copy, times[i]! - begin)
    hash.copy(copy, tails[i]! - begin, 10)
  }
  return copy
}

const header = (number: number) => ({
  number: hex(number),
  hash: hashOf(number),
  parentHash: hashOf(number - 1),
  timestamp: hex(firstTime + number),
  logsBloom: `0x${(sizes[number - firstHeight] === 0 ? "0" : "f").repeat(512)}`,
})

const exists = (number: number) => number >= firstHeight && number <= head()

const heightOf = (tag: unknown) =>
  tag === "latest" ? head() : tag === "finalized" ? Math.max(head() - finality, firstHeight) : Number(tag)

const close = (parts: ReadonlyArray<Buffer>): Buffer => {
  const all = Buffer.concat(parts)
  return all.length === 0 ? all : all.subarray(0, -1)
}

class Refused extends Error {}

/** The JSON of a result. */
const resultOf = (method: string, params: ReadonlyArray<unknown>, socket: WebSocket): string | Buffer => {
  const [first] = params
  const known = () => {
    const number = numberOf.get((first as { blockHash?: string }).blockHash ?? (first as string))
    if (number === undefined) throw new Refused("unknown block")
    return number
  }
  switch (method) {
    case "eth_chainId":
      return JSON.stringify(hex(chainId))
    case "eth_blockNumber":
      return JSON.stringify(hex(head()))
    case "eth_getBlockByNumber": {
      const number = heightOf(first)
      return JSON.stringify(exists(number) ? header(number) : null)
    }
    case "eth_getBlockByHash": {
      const number = known()
      const transactions = Math.ceil(sizes[number - firstHeight]! / perTransaction)
      const hashes = Array.from({ length: transactions }, (_, i) => transactionHash(i, hashOf(number)))
      return JSON.stringify({ ...header(number), transactions: hashes })
    }
    case "eth_getLogs": {
      const range = first as { blockHash?: string; fromBlock: string; toBlock: string }
      if (range.blockHash !== undefined) return Buffer.concat([open, close([logsOf(known())]), shut])
      const [from, to] = [
        Math.max(Number(range.fromBlock), firstHeight),
        Math.min(Number(range.toBlock), head()),
      ]
      const some = sizes.slice(from - firstHeight, to - firstHeight + 1)
      if (some.reduce((sum, size) => sum + size, 0) > mostInRange && some.length > 1) {
        throw new Refused(`query returned more than ${mostInRange} results`)
      }
      return Buffer.concat([open, close(some.map((_, i) => logsOf(from + i))), shut])
    }
    case "eth_getBlockReceipts": {
      const number = known()
      return Buffer.concat([Buffer.from('[{"logs":['), close([logsOf(number)]), Buffer.from("]}]")])
    }
    case "eth_getTransactionReceipt": {
      const text = first as string
      const index = Number.parseInt(text.slice(2, 10), 16)
      const number = [...numberOf].find(([hash]) => hash.slice(10) === text.slice(10))?.[1]
      if (number === undefined) return "null"
      const from = index * perTransaction
      const to = Math.min(from + perTransaction, sizes[number - firstHeight]!)
      return Buffer.concat([Buffer.from('{"logs":['), close([logsOf(number, from, to)]), Buffer.from("]}")])
    }
    case "eth_subscribe":
      subscriptions.set(socket, "0x1")
      return '"0x1"'
    case "eth_unsubscribe":
      return String(subscriptions.delete(socket))
    default:
      throw new Refused("the method does not exist")
  }
}

const open = Buffer.from("[")
const comma = Buffer.from(",")
const shut = Buffer.from("]")

interface Request {
  readonly id: number
  readonly method: string
  readonly params: ReadonlyArray<unknown>
}

const answerOf = ({ id, method, params }: Request, socket: WebSocket): ReadonlyArray<Buffer> => {
  try {
    const result = resultOf(method, params, socket)
    return [Buffer.from(`{"jsonrpc":"2.0","id":${id},"result":`), Buffer.from(result), Buffer.from("}")]
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    return [
      Buffer.from(JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32005, message: error.message } })),
    ]
  }
}

const serve = () => {
  grow(0)
  templateOf(logs)
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
  server.on("listening", () => process.stdout.write(`port ${(server.address() as AddressInfo).port}\n`))
  server.on("connection", (socket) => {
    socket.on("error", () => {})
    socket.on("close", () => subscriptions.delete(socket))
    socket.on("message", (data) => {
      const frame = JSON.parse((data as Buffer).toString()) as Request | ReadonlyArray<Request>
      const answers =
        "id" in frame
          ? answerOf(frame, socket)
          : [open, ...frame.flatMap((one, i) => [...(i > 0 ? [comma] : []), ...answerOf(one, socket)]), shut]
      socket.send(Buffer.concat(answers), { binary: false })
    })
  })
  const announce = () => {
    for (const [socket, subscription] of subscriptions) {
      const params = { subscription, result: header(head()) }
      socket.send(JSON.stringify({ jsonrpc: "2.0", method: "eth_subscription", params }))
    }
  }
  const obey = async () => {
    for await (const line of createInterface({ input: process.stdin })) {
      const [blocks = 0, size = 0, perSecond = 1] = line.split(" ").map(Number)
      for (let i = 0; i < blocks; i++) {
        if (i > 0) await setTimeout(1000 / perSecond) // The block time of this chain: the load itself.
        grow(size)
        announce()
      }
      process.stdout.write(`head ${head()}\n`)
    }
  }
  void obey()
}

if (process.argv[1] === import.meta.filename) serve()
