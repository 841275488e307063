/**
 * The provider process: `newHeads`, headers and `eth_getLogs` over a real WebSocket, from pre-rendered frames.
 *
 * The first argument configures it and the parent process controls it by messages. It reports to the parent its port, when
 * a chain is subscribed to, and when it wrote which head. `ws://…/<chain id>` is a chain.
 */
import { WebSocketServer } from "ws"
import type { WebSocket } from "ws"
import { base, Chain } from "./chain.ts"
import type { Shape } from "./chain.ts"

export interface Load {
  readonly chains: ReadonlyArray<number>
  readonly shape: Shape
  /** Blocks that exist before the first announcement, all of them final. */
  readonly history: number
  /** Blocks of each chain that will be announced. */
  readonly blocks: number
  /**
   * `asked`: the next head follows the answer to the last one, so that the fastest subject gets the most; starts with the
   * subscription. A number: this many blocks a second over all chains, independent of the subject; starts with `go`.
   */
  readonly pace: "asked" | number
}

/** `announce`: the next block of each chain, at once. */
export type Order = "go" | "stop" | "cut" | "announce" | "report"

/** Heights, both included. */
export type BlockRange = readonly [from: number, to: number]

export interface ProviderReport {
  /** When each announced head was written, by chain, in monotonic milliseconds. */
  readonly written: ReadonlyArray<ReadonlyArray<number>>
  /** The ranges of several blocks whose logs were requested, by chain. */
  readonly ranges: ReadonlyArray<ReadonlyArray<BlockRange>>
}

export type News =
  | { readonly _tag: "Listening"; readonly port: number }
  | { readonly _tag: "Subscribed" }
  | { readonly _tag: "Done" }
  | ({ readonly _tag: "Report" } & ProviderReport)

/** Milliseconds on a clock that all processes of a machine share. */
const clock = () => Number(process.hrtime.bigint()) / 1e6

const load = JSON.parse(process.argv[2]!) as Load
const report = (news: News) => process.send!(news)

/** The depth of the finalized head. */
const unfinal = 64

interface Request {
  readonly id: number
  readonly method: string
  readonly params: ReadonlyArray<unknown>
}

class Follower {
  readonly chain: Chain
  readonly written: Array<number> = []
  readonly ranges: Array<BlockRange> = []
  head = base + load.history
  #subscribers = new Set<WebSocket>()
  readonly #last = base + load.history + load.blocks

  constructor(chain: Chain) {
    this.chain = chain
  }

  announce(): void {
    if (this.head >= this.#last) return
    this.head++
    const header = this.chain.header(this.head)
    for (const socket of this.#subscribers) {
      socket.send(
        `{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0x1","result":${header}}}`,
      )
    }
    this.written.push(clock())
    if (this.head === this.#last) report({ _tag: "Done" })
  }

  #header(block: unknown): string {
    const number =
      block === "latest"
        ? this.head
        : block === "finalized"
          ? Math.max(this.head - unfinal, base + load.history)
          : Number(block)
    return number > this.head ? "null" : this.chain.header(number)
  }

  #getLogs(id: number, socket: WebSocket, filter: Record<string, unknown>): void {
    const { blockHash, fromBlock, toBlock, address } = filter
    const number = blockHash === undefined ? undefined : this.chain.numberOf(String(blockHash))
    const from = number ?? Number(fromBlock)
    const to = number ?? Number(toBlock)
    const addresses = typeof address === "string" ? [address] : (address as ReadonlyArray<string> | undefined)
    if (to > from) this.ranges.push([from, to])
    const asked = load.pace === "asked" && to === this.head
    socket.send(this.chain.answer(id, { from, to, addresses }), { binary: false }, () => {
      if (asked && to === this.head) this.announce()
    })
  }

  /** The result as JSON; `undefined` if the answer was already sent. */
  #result({ id, method, params }: Request, socket: WebSocket): string | undefined {
    switch (method) {
      case "eth_chainId":
        return `"0x${this.chain.id.toString(16)}"`
      case "eth_blockNumber":
        return `"0x${this.head.toString(16)}"`
      case "eth_getBlockByNumber":
        return this.#header(params[0])
      case "eth_subscribe":
        this.#subscribers.add(socket)
        setImmediate(() => {
          report({ _tag: "Subscribed" })
          if (load.pace === "asked") this.announce()
        })
        return `"0x1"`
      case "eth_getLogs":
        this.#getLogs(id, socket, params[0] as Record<string, unknown>)
        return undefined
      default:
        return "true"
    }
  }

  serve(socket: WebSocket): void {
    socket.on("error", () => {})
    socket.on("close", () => this.#subscribers.delete(socket))
    socket.on("message", (data) => {
      const message = JSON.parse((data as Buffer).toString()) as Request | ReadonlyArray<Request>
      const answer = (request: Request) => {
        const result = this.#result(request, socket)
        return result === undefined
          ? undefined
          : `{"jsonrpc":"2.0","id":${JSON.stringify(request.id)},"result":${result}}`
      }
      const text = Array.isArray(message) ? `[${message.map(answer).join(",")}]` : answer(message as Request)
      if (text !== undefined) socket.send(text)
    })
  }
}

const first = new Chain(load.chains[0]!, load.shape)
const followers = new Map(
  load.chains.map((id) => [
    String(id),
    new Follower(id === first.id ? first : new Chain(id, load.shape, first)),
  ]),
)

let stopped = false

/** Announces blocks on a schedule; a late timer catches up. */
const announceAtPace = (perSecond: number) => {
  const all = [...followers.values()]
  const total = all.length * load.blocks
  const since = clock()
  let announced = 0
  const step = () => {
    if (stopped) return
    const due = Math.min(Math.floor(((clock() - since) / 1000) * perSecond), total)
    for (; announced < due; announced++) all[announced % all.length]!.announce()
    const next = since + ((announced + 1) / perSecond) * 1000
    if (announced < total) setTimeout(step, Math.max(next - clock(), 1))
  }
  step()
}

const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: false }, () => {
  report({ _tag: "Listening", port: (server.address() as { port: number }).port })
})
server.on("connection", (socket, { url }) => {
  const follower = followers.get((url ?? "").slice(1))
  if (follower) follower.serve(socket)
  else socket.terminate()
})

process.on("message", (order: Order) => {
  switch (order) {
    case "go":
      if (typeof load.pace === "number") announceAtPace(load.pace)
      return
    case "stop":
      stopped = true
      return
    case "cut":
      for (const socket of server.clients) socket.terminate()
      return
    case "announce":
      for (const follower of followers.values()) follower.announce()
      return
    case "report": {
      const all = [...followers.values()]
      report({
        _tag: "Report",
        written: all.map(({ written }) => written),
        ranges: all.map(({ ranges }) => ranges),
      })
    }
  }
})
process.on("disconnect", () => process.exit())
