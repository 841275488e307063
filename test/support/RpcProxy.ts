/** A WebSocket proxy in front of a real node that decodes JSON-RPC and may change it. */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { AddressInfo } from "node:net"
import { WebSocket, WebSocketServer } from "ws"

export interface Request {
  readonly id: number
  readonly method: string
  readonly params: ReadonlyArray<unknown>
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: { readonly subscription: string; readonly result: unknown }
  readonly result?: unknown
  readonly error?: unknown
}

export interface Changes {
  /** An error to return instead of forwarding the request. */
  readonly refuse?: (request: Request) => { readonly code: number; readonly message: string } | undefined
  /** Replaces a result. */
  readonly answer?: (request: Request, result: unknown) => unknown
  /** Whether a notification is forwarded; `kind` is that of its subscription. */
  readonly forwards?: (kind: string, result: unknown) => boolean
}

export interface RpcProxy {
  readonly url: string
  /** Number of requests by method. */
  readonly requests: ReadonlyMap<string, number>
  /** The changes to apply; may be replaced at any time. */
  changes: Changes
  /** Cuts every connection, as the network would. */
  readonly cut: () => void
}

const isBatch = <A>(value: A | ReadonlyArray<A>): value is ReadonlyArray<A> => Array.isArray(value)

/** A proxy for as long as the scope lives. */
export const start = (target: string, changes: Changes): Effect.Effect<RpcProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<RpcProxy & { readonly server: WebSocketServer }>((resume) => {
      const requests = new Map<string, number>()
      const server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
      const proxy = {
        url: "",
        requests,
        changes,
        server,
        cut: () => {
          for (const client of server.clients) client.terminate()
        },
      }

      /** Serves one client, with its own connection to the node. */
      const connect = (client: WebSocket) => {
        const asked = new Map<number, Request>()
        const kinds = new Map<string, string>()
        const upstream = new WebSocket(target, { maxPayload: 512 * 1024 * 1024 })
        const early: Array<string> = []
        const send = (text: string) =>
          upstream.readyState === WebSocket.OPEN ? upstream.send(text) : void early.push(text)
        const end = () => {
          client.terminate()
          upstream.terminate()
        }
        for (const socket of [client, upstream]) {
          socket.on("error", end)
          socket.on("close", end)
        }
        upstream.on("open", () => {
          for (const text of early) upstream.send(text)
        })

        /** The error for a refused request, or `undefined` for one to forward. */
        const refuseOrRecord = (request: Request): Message | undefined => {
          requests.set(request.method, (requests.get(request.method) ?? 0) + 1)
          asked.set(request.id, request)
          const error = proxy.changes.refuse?.(request)
          return error && { id: request.id, error: { code: error.code, message: error.message } }
        }

        const changed = (message: Message): Message | undefined => {
          if (message.params !== undefined) {
            const { subscription, result } = message.params
            const kind = kinds.get(subscription) ?? ""
            return proxy.changes.forwards?.(kind, result) === false ? undefined : message
          }
          const request = asked.get(message.id ?? -1)
          if (request === undefined || message.error !== undefined) return message
          asked.delete(request.id)
          if (request.method === "eth_subscribe") kinds.set(String(message.result), String(request.params[0]))
          const { answer } = proxy.changes
          return answer ? { ...message, result: answer(request, message.result) } : message
        }

        client.on("message", (data: Buffer) => {
          const frame = JSON.parse(data.toString()) as Request | ReadonlyArray<Request>
          const refusals = [frame].flat().flatMap((request) => refuseOrRecord(request as Request) ?? [])
          // A batch is refused completely or not at all, because tests refuse all requests of a method.
          if (refusals.length === 0) return send(data.toString())
          return client.send(JSON.stringify(isBatch(frame) ? refusals : refusals[0]))
        })
        upstream.on("message", (data: Buffer) => {
          const frame = JSON.parse(data.toString()) as Message | ReadonlyArray<Message>
          const messages = [frame].flat().flatMap((message) => changed(message as Message) ?? [])
          if (messages.length > 0) client.send(JSON.stringify(isBatch(frame) ? messages : messages[0]))
        })
      }

      server.on("connection", connect)
      server.on("listening", () => {
        proxy.url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
        resume(Effect.succeed(proxy))
      })
    }),
    ({ server, cut }) =>
      Effect.sync(() => {
        cut()
        server.close()
      }),
  )
