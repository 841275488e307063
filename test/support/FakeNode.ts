/**
 * A scriptable node of a FakeChain: it responds correctly, wrongly, late or never. It is served over a real WebSocket or
 * used as a transport without sockets.
 */
import { Duration, Effect, Layer, Redacted } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { WebSocketServer } from "ws"
import type { WebSocket } from "ws"
import type { Header, Hex, Log } from "../../src/Domain.ts"
import { hex, quantity } from "../../src/endpoint/Decode.ts"
import { Disconnected } from "../../src/endpoint/EndpointError.ts"
import { Transport } from "../../src/endpoint/Socket.ts"
import { answers as recorded } from "./answers.ts"
import type { FakeBlock, FakeChain } from "./FakeChain.ts"
import { answerHttp, layerHttp } from "./FakeHttp.ts"

/** Thrown by a method to refuse a request. */
export class Refused extends Error {
  readonly code: number
  readonly data: unknown
  constructor(code: number, message: string, data?: unknown) {
    super(message)
    this.code = code
    this.data = data
  }
}

/** Returned by a method that never responds. */
export const silence = Symbol("silence")

/** Returned by a method to send this text instead of a response; `%id` is replaced by the id of the request. */
export class Raw {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

type Params = ReadonlyArray<unknown>

/** May respond instead of the node; `proceed` returns the correct response. */
export type Intercept = (method: string, params: Params, proceed: () => unknown) => unknown

/** One connection, on the node's side. */
interface Session {
  readonly send: (text: string) => void
  readonly close: (code?: number) => void
  /** The kind of each subscription. */
  readonly subscriptions: Map<string, string>
  /** The last announced head. */
  lastAnnounced: FakeBlock | undefined
  stopListening: () => void
}

const newSession = (send: Session["send"], close: Session["close"]): Session => ({
  send,
  close,
  subscriptions: new Map(),
  lastAnnounced: undefined,
  stopListening: () => {},
})

const wireHeader = (header: Header) => ({
  number: hex(header.number),
  hash: header.hash,
  parentHash: header.parentHash,
  timestamp: hex(header.timestamp),
  logsBloom: header.logsBloom,
  gasUsed: header.executed === true ? "0x5208" : "0x0",
})

export type WireHeader = ReturnType<typeof wireHeader>

const wireLog = ({ header }: Pick<FakeBlock, "header">, log: Log, removed = false) => ({
  address: log.contract,
  topics: log.topics,
  data: log.data,
  blockHash: header.hash,
  blockNumber: hex(header.number),
  transactionHash: log.txHash,
  transactionIndex: hex(log.txIndex),
  logIndex: hex(log.index),
  removed,
})

/** The same value, with the keys of every object in reverse order. */
const reversed = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(reversed)
  if (value === null || typeof value !== "object") return value
  return Object.fromEntries(
    Object.entries(value)
      .toReversed()
      .map(([key, field]) => [key, reversed(field)]),
  )
}

interface LogFilter {
  readonly address?: Hex | ReadonlyArray<Hex>
  readonly topics?: ReadonlyArray<Hex | ReadonlyArray<Hex> | null>
  readonly fromBlock?: string
  readonly toBlock?: string
  readonly blockHash?: Hex
}

const matches = ({ address, topics = [] }: LogFilter, log: Log): boolean => {
  const addresses = address === undefined ? [] : [address].flat()
  if (addresses.length > 0 && !addresses.includes(log.contract)) return false
  return topics.every((wanted, i) => {
    if (i >= log.topics.length) return false
    return wanted === null || [wanted].flat().length === 0 || [wanted].flat().includes(log.topics[i]!)
  })
}

export class FakeNode {
  #chain: FakeChain
  /** How many blocks this node lags behind the chain. */
  lag = 0
  /** Whether it announces heads. */
  announces = true
  /** Whether the logs of a block are sent before its head. */
  logsFirst = false
  /** Whether subscription ids restart on each connection and keys are in reverse order, as with ganache. */
  likeGanache = false
  /** Largest accepted batch; a larger one is refused as a whole. */
  mostCalls = Infinity
  /** How it refuses a batch that is too large: with the id of the first call, as geth does, or without an id. */
  tooLarge: "first id" | "no id" = "first id"
  /** Largest accepted request in characters; above it the node closes the socket, or responds 413 over HTTP. */
  mostCharacters = Infinity
  /** Changes each message that it sends: a response, each response of a batch, or a notification. */
  sends: (message: Record<string, unknown>) => unknown = (message) => message
  /** Whether it sends text in binary frames. */
  binary = false
  /** Whether it answers pings. */
  pongs = true
  /** Whether it responds at all. */
  answers = true
  /** Whether logs have a `blockTimestamp`, as with most current nodes. */
  timestamps = true
  intercept: Intercept = (_method, _params, proceed) => proceed()
  /** Changes a header when it is announced. */
  announced: (header: WireHeader) => unknown = (header) => header
  /** Number of received requests by method. */
  readonly requests = new Map<string, number>()
  readonly sessions = new Set<Session>()
  /** Total characters of all notifications. */
  notified = 0
  /** Number of accepted connections. */
  connections = 0
  /** Whether it accepts connections. */
  up = true
  /** Delay before it accepts a connection on the transport without sockets (milliseconds). */
  acceptsAfter = 1
  /** Status and headers of HTTP responses; `text` replaces the body. */
  http: { status: number; headers: Record<string, string>; text?: string } = { status: 200, headers: {} }
  #subscription = 0

  constructor(chain: FakeChain) {
    this.#chain = chain
  }

  /** This node's view of the chain. */
  get chain(): FakeChain {
    return this.#chain
  }

  /** Switches to another view of the chain and announces its head. */
  follow(chain: FakeChain): void {
    this.#chain = chain
    for (const session of this.sessions) {
      if (session.lastAnnounced === undefined) continue
      session.stopListening()
      session.stopListening = chain.listen(() => this.#announceNew(session))
      this.#announceNew(session)
    }
  }

  /** The encoded logs of a block, canonical or not. */
  logsOf(block: FakeBlock): ReadonlyArray<unknown> {
    return block.logs.map((log) => this.#wireLog(block, log))
  }

  /** Closes every connection: 1006 at once, any other code after sent data has arrived. */
  drop(code = 1006): void {
    for (const session of this.sessions) session.close(code)
  }

  /** Sends a text on every connection. */
  broadcast(text: string): void {
    for (const session of this.sessions) session.send(text)
  }

  /** Announces this header to every subscriber, independent of the chain. */
  announce(header: Header): void {
    for (const session of this.sessions) this.#notify(session, "newHeads", this.announced(wireHeader(header)))
  }

  /** Sends these logs of a block to every subscriber, independent of the chain. */
  announceLogs(block: FakeBlock, logs: ReadonlyArray<Log> = block.logs, removed = false): void {
    for (const session of this.sessions) this.#notifyLogs(session, block, logs, removed)
  }

  #write(value: object): string {
    const messages = [value].flat() as ReadonlyArray<Record<string, unknown>>
    const sent = messages.map((message) => this.sends(message))
    const all = Array.isArray(value) ? sent : sent[0]
    return JSON.stringify(this.likeGanache ? reversed(all) : all)
  }

  #notify(session: Session, kind: string, result: unknown): void {
    for (const [subscription, of] of session.subscriptions) {
      if (of !== kind) continue
      const params = { subscription, result }
      const text = this.#write({ jsonrpc: "2.0", method: "eth_subscription", params })
      this.notified += text.length
      session.send(text)
    }
  }

  #notifyLogs(session: Session, block: FakeBlock, logs: ReadonlyArray<Log>, removed: boolean): void {
    for (const log of logs) this.#notify(session, "logs", wireLog(block, log, removed))
  }

  /** Announces as geth does: only the head of the tip; removed logs first, then the logs of all new blocks. */
  #announceNew(session: Session): void {
    const block = this.#block("latest")
    const { lastAnnounced } = session
    session.lastAnnounced = block
    if (!this.announces || block === undefined) return
    const head = () => this.#notify(session, "newHeads", this.announced(wireHeader(block.header)))
    if (!this.logsFirst) head()
    let common = lastAnnounced
    while (common !== undefined && !this.chain.isCanonical(common)) {
      this.#notifyLogs(session, common, common.logs.toReversed(), true)
      common = this.chain.byHash(common.header.parentHash)
    }
    for (let number = (common?.header.number ?? -1) + 1; number <= block.header.number; number++) {
      const next = this.chain.at(number)
      if (next !== undefined) this.#notifyLogs(session, next, next.logs, false)
    }
    if (this.logsFirst) head()
  }

  /** The highest block that this node serves. */
  get #height(): number {
    return Math.max(this.chain.head.number - this.lag, 0)
  }

  #block(tag: unknown): FakeBlock | undefined {
    const at = (number: number) => (number > this.#height ? undefined : this.chain.at(number))
    if (tag === "latest") return this.chain.highestUpTo(this.#height)
    if (tag === "finalized") return at(this.chain.final.number)
    return at(quantity(tag) ?? -1)
  }

  #byHash(hash: unknown): FakeBlock {
    const block = this.chain.byHash(hash as Hex)
    const known = block !== undefined && block.header.number <= this.#height && this.chain.isCanonical(block)
    if (!known) throw new Refused(-32000, "unknown block")
    return block
  }

  #logs(filter: LogFilter): ReadonlyArray<unknown> {
    const blocks: Array<FakeBlock> = []
    if (filter.blockHash === undefined) {
      const from = quantity(filter.fromBlock) ?? this.#height
      const to = Math.min(quantity(filter.toBlock) ?? this.#height, this.#height)
      for (let number = from; number <= to; number++) {
        const block = this.chain.at(number)
        if (block !== undefined) blocks.push(block)
      }
    } else {
      blocks.push(this.#byHash(filter.blockHash))
    }
    return blocks.flatMap((block) =>
      block.logs.filter((log) => matches(filter, log)).map((log) => this.#wireLog(block, log)),
    )
  }

  #wireLog(block: FakeBlock, log: Log) {
    const wire = wireLog(block, log)
    return this.timestamps ? { ...wire, blockTimestamp: hex(block.header.timestamp) } : wire
  }

  #receipts(block: FakeBlock): ReadonlyArray<unknown> {
    const byTransaction = Map.groupBy(block.logs, (log) => log.txIndex)
    return [...byTransaction.values()].map((logs) => ({
      transactionIndex: hex(logs[0]!.txIndex),
      transactionHash: logs[0]!.txHash,
      logs: logs.map((log) => wireLog(block, log)),
    }))
  }

  #receipt(transaction: Hex): unknown {
    for (let number = this.#height; number >= 0; number--) {
      const block = this.chain.at(number)
      const logs = block?.logs.filter(({ txHash }) => txHash === transaction) ?? []
      if (block !== undefined && logs.length > 0)
        return { transactionHash: transaction, logs: logs.map((log) => wireLog(block, log)) }
    }
    return null
  }

  #subscribe(session: Session, kind: string): string {
    if (session.lastAnnounced === undefined)
      session.stopListening = this.chain.listen(() => this.#announceNew(session))
    session.lastAnnounced ??= this.#block("latest")
    const id = hex(this.likeGanache ? session.subscriptions.size + 1 : ++this.#subscription)
    session.subscriptions.set(id, kind)
    return id
  }

  #answer(session: Session, method: string, params: Params): unknown {
    switch (method) {
      case "eth_chainId":
        return hex(this.chain.id)
      case "eth_blockNumber":
        return hex(this.#height)
      case "eth_getBlockByNumber": {
        const block = this.#block(params[0])
        return block ? wireHeader(block.header) : null
      }
      case "eth_getBlockByHash": {
        const block = this.#byHash(params[0])
        return {
          ...wireHeader(block.header),
          transactions: [...new Set(block.logs.map(({ txHash }) => txHash))],
        }
      }
      case "eth_getTransactionReceipt":
        return this.#receipt(params[0] as Hex)
      case "eth_getLogs":
        return this.#logs(params[0] as LogFilter)
      case "eth_getBlockReceipts":
        return this.#receipts(this.#byHash(params[0]))
      case "eth_subscribe":
        return this.#subscribe(session, params[0] as string)
      case "eth_unsubscribe":
        return session.subscriptions.delete(params[0] as string)
      default:
        throw new Refused(-32601, "the method does not exist")
    }
  }

  /** How many requests of this method it has received. */
  timesAsked(method: string): number {
    return this.requests.get(method) ?? 0
  }

  /** The response to one request; `undefined` for none. */
  #reply(
    session: Session,
    request: { readonly id: number; readonly method: string; readonly params: Params },
  ) {
    const { id, method, params } = request
    this.requests.set(method, (this.requests.get(method) ?? 0) + 1)
    try {
      const result = this.intercept(method, params, () => this.#answer(session, method, params))
      if (result instanceof Raw) return new Raw(result.text.replace("%id", String(id)))
      return result === silence ? undefined : { jsonrpc: "2.0", id, result }
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      return { jsonrpc: "2.0", id, error: { code: error.code, message: error.message, data: error.data } }
    }
  }

  /** Opens a connection. */
  accept(send: (text: string) => void, close: (code?: number) => void): Session {
    this.connections++
    const session: Session = newSession(send, (code) => {
      this.leave(session)
      close(code)
    })
    this.sessions.add(session)
    return session
  }

  /** Ends a connection. */
  leave(session: Session): void {
    session.stopListening()
    session.subscriptions.clear()
    this.sessions.delete(session)
  }

  /** Handles a received frame. */
  receive(session: Session, text: string): void {
    if (!this.answers) return
    if (text.length > this.mostCharacters) return session.close(1009)
    const frame = JSON.parse(text) as never
    const requests: ReadonlyArray<{ id: number; method: string; params: Params }> = Array.isArray(frame)
      ? frame
      : [frame]
    if (requests.length > this.mostCalls) {
      const error = { code: -32600, message: "batch too large" }
      return session.send(
        this.tooLarge === "no id"
          ? this.#write({ jsonrpc: "2.0", id: null, error })
          : recorded["geth batch"]!.frame!.replace("%id", String(requests[0]!.id)),
      )
    }
    const replies = requests.flatMap((request) => this.#reply(session, request) ?? [])
    for (const reply of replies) if (reply instanceof Raw) session.send(reply.text)
    const answers = replies.filter((reply) => !(reply instanceof Raw))
    if (answers.length === 0) return
    session.send(this.#write(Array.isArray(frame) ? answers : answers[0]!))
  }

  /** Handles a request over HTTP; returns the response, or `undefined` for none. */
  post(text: string): string | undefined {
    let answer: string | undefined
    const send = (text: string) => void (answer = text)
    this.receive(
      newSession(send, () => {}),
      text,
    )
    return answer
  }

  /** Serves the node over a real WebSocket, and HTTP on the same port, for as long as the scope lives. Returns its URL. */
  get serve() {
    const open = Effect.callback<{ readonly server: WebSocketServer; readonly url: string }>((resume) => {
      const http = createServer((request, response) => answerHttp(this, request, response))
      const server = new WebSocketServer({ server: http, autoPong: false })
      server.on("connection", (socket: WebSocket) => {
        if (!this.up) return socket.terminate()
        const session = this.accept(
          (text) => socket.send(text, { binary: this.binary }),
          (code) => (code === undefined || code === 1006 ? socket.terminate() : socket.close(code)),
        )
        socket.on("ping", (data) => {
          if (this.pongs) socket.pong(data)
        })
        socket.on("message", (data) => this.receive(session, (data as Buffer).toString()))
        return socket.on("close", () => this.leave(session))
      })
      http.listen(0, "127.0.0.1", () => {
        const { port } = http.address() as AddressInfo
        resume(Effect.succeed({ server, url: `ws://127.0.0.1:${port}` }))
      })
    })
    return Effect.map(
      Effect.acquireRelease(open, ({ server }) =>
        Effect.sync(() => {
          for (const client of server.clients) client.terminate()
          server.close()
          ;(server.options.server as { close: () => void }).close()
        }),
      ),
      ({ url }) => url,
    )
  }
}

/**
 * A transport without sockets, and an HTTP client: each host is a node, and every frame takes `latency` on the clock in
 * use, so that the whole service is deterministic under a test clock.
 */
export const layerTransport = (nodes: Readonly<Record<string, FakeNode>>, latency = "1 millis" as const) =>
  Layer.effect(
    Transport,
    Effect.gen(function* () {
      const run = Effect.runForkWith(yield* Effect.context())
      const later = (action: () => void) => void run(Effect.delay(Effect.sync(action), latency))
      return {
        connect: ({ url, maxPayload }, listener) =>
          Effect.acquireRelease(
            Effect.suspend(() => {
              const node = nodes[new URL(Redacted.value(url)).host]
              if (node === undefined || !node.up) return Effect.fail(new Disconnected({ detail: "refused" }))
              let open = true
              let cut = false
              const session = node.accept(
                (text) =>
                  later(() => {
                    if (!open || cut) return
                    if (text.length <= maxPayload) return listener.onText(text)
                    cut = true
                    return listener.onOversized()
                  }),
                (code = 1006) => {
                  if (code === 1006) cut = true
                  later(() => {
                    cut = true
                    if (open) listener.onClosed(`closed with code ${code}`, code)
                  })
                },
              )
              const end = () => {
                open = false
                node.leave(session)
              }
              return Effect.succeed({ node, session, end, isOpen: () => open && !cut })
            }).pipe(
              Effect.delay(Duration.millis(nodes[new URL(Redacted.value(url)).host]?.acceptsAfter ?? 1)),
            ),
            ({ end }) => Effect.sync(end),
            { interruptible: true },
          ).pipe(
            Effect.map(({ node, session, isOpen }) => ({
              send: (text: string) => later(() => isOpen() && node.receive(session, text)),
              ping: () => later(() => isOpen() && node.answers && node.pongs && listener.onPong()),
            })),
          ),
      }
    }),
  ).pipe(Layer.merge(layerHttp(nodes, latency)))
