/** Generated blocks: the same arguments give the same block. */
import { createHash } from "node:crypto"
import type { Block, Hex, Log } from "../../src/Domain.ts"

export const hash = (...words: ReadonlyArray<string | number>): Hex =>
  `0x${createHash("sha256").update(words.join("/")).digest("hex")}`

export const log = (block: Hex, index: number): Log => ({
  index,
  txIndex: Math.floor(index / 3),
  txHash: hash(block, "tx", Math.floor(index / 3)),
  contract: hash(block, "contract", index % 5).slice(0, 42) as Hex,
  topics: Array.from({ length: index % 5 }, (_, i) => hash(block, index, "topic", i)),
  data: hash(block, index, "data"),
})

/** Block `number` of the chain named `fork`, by default on top of that chain's previous block. */
export const block = (number: number, fork: string, logs: number, parent?: Hex): Block => {
  const self = hash(fork, number)
  return {
    number,
    hash: self,
    parentHash: parent ?? hash(fork, number - 1),
    timestamp: 1_700_000_000 + number,
    logs: Array.from({ length: logs }, (_, i) => log(self, i)),
  }
}

/** A linked run of blocks with the given numbers of logs. */
export const blocks = (
  from: number,
  fork: string,
  logs: ReadonlyArray<number>,
  parent?: Hex,
): ReadonlyArray<Block> => logs.map((count, i) => block(from + i, fork, count, i === 0 ? parent : undefined))
