/**
 * Encodes the logs of a push as one script argument in MessagePack, which Redis decodes in C. Each log is its index,
 * transaction hash, contract, topics (a JSON array), data and transaction index, all of them strings.
 *
 * Logs are hexadecimal at this point, so one character is one byte.
 */
import type { Block, Log } from "../../Domain.ts"

/** The maximum size of a log's two numbers, brackets and string headers. */
const textOverhead = 64

/** The overhead of a topic in a JSON array: two quotes and a comma. */
const topicOverhead = 3

/** The maximum size of a log in a push, in bytes. */
export const sizeOf = ({ txHash, contract, topics, data }: Log): number => {
  let size = textOverhead + txHash.length + contract.length + data.length
  for (const topic of topics) size += topic.length + topicOverhead
  return size
}

/** Writes a string header. Returns the offset of the string itself. */
const writeLength = (to: Buffer, at: number, length: number): number => {
  if (length < 32) {
    to[at] = 0xa0 | length
    return at + 1
  }
  if (length < 0x100) {
    to[at] = 0xd9
    to[at + 1] = length
    return at + 2
  }
  if (length < 0x10000) {
    to[at] = 0xda
    return to.writeUInt16BE(length, at + 1)
  }
  to[at] = 0xdb
  return to.writeUInt32BE(length, at + 1)
}

const writeText = (to: Buffer, at: number, text: string): number => {
  const from = writeLength(to, at, text.length)
  return from + to.write(text, from, "latin1")
}

const [quote, comma, open, close] = Buffer.from('",[]') as unknown as readonly [
  number,
  number,
  number,
  number,
]

const writeTopics = (to: Buffer, at: number, topics: ReadonlyArray<string>): number => {
  let length = topics.length === 0 ? 2 : 1
  for (const topic of topics) length += topic.length + topicOverhead
  at = writeLength(to, at, length)
  to[at++] = open
  for (let i = 0; i < topics.length; i++) {
    if (i > 0) to[at++] = comma
    to[at++] = quote
    at += to.write(topics[i]!, at, "latin1")
    to[at++] = quote
  }
  to[at++] = close
  return at
}

/** Encodes the logs of these blocks, one after the other. */
export const pack = (blocks: ReadonlyArray<Pick<Block, "logs">>): Buffer => {
  let size = 0
  for (const { logs } of blocks) for (const log of logs) size += sizeOf(log)
  const to = Buffer.allocUnsafeSlow(size)
  let at = 0
  for (const { logs } of blocks) {
    for (const { index, txHash, contract, topics, data, txIndex } of logs) {
      at = writeText(to, at, String(index))
      at = writeText(to, at, txHash)
      at = writeText(to, at, contract)
      at = writeTopics(to, at, topics)
      at = writeText(to, at, data)
      at = writeText(to, at, String(txIndex))
    }
  }
  return to.subarray(0, at)
}
