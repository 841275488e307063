/** Divides blocks into pushes within the limits of a call. */
import { createHash } from "node:crypto"
import type { Hash } from "node:crypto"
import type { Block, Log } from "../Domain.ts"
import { freeItems } from "../Memory.ts"
import { afterPush, callLimits, logsWritten } from "./Journal.ts"
import type { BlockChunk, CallLimits, Position, Push } from "./Journal.ts"
import { sizerOf } from "./redis/MessagePack.ts"

/** Adds logs to a running digest, which does not depend on how they are divided into calls. */
const addLogs = (hash: Hash, logs: ReadonlyArray<Log>): Hash => {
  for (const { index, txHash, contract, topics, data } of logs)
    hash.update(`${index} ${txHash} ${contract} ${topics.join()} ${data}\n`)
  return hash
}

const valueOf = (hash: Hash): string => hash.copy().digest("hex").slice(0, 32)

/** The digest of the first `count` logs of a block, as in `Position.digest`. */
export const digestOfPart = ({ logs }: Pick<Block, "logs">, count: number): string =>
  valueOf(addLogs(createHash("sha256"), logs.slice(0, count)))

/** Where the chunk that begins at `from` ends: at least one log later. */
const endOfPart = (block: Block, from: number, limits: CallLimits): number => {
  const { logs } = block
  const sizeOf = sizerOf(block)
  let end = from + 1
  let bytes = sizeOf(logs[from]!)
  while (end < logs.length && end - from < limits.logs) {
    bytes += sizeOf(logs[end]!)
    if (bytes > limits.bytes) break
    end++
  }
  return end
}

/** Divides blocks into calls within the limits, in order. A block that exceeds them gets calls of its own. */
export const pushes = function* (
  expected: Position,
  blocks: Iterable<Block>,
  final: boolean,
  limits: CallLimits = callLimits,
): Generator<Push, void, undefined> {
  let position = expected
  let batch: Array<BlockChunk> = []
  let logs = 0
  let bytes = 0
  const call = (blocks: ReadonlyArray<BlockChunk>): Push => {
    const push: Push = { _tag: "Push", expected: position, blocks: blocks as Push["blocks"], final }
    position = afterPush(push)
    return push
  }
  for (const block of blocks) {
    const done = logsWritten(position, block)
    const count = block.logs.length
    let size = 0
    const sizeOf = sizerOf(block)
    for (const log of block.logs) size += sizeOf(log)
    const isFull = batch.length === limits.blocks || logs + count > limits.logs || bytes + size > limits.bytes
    if (batch.length > 0 && isFull) {
      yield call(batch)
      batch = []
      logs = bytes = 0
    }
    if (done === 0 && (count <= 1 || (count <= limits.logs && size <= limits.bytes))) {
      batch.push({ ...block, whole: true })
      logs += count
      bytes += size
      continue
    }
    const digest = addLogs(createHash("sha256"), block.logs.slice(0, done))
    for (let from = done; from < count;) {
      const end = endOfPart(block, from, limits)
      const part = block.logs.slice(from, end)
      addLogs(digest, part)
      const whole = end === count
      yield call([{ ...block, logs: part, whole, ...(!whole && { digest: valueOf(digest) }) }])
      from = end
    }
  }
  if (batch.length > 0) yield call(batch)
}

/**
 * Frees the logs of a push that the store has acknowledged. Nothing reads them any more.
 *
 * They would be collected anyway, but late. Fibers and scopes are kept in Maps and Sets that change all the time, and V8
 * links each outgrown hash table to its successor: once one table is in the old generation, everything that any of them
 * ever referenced, including finished fibers with all their blocks, survives every young-generation collection. Without
 * this function an event costs a third more CPU.
 */
export const freeLogs = ({ blocks }: Push): void => {
  for (const { logs } of blocks) freeItems(logs)
}
