/** Message boundaries on the wire: requests to Redis, and frames of a WebSocket server. */
import type { Cutter } from "./TcpProxy.ts"

const newline = Buffer.from("\r\n")

/** The words of a Redis request, and its end; `undefined` while it is incomplete. */
const requestIn = (
  data: Buffer,
): { readonly words: ReadonlyArray<Buffer>; readonly end: number } | undefined => {
  let at = 0
  const count = (): number | undefined => {
    const end = data.indexOf(newline, at)
    if (end === -1) return undefined
    const number = Number(data.toString("latin1", at + 1, end))
    at = end + newline.length
    return number
  }
  const length = count()
  if (length === undefined) return undefined
  const words: Array<Buffer> = []
  for (let i = 0; i < length; i++) {
    const bytes = count()
    if (bytes === undefined || data.length < at + bytes + newline.length) return undefined
    words.push(data.subarray(at, at + bytes))
    at += bytes + newline.length
  }
  return { words, end: at }
}

/** Collects bytes and returns the complete messages in them. */
abstract class Gathering implements Cutter {
  #rest: Buffer = Buffer.alloc(0)

  /** The end of the first message; `undefined` while it is incomplete. */
  protected abstract end(data: Buffer): number | undefined

  take(data: Buffer): ReadonlyArray<Buffer> {
    this.#rest = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data])
    const messages: Array<Buffer> = []
    for (;;) {
      const end = this.#rest.length === 0 ? undefined : this.end(this.#rest)
      if (end === undefined) return messages
      messages.push(this.#rest.subarray(0, end))
      this.#rest = this.#rest.subarray(end)
    }
  }
}

/** Requests to Redis, one by one. */
export class RedisRequests extends Gathering {
  protected end(data: Buffer): number | undefined {
    return requestIn(data)?.end
  }
}

/** The words of one complete request. */
export const wordsOf = (request: Buffer): ReadonlyArray<string> =>
  requestIn(request)?.words.map((word) => word.toString()) ?? []

/** Bytes before the payload of an unmasked frame, and of the payload. */
const sizesOf = (frame: Buffer): readonly [head: number, payload: number] | undefined => {
  const short = frame.length < 2 ? undefined : frame[1]! & 0x7f
  if (short === undefined) return undefined
  const head = short < 126 ? 2 : short === 126 ? 4 : 10
  if (frame.length < head) return undefined
  return [
    head,
    short < 126 ? short : short === 126 ? frame.readUInt16BE(2) : Number(frame.readBigUInt64BE(2)),
  ]
}

/** The handshake response of a WebSocket server, then its frames. */
export class WebSocketFrames extends Gathering {
  #open = false

  protected end(data: Buffer): number | undefined {
    if (!this.#open) {
      const end = data.indexOf("\r\n\r\n")
      if (end === -1) return undefined
      this.#open = true
      return end + 4
    }
    const sizes = sizesOf(data)
    return sizes !== undefined && data.length >= sizes[0] + sizes[1] ? sizes[0] + sizes[1] : undefined
  }
}

const text = 0x81

export const isTextFrame = (message: Buffer): boolean => message[0] === text

/** The text of a frame. */
export const textOf = (frame: Buffer): string => frame.toString("utf8", sizesOf(frame)![0])

/** The same frame with one byte of its payload replaced. */
export const withByte = (frame: Buffer, share: number, byte: number): Buffer => {
  const [head, payload] = sizesOf(frame)!
  const copy = Buffer.from(frame)
  copy[head + Math.floor(payload * share)] = byte
  return copy
}

/** The header of a text frame with this payload length. */
export const frameHead = (bytes: number): Buffer => {
  const head = Buffer.alloc(10)
  head[0] = text
  head[1] = 127
  head.writeBigUInt64BE(BigInt(bytes), 2)
  return head
}
