/** A TCP proxy that hurts the connections it carries. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { connect, createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"

export interface TcpProxy {
  readonly port: number
  /** Connections so far. */
  readonly accepted: () => number
  /** Cuts every connection. */
  readonly cut: () => void
  /** Cuts the next connection, or the present one, after so many more bytes from the target. */
  readonly cutAfter: (bytes: number) => void
}

/** A proxy in front of a local port, for as long as the scope lives. */
export const start = (target: number): Effect.Effect<TcpProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<TcpProxy & { readonly close: () => void }>((resume) => {
      const pairs = new Set<readonly [Socket, Socket]>()
      let accepted = 0
      let left = Infinity
      const end = (pair: readonly [Socket, Socket]) => {
        pairs.delete(pair)
        for (const socket of pair) socket.destroy()
      }
      const server = createServer((client) => {
        accepted++
        const upstream = connect(target, "127.0.0.1")
        const pair = [client, upstream] as const
        pairs.add(pair)
        for (const socket of pair) {
          socket.on("error", () => end(pair))
          socket.on("close", () => end(pair))
        }
        client.on("data", (data) => upstream.write(data))
        upstream.on("data", (data: Buffer) => {
          if (data.length <= left) {
            left -= data.length
            return void client.write(data)
          }
          const part = data.subarray(0, left)
          left = Infinity
          return void client.write(part, () => end(pair))
        })
      })
      const cut = () => {
        for (const pair of pairs) end(pair)
      }
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        const cutAfter = (bytes: number) => void (left = bytes)
        const close = () => {
          server.close()
          cut()
        }
        resume(Effect.succeed({ port, accepted: () => accepted, cut, cutAfter, close }))
      })
    }),
    ({ close }) => Effect.sync(close),
  )
