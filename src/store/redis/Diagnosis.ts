/**
 * Finds out why a connection to Redis closes at once: only one side speaks TLS, the client certificate is missing, or the
 * server refuses for a reason of its own. The Redis client reports only that the connection is closed.
 */
import { connect } from "node:net"
import type { Socket } from "node:net"
import { connect as connectTls } from "node:tls"
import type { ConnectionOptions } from "node:tls"
import type { RedisConfig } from "../../config/AppConfig.ts"
import type { StoreReason } from "../StoreError.ts"

/** The timeout of one attempt (milliseconds). */
const timeoutMillis = 300

/** Whether an error says only that the connection ended. A plain server waits for more input after a TLS handshake begins. */
export const isVague = (reason: StoreReason, detail: string, { tls }: RedisConfig): boolean =>
  /EPIPE|ECONNRESET|Connection is closed|Protocol error, got|socket disconnected/.test(detail) ||
  (tls && reason === "timeout")

/** Sends a PING over one kind of socket. Returns the answer, or the error of the socket. */
const ping = (socket: Socket, opened: "connect" | "secureConnect") =>
  new Promise<{ readonly answer?: string; readonly error?: string; readonly opened?: boolean }>((resolve) => {
    let answer = ""
    let isOpen = false
    const end = (error?: Error) => {
      clearTimeout(timer)
      resolve({
        opened: isOpen,
        ...(answer !== "" && { answer: answer.split("\r\n")[0]! }),
        ...(error && { error: error.message }),
      })
      socket.destroy()
    }
    const timer = setTimeout(end, timeoutMillis)
    socket.once(opened, () => {
      isOpen = true
      socket.write("PING\r\n")
    })
    socket.on("data", (data) => {
      answer += data.toString("latin1")
      if (answer.includes("\r\n")) end()
    })
    socket.on("error", end)
    socket.once("close", () => end())
  })

/** An explanation that says more than "closed", or `undefined`. Connects to the first of the nodes. */
export const diagnose = async (
  config: RedisConfig,
  tls: ConnectionOptions,
  reason: StoreReason,
): Promise<string | undefined> => {
  const { host, port } = config.nodes[0]!
  const plain = await ping(connect({ host, port }), "connect")
  // "+PONG", or a Redis error.
  const greeting = /^[+-]([A-Z]+.*)$/.exec(plain.answer ?? "")
  if (config.tls) {
    if (greeting)
      return "the server speaks without TLS at this port: set redis:// in REDIS_URL, or its TLS port"
    // A server that did not answer within the timeout may be frozen: no second attempt.
    if (reason === "timeout") return undefined
    const { error } = await ping(connectTls({ host, port, ...tls }), "secureConnect")
    return error !== undefined && /alert|certificate/.test(error) ? error : undefined
  }
  // This PING sent no password, so NOAUTH explains nothing.
  if (greeting)
    return greeting[0].startsWith("-") && greeting[1] !== undefined && !greeting[1].startsWith("NOAUTH")
      ? greeting[1]
      : undefined
  if (!plain.opened) return undefined
  const secure = await ping(connectTls({ host, port, rejectUnauthorized: false }), "secureConnect")
  const isTls = secure.opened || /alert/.test(secure.error ?? "")
  return isTls ? "the server speaks TLS at this port: set rediss:// in REDIS_URL" : undefined
}
