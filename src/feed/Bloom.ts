/**
 * A header's `logsBloom`: 2048 bits of which each address and topic in the block's logs sets three (yellow paper,
 * section 4.3.1). It can prove that a block has no matching log, and that an answer is not all of a block's logs.
 */
import { createKeccak } from "hash-wasm"
import type { Hex, Log } from "../Domain.ts"

/** The three bits of an address or topic, in the yellow paper's numbering. */
type Bits = readonly [number, number, number]

const keccak = await createKeccak(256)

/** Addresses and topics repeat from block to block; the cache is emptied when it is full. */
const largestCache = 20_000
const cache = new Map<Hex, Bits>()

const bitsOf = (word: Hex): Bits => {
  const known = cache.get(word)
  if (known !== undefined) return known
  const hash = keccak
    .init()
    .update(Buffer.from(word.slice(2), "hex"))
    .digest("binary")
  const bit = (at: number) => ((hash[at]! & 7) << 8) | hash[at + 1]!
  const bits: Bits = [bit(0), bit(2), bit(4)]
  if (cache.size >= largestCache) cache.clear()
  cache.set(word, bits)
  return bits
}

const empty: Hex = `0x${"0".repeat(512)}`

/** A bloom of no logs, to be added to. */
export const emptyBloom = (): Buffer => Buffer.alloc(256)

export const toHex = (bloom: Buffer): Hex => `0x${bloom.toString("hex")}`

/** Sets the bits of a log. */
export const addTo = (bloom: Buffer, { contract, topics }: Pick<Log, "contract" | "topics">): void => {
  const add = (word: Hex) => {
    for (const bit of bitsOf(word)) bloom[255 - (bit >> 3)]! |= 1 << (bit & 7)
  }
  add(contract)
  for (const topic of topics) add(topic)
}

/** All zero: no logs, or on chains that do not compute blooms nothing at all. */
export const isZero = (bloom: Hex): boolean => bloom === empty

/** The bloom of exactly these logs. */
export const bloomOf = (logs: ReadonlyArray<Pick<Log, "contract" | "topics">>): Hex => {
  const bloom = emptyBloom()
  for (const log of logs) addTo(bloom, log)
  return toHex(bloom)
}

/** Whether all three bits of a word are set. */
const mayHold = (bloom: Hex, word: Hex): boolean =>
  bitsOf(word).every((bit) => {
    const digit = Number.parseInt(bloom[513 - (bit >> 2)]!, 16)
    return (digit & (1 << (bit & 3))) !== 0
  })

/**
 * Whether a block with this bloom may hold a matching log: any of the addresses, and at each position any of the topics.
 */
export const mayMatch = (
  bloom: Hex,
  addresses: ReadonlyArray<Hex>,
  topics: ReadonlyArray<ReadonlyArray<Hex> | null>,
): boolean => {
  if (isZero(bloom)) return false
  const holdsOneOf = (words: ReadonlyArray<Hex> | null) =>
    words === null || words.length === 0 || words.some((word) => mayHold(bloom, word))
  return holdsOneOf(addresses) && topics.every(holdsOneOf)
}
