/**
 * Encodes the logs of a push as one script argument in MessagePack, which Redis decodes in C. Each log is its index,
 * transaction hash, contract, topics (a JSON array), data and transaction index, all of them strings; in decoded blocks event and
 * arguments follow. The hash is empty if it is that of the log before: Redis' Lua hashes each byte of each string, which is a
 * quarter of what a push costs there.
 *
 * Logs are hexadecimal at this point and arguments ASCII, so one character is one byte.
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

/** The maximum size of two string headers. */
const decodedOverhead = 10

const decodedSizeOf = (log: Log): number => {
  const { event = "", args = "" } = log
  return sizeOf(log) + decodedOverhead + event.length + args.length
}

/** The function that computes the size of this block's logs. */
export const sizerOf = ({ abi }: Pick<Block, "abi">): ((log: Log) => number) =>
  abi === undefined ? sizeOf : decodedSizeOf

/** Writes a string and its header. Returns the offset behind it. */
const writeText = (to: Buffer, at: number, text: string): number => {
  const { length } = text
  if (length < 32) at = to.writeUInt8(0xa0 | length, at)
  else if (length < 0x100) at = to.writeUInt16BE(0xd900 | length, at)
  else if (length < 0x10000) at = to.writeUInt16BE(length, to.writeUInt8(0xda, at))
  else at = to.writeUInt32BE(length, to.writeUInt8(0xdb, at))
  return at + to.write(text, at, "latin1")
}

/** Encodes the logs of these blocks, one after the other. */
export const pack = (blocks: ReadonlyArray<Pick<Block, "logs" | "abi">>): Buffer => {
  let size = 0
  for (const block of blocks) {
    const sizeOf = sizerOf(block)
    for (const log of block.logs) size += sizeOf(log)
  }
  const to = Buffer.allocUnsafeSlow(size)
  let at = 0
  let txHashBefore = ""
  for (const { logs, abi } of blocks) {
    for (const log of logs) {
      const { index, txHash, contract, topics, data, txIndex } = log
      at = writeText(to, at, String(index))
      at = writeText(to, at, txHash === txHashBefore ? "" : txHash)
      txHashBefore = txHash
      at = writeText(to, at, contract)
      at = writeText(to, at, JSON.stringify(topics))
      at = writeText(to, at, data)
      at = writeText(to, at, String(txIndex))
      if (abi === undefined) continue
      at = writeText(to, at, log.event ?? "")
      at = writeText(to, at, log.args ?? "")
    }
  }
  return to.subarray(0, at)
}
