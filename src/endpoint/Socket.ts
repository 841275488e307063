/**
 * Text frames to and from one URL. Only this file uses sockets; everything above it also runs on a transport without
 * sockets, as in tests.
 */
import { Context, Duration, Effect, Layer, Redacted } from "effect"
import type { Scope } from "effect"
import { FetchHttpClient } from "effect/http"
import { WebSocket } from "ws"
import { takeText } from "../Memory.ts"
import { Disconnected } from "./EndpointError.ts"

export interface Listener {
  readonly onText: (text: string) => void
  readonly onPong: () => void
  /** A frame was larger than `maxPayload`; the link is closed. */
  readonly onOversized: () => void
  /** The link was closed by the server or the network. Called at most once, and not after a local close. */
  readonly onClosed: (why: string, code?: number) => void
}

export interface Link {
  readonly send: (text: string) => void
  readonly ping: () => void
}

export interface ConnectOptions {
  readonly url: Redacted.Redacted<string>
  readonly timeout: Duration.Duration
  /** Bytes; a larger frame ends the connection. */
  readonly maxPayload: number
}

export class Transport extends Context.Service<
  Transport,
  {
    /** Opens a link that lives as long as the scope. */
    readonly connect: (
      options: ConnectOptions,
      listener: Listener,
    ) => Effect.Effect<Link, Disconnected, Scope.Scope>
  }
>()("event-ingestor/endpoint/Transport") {
  /** WebSockets by `ws`: no redirects; no compression, which costs more CPU than it saves on hexadecimal text. */
  static readonly layerWebSocket = Layer.succeed(this, {
    connect: (options, listener) => connect(options, listener),
  })

  /** WebSockets, and HTTP by `fetch`, also without redirects: a key in a URL must not reach another host. */
  static readonly layerNetwork = Layer.merge(
    this.layerWebSocket,
    FetchHttpClient.layer.pipe(
      Layer.provide(Layer.succeed(FetchHttpClient.RequestInit, { redirect: "error" })),
    ),
  )
}

/** How long the server may take to answer a close frame (milliseconds). */
const closeGrace = 1000

const close = (socket: WebSocket) => {
  socket.removeAllListeners()
  socket.on("error", () => {})
  if (socket.readyState !== WebSocket.OPEN) return socket.terminate()
  socket.close(1000)
  return void setTimeout(() => socket.terminate(), closeGrace).unref()
}

const connect = (options: ConnectOptions, listener: Listener) =>
  Effect.acquireRelease(
    Effect.callback<WebSocket, Disconnected>((resume) => {
      const socket = new WebSocket(Redacted.value(options.url), {
        handshakeTimeout: Duration.toMillis(options.timeout),
        maxPayload: options.maxPayload,
        perMessageDeflate: false,
        followRedirects: false,
      })
      let errorText = "closed during the handshake"
      socket.on("error", (error: NodeJS.ErrnoException) => {
        if (error.code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH") listener.onOversized()
        errorText = error.message
      })
      socket.on("close", () => resume(Effect.fail(new Disconnected({ detail: errorText }))))
      // Attaches listeners synchronously, before the first frame can arrive.
      socket.on("open", () => {
        socket.removeAllListeners("close")
        // Some providers send text in binary frames.
        socket.on("message", (data) => listener.onText(takeText(data as Buffer)))
        socket.on("pong", listener.onPong)
        socket.on("close", (code, reason) => {
          const text = reason.toString()
          const how = errorText === "" ? "closed" : errorText
          listener.onClosed(`${how} with code ${code}${text ? ` ${text}` : ""}`, code)
        })
        errorText = ""
        resume(Effect.succeed(socket))
      })
      return Effect.sync(() => close(socket))
    }),
    (socket) => Effect.sync(() => close(socket)),
    { interruptible: true },
  ).pipe(
    Effect.map((socket): Link => ({
      send: (text) => socket.send(text, () => {}),
      ping: () => socket.ping(undefined, true),
    })),
  )
