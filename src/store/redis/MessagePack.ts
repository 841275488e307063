/**
 * The logs of a push as one argument of its script, in MessagePack, which Redis unpacks in C: for each log its index,
 * transaction hash, contract, topics (a JSON array), data and transaction index, all of them texts.
 *
 * A log is hexadecimal when it gets here, so a character is a byte.
 */
import type { Block, Log } from "../../Domain.ts"

/** The most that the two numbers, the brackets and the lengths of all texts of a log take. */
const besideTexts = 64

/** What a topic takes in a JSON array: quotes and a comma beside itself. */
const besideTopic = 3

/** The most bytes that a log takes in a push. */
export const sizeOf = ({ txHash, contract, topics, data }: Log): number => {
  let size = besideTexts + txHash.length + contract.length + data.length
  for (const topic of topics) size += topic.length + besideTopic
  return size
}

/** Writes the length of a text, and answers where the text goes. */
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
  for (const topic of topics) length += topic.length + besideTopic
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

/** The logs of these blocks, one after the other. */
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
