/** A chain in memory that grows, forks and shrinks on command. Its blooms are real, its hashes are arbitrary. */
import type { Block, Header, Hex, Log } from "../../src/Domain.ts"
import { bloomOf } from "../../src/logs/Bloom.ts"
import { hash, log } from "./blocks.ts"

export interface FakeBlock {
  readonly header: Header
  readonly logs: ReadonlyArray<Log>
}

export const zeroHash: Hex = `0x${"0".repeat(64)}`

export class FakeChain {
  readonly id: number
  /** Distance of the finalized block from the head. */
  finality: number
  /** Seconds between two blocks. */
  blockTime: number
  /** One block time before block 0 (unix seconds). */
  readonly #began: number
  /** Difference of consecutive log indexes: above 1 on chains with index gaps. */
  readonly #stride: number
  /** Whether headers have computed blooms; `false` as on some layer 2 chains. */
  blooms = true
  /** The contracts that emit a block's logs in turn. By default each log has its own contract. */
  readonly #contracts: ReadonlyArray<Hex>
  /** The logs that a block's logs repeat in turn, by their topics and data. By default they are arbitrary. */
  readonly #logs: ReadonlyArray<Pick<Log, "topics" | "data">>
  /** State shared by all views: every block ever created, and the finalized height, which no view may revert. */
  readonly #shared: { readonly byHash: Map<Hex, FakeBlock>; serial: number; highestFinal: number }
  /** Heights without a block are `undefined`; the last one has a block. */
  #canonical: Array<FakeBlock | undefined> = []
  readonly #listeners = new Set<(header: Header) => void>()

  constructor(
    options: {
      readonly id?: number
      readonly finality?: number
      readonly blockTime?: number
      readonly began?: number
      readonly stride?: number
      readonly contracts?: ReadonlyArray<Hex>
      readonly logs?: ReadonlyArray<Pick<Log, "topics" | "data">>
    } = {},
    /** The chain that this is a view of. */
    of?: FakeChain,
  ) {
    this.#shared = of ? of.#shared : { byHash: new Map(), serial: 0, highestFinal: 0 }
    this.id = options.id ?? 31337
    this.finality = options.finality ?? 64
    this.blockTime = options.blockTime ?? 12
    this.#began = options.began ?? 1_700_000_000
    this.#stride = options.stride ?? 1
    this.#contracts = options.contracts ?? []
    this.#logs = options.logs ?? []
    if (of) this.#canonical = [...of.#canonical]
    else this.#append(0)
  }

  /** Another view of this chain, in which other blocks replace the last `depth` ones, with these numbers of logs. */
  branch(depth: number, ...logs: ReadonlyArray<number>): FakeChain {
    const view = new FakeChain(
      {
        id: this.id,
        finality: this.finality,
        blockTime: this.blockTime,
        began: this.#began,
        stride: this.#stride,
        contracts: this.#contracts,
        logs: this.#logs,
      },
      this,
    )
    view.blooms = this.blooms
    view.fork(depth, ...logs)
    return view
  }

  get head(): Header {
    return this.#canonical.at(-1)!.header
  }

  /** The finalized block. Never moves down, even when the chain becomes shorter. */
  get final(): Header {
    this.#shared.highestFinal = Math.max(this.#shared.highestFinal, this.head.number - this.finality)
    return this.highestUpTo(this.#shared.highestFinal).header
  }

  at(number: number): FakeBlock | undefined {
    return this.#canonical[number]
  }

  /** The block at a height, or the next one below if that height has no block. */
  highestUpTo(height: number): FakeBlock {
    let number = Math.min(height, this.#canonical.length - 1)
    while (this.#canonical[number] === undefined) number--
    return this.#canonical[number]!
  }

  byHash(hash: Hex): FakeBlock | undefined {
    return this.#shared.byHash.get(hash)
  }

  isCanonical({ header }: FakeBlock): boolean {
    return this.#canonical[header.number]?.header.hash === header.hash
  }

  /** The canonical blocks `from … to`, as they are stored. */
  blocks(from = 0, to = this.head.number): ReadonlyArray<Block> {
    return this.#canonical.slice(from, to + 1).flatMap((block) => {
      if (block === undefined) return []
      const { number, hash, parentHash, timestamp } = block.header
      return [{ number, hash, parentHash, timestamp, logs: block.logs }]
    })
  }

  /** Calls back for each head that a correct node announces. Returns a function that stops it. */
  listen(listener: (header: Header) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Adds blocks with these numbers of logs and announces each. */
  extend(...logs: ReadonlyArray<number>): void {
    for (const count of logs) {
      this.#append(count)
      this.#announce()
    }
  }

  /** Adds blocks and announces only the last, as geth does when several become canonical at once. */
  jump(...logs: ReadonlyArray<number>): void {
    for (const count of logs) this.#append(count)
    this.#announce()
  }

  /** Leaves these many heights without a block, as Filecoin's null rounds do, and adds a block above them. */
  addNullHeights(heights: number, logs: number): void {
    this.#canonical.length += heights
    this.extend(logs)
  }

  /** Drops the last `depth` heights without an announcement. */
  rollback(depth: number): void {
    const keep = Math.max(this.#canonical.length - depth, this.final.number + 1)
    this.#canonical.length = this.highestUpTo(keep - 1).header.number + 1
  }

  /** Drops the last `depth` blocks even if they are finalized, as `evm_revert` of development nodes does. */
  revert(depth: number): void {
    this.#canonical = this.#canonical.slice(0, -depth)
    this.#shared.highestFinal = Math.max(this.head.number - this.finality, 0)
  }

  /** Replaces the last `depth` blocks by new ones with these numbers of logs, and announces the last one. */
  fork(depth: number, ...logs: ReadonlyArray<number>): void {
    this.rollback(depth)
    this.jump(...logs)
  }

  #append(count: number): void {
    const parent = this.#canonical.findLast((block) => block !== undefined)?.header
    const number = this.#canonical.length
    const self = hash("fake", this.id, this.#shared.serial++)
    const logs = Array.from({ length: count }, (_, i): Log => {
      const contract = this.#contracts[i % this.#contracts.length]
      const index = i * this.#stride
      return { ...log(self, i), index, ...(contract && { contract }), ...this.#logs[i % this.#logs.length] }
    })
    const block: FakeBlock = {
      header: {
        number,
        hash: self,
        parentHash: parent?.hash ?? zeroHash,
        timestamp: this.#began + Math.floor((number + 1) * this.blockTime),
        logsBloom: this.blooms ? bloomOf(logs) : bloomOf([]),
        executed: count > 0,
      },
      logs,
    }
    this.#shared.byHash.set(self, block)
    this.#canonical.push(block)
    // Updates the shared finalized height, so that no other view reverts a block that is finalized in this one.
    void this.final
  }

  #announce(): void {
    for (const listener of this.#listeners) listener(this.head)
  }
}
