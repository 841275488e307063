/** HTTP clients: a proper one, and raw sockets. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { request } from "node:http"
import type { IncomingHttpHeaders } from "node:http"
import { connect } from "node:net"
import type { Socket } from "node:net"

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

export const fetchFrom = (
  port: number,
  path: string,
  options: { readonly method?: string; readonly headers?: Record<string, string> } = {},
): Effect.Effect<Answer, Error> =>
  Effect.callback((resume) => {
    const sent = request({ port, path, host: "127.0.0.1", agent: false, ...options }, (response) => {
      let text = ""
      response.on("data", (data: Buffer) => (text += data.toString()))
      // Without this, a response that is cut off would never end.
      response.on("error", (error) => resume(Effect.fail(error)))
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode!, headers: response.headers, text })),
      )
    })
    sent.on("error", (error) => resume(Effect.fail(error)))
    sent.end()
    return Effect.sync(() => sent.destroy())
  })

export const jsonFrom = (port: number, path: string) =>
  Effect.map(fetchFrom(port, path), ({ status, text }) => ({ status, body: JSON.parse(text) as never }))

/** A raw TCP connection. */
export const openSocket = (port: number): Effect.Effect<Socket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const socket = connect(port, "127.0.0.1")
      socket.on("error", () => {})
      socket.on("connect", () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.destroy()),
  )

/** Waits until the server has closed the connection, and returns what it sent. */
export const closed = (socket: Socket): Effect.Effect<string> =>
  Effect.callback((resume) => {
    let received = ""
    socket.on("data", (data: Buffer) => (received += data.toString()))
    if (socket.destroyed) resume(Effect.succeed(received))
    else socket.on("close", () => resume(Effect.succeed(received)))
    socket.resume()
  })
