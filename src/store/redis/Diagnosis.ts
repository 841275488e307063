/**
 * Why a connection to Redis ends at once: TLS on one side only, no certificate of ours, or what the server said while we
 * spoke. The client tells then that the connection is closed, and nothing else.
 */
import { connect } from "node:net"
import type { Socket } from "node:net"
import { connect as connectTls } from "node:tls"
import type { ConnectionOptions } from "node:tls"
import type { RedisConfig } from "../../config/AppConfig.ts"
import type { StoreReason } from "../Store.ts"

/** Milliseconds that one look takes at most. */
const patience = 300

/** Whether an error says only that the connection ended. A plain server waits for the end of what TLS began to say. */
export const isVague = (reason: StoreReason, detail: string, { tls }: RedisConfig): boolean =>
  /EPIPE|ECONNRESET|Connection is closed|Protocol error, got|socket disconnected/.test(detail) ||
  (tls && reason === "timeout")

/** What comes back for a PING, in one way of speaking: an answer, or the error of the socket. */
const ask = (socket: Socket, opened: "connect" | "secureConnect") =>
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
    const timer = setTimeout(end, patience)
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

/** A sentence that says more than "closed", or `undefined`. The first of the nodes is asked. */
export const diagnose = async (
  config: RedisConfig,
  tls: ConnectionOptions,
  reason: StoreReason,
): Promise<string | undefined> => {
  const { host, port } = config.nodes[0]!
  const plain = await ask(connect({ host, port }), "connect")
  // "+PONG", or an error in words of Redis.
  const spoken = /^[+-]([A-Z]+.*)$/.exec(plain.answer ?? "")
  if (config.tls) {
    if (spoken)
      return "the server speaks without TLS at this port: set redis:// in REDIS_URL, or its TLS port"
    // A server that answers nothing to one way of speaking is not asked in the other: it may be frozen.
    if (reason === "timeout") return undefined
    const { error } = await ask(connectTls({ host, port, ...tls }), "secureConnect")
    return error !== undefined && /alert|certificate/.test(error) ? error : undefined
  }
  // Here no password was sent: that one is wanted says nothing.
  if (spoken)
    return spoken[0].startsWith("-") && spoken[1] !== undefined && !spoken[1].startsWith("NOAUTH")
      ? spoken[1]
      : undefined
  if (!plain.opened) return undefined
  const secure = await ask(connectTls({ host, port, rejectUnauthorized: false }), "secureConnect")
  const isTls = secure.opened || /alert/.test(secure.error ?? "")
  return isTls ? "the server speaks TLS at this port: set rediss:// in REDIS_URL" : undefined
}
