/**
 * What a node's JSON means: quantities, headers, logs. Every field is checked before it goes anywhere; what does not fit
 * is `undefined` or a `Malformed` with the reason.
 *
 * `logsOf` runs once per log and is a plain loop for that reason.
 */
import { Predicate } from "effect"
import type { Header, Hex, Log } from "../Domain.ts"
import { Malformed } from "./EndpointError.ts"

/** Indexes above this are no indexes of anything real. */
const largestIndex = 0x7fffffff

const isHex = (text: unknown, digits: number): text is Hex =>
  typeof text === "string" && text.length === digits + 2 && /^0x[0-9a-fA-F]*$/.test(text)

/** A quantity (EIP-1474) that fits a safe integer. Leading zeros are let through: some nodes send them. */
export const quantity = (text: unknown): number | undefined => {
  if (typeof text !== "string" || !/^0x0{0,64}[0-9a-fA-F]{1,14}$/.test(text)) return undefined
  const value = Number.parseInt(text, 16)
  return Number.isSafeInteger(value) ? value : undefined
}

export const hex = (value: number): Hex => `0x${value.toString(16)}`

const index = (text: unknown): number | undefined => {
  const value = quantity(text)
  return value !== undefined && value <= largestIndex ? value : undefined
}

const lower = (text: Hex): Hex => text.toLowerCase() as Hex

/** A header as `newHeads` announces it or `eth_getBlockByNumber` answers it. */
export const headerOf = (value: unknown): Header | Malformed => {
  if (!Predicate.isObject(value)) return new Malformed({ detail: "a block header that is no object" })
  const { number, hash, parentHash, timestamp, logsBloom } = value as Record<string, unknown>
  const height = quantity(number)
  const time = quantity(timestamp)
  if (
    height === undefined ||
    time === undefined ||
    !isHex(hash, 64) ||
    !isHex(parentHash, 64) ||
    !isHex(logsBloom, 512)
  ) {
    return new Malformed({
      detail: "a block header without number, hash, parentHash, timestamp or logsBloom",
    })
  }
  return {
    number: height,
    hash: lower(hash),
    parentHash: lower(parentHash),
    timestamp: time,
    logsBloom: lower(logsBloom),
  }
}

/** A log together with the block it claims to be in. */
export interface PlacedLog extends Log {
  readonly blockNumber: number
  readonly blockHash: Hex
  /** Where the node sends it (not all do). */
  readonly blockTimestamp: number | undefined
  readonly removed: boolean
}

const bad = (position: number, what: string) =>
  new Malformed({ detail: `log ${position} of an answer has ${what}` })

/** The logs of an `eth_getLogs` answer. */
export const logsOf = (value: unknown): ReadonlyArray<PlacedLog> | Malformed => {
  if (!Array.isArray(value)) return new Malformed({ detail: "logs that are no array" })
  const logs: Array<PlacedLog> = []
  for (let i = 0; i < value.length; i++) {
    const raw: unknown = value[i]
    if (raw === null || typeof raw !== "object") return bad(i, "no fields")
    const {
      address,
      topics,
      data,
      blockNumber,
      blockHash,
      blockTimestamp,
      transactionHash,
      transactionIndex,
      logIndex,
      removed,
    } = raw as Record<string, unknown>
    const number = quantity(blockNumber)
    const logAt = index(logIndex)
    const txAt = index(transactionIndex)
    if (number === undefined || logAt === undefined || txAt === undefined)
      return bad(i, "a wrong number or index")
    if (!isHex(blockHash, 64) || !isHex(transactionHash, 64)) return bad(i, "a wrong hash")
    if (!isHex(address, 40)) return bad(i, "a wrong address")
    if (typeof data !== "string" || data.length % 2 !== 0 || !isHex(data, data.length - 2))
      return bad(i, "wrong data")
    if (!Array.isArray(topics) || topics.length > 4) return bad(i, "wrong topics")
    for (const topic of topics) if (!isHex(topic, 64)) return bad(i, "a wrong topic")
    if (removed !== undefined && typeof removed !== "boolean") return bad(i, "a wrong removed flag")
    logs.push({
      index: logAt,
      txIndex: txAt,
      txHash: lower(transactionHash),
      contract: lower(address),
      topics: (topics as ReadonlyArray<Hex>).map(lower),
      data: lower(data),
      blockNumber: number,
      blockHash: lower(blockHash),
      blockTimestamp: quantity(blockTimestamp),
      removed: removed === true,
    })
  }
  return logs
}
