/** Compares a journal with the current logs of a node. */
import { Effect, Stream } from "effect"
import type { Block, ChainId, Entry, Filter, Hex, Log } from "../Domain.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import { blockRanges } from "../chain/ForkChoice.ts"
import { mostRecorded } from "../chain/Finality.ts"
import { digest, Replay } from "../store/Replay.ts"
import type { Entries } from "../store/Entries.ts"

/** Blocks per `eth_getLogs` request. */
const width = 200

interface ReplayOptions {
  /** The id after which to start; `undefined`: at the oldest entry. */
  readonly after?: string | undefined
  /** Entries to skip: those of a previous journal. */
  readonly skip?: number
  /** Whether the next entry is the first of the journal. */
  readonly fromTheBeginning?: boolean
  /** Evaluated after each page: whether the rest of the journal can be ignored. */
  readonly isEnough?: (replay: Replay) => boolean
}

/** Replays a journal from the store. */
export const replay = Effect.fnUntraced(function* (
  entries: Pick<Entries["Service"], "after">,
  chain: ChainId,
  { after, skip = 0, fromTheBeginning = after === undefined, isEnough = () => false }: ReplayOptions = {},
) {
  const replay = new Replay(fromTheBeginning)
  yield* entries.after(chain, after).pipe(
    Stream.drop(skip),
    Stream.mapArray((page) => {
      for (const stored of page) replay.apply(stored)
      return [isEnough(replay)]
    }),
    Stream.takeUntil((enough) => enough),
    Stream.runDrain,
  )
  return replay
})

/**
 * An upper bound of the reorg window, in blocks with logs: `mostRecorded`, plus the blocks added while a finalization is
 * pending.
 */
const deepestReorg = 2 * mostRecorded

/**
 * Whether no later entry of a journal can retract the blocks up to `to`.
 *
 * It is not enough that `to` is final by now, nor that an entry is above the final block: later entries may have been
 * written before the finalization and retract both. But blocks that have left the reorg window are never retracted.
 *
 * @param depth the number of blocks with logs above a block that put it beyond any reorg
 */
export const isBeyondReorgs = ({ blocks }: Replay, to: number, depth = deepestReorg): boolean =>
  (blocks.at(-depth)?.number ?? -1) > to

/**
 * Diffs the blocks of a node, one by one, against the blocks `from … to` of a replayed journal. A log's identity is
 * `block hash:log index`.
 */
export class Diff {
  /** The number of logs on the node. */
  logs = 0
  /** The number of logs that the journal lacks because its oldest entries were trimmed. */
  trimmed = 0
  /** Identities of logs that only the node has. */
  readonly missing: Array<string> = []
  /** Identities of logs that both have with different contents. */
  readonly different: Array<string> = []
  readonly #lowest: Entry | undefined
  readonly #someTrimmed: boolean
  readonly #ours = new Map<string, string>()
  /** Whether some logs of the lowest stored block were trimmed. */
  #bottomTrimmed = false

  /**
   * @param someTrimmed whether older entries were trimmed and the journal was replayed from its oldest entry: then logs
   *   below that entry are not missing
   */
  constructor({ blocks, lowest }: Replay, from: number, to: number, someTrimmed: boolean) {
    this.#lowest = lowest
    this.#someTrimmed = someTrimmed
    for (const { number, hash, logs } of blocks) {
      if (number < from || number > to) continue
      for (const { index, digest } of logs) this.#ours.set(`${hash}:${index}`, digest)
    }
  }

  /** Identities of logs that only the journal has. */
  get extra(): ReadonlyArray<string> {
    return [...this.#ours.keys()]
  }

  /** Adds a block of the node, or some logs of a block. */
  add({ number, hash, logs }: Pick<Block, "number" | "hash" | "logs">): void {
    for (const log of logs) {
      this.logs++
      const id = `${hash}:${log.index}`
      const known = this.#ours.get(id)
      if (known !== undefined) {
        if (known !== digestOf(number, log)) this.different.push(id)
        this.#ours.delete(id)
      } else if (this.#isTrimmed(number, hash, log.index)) {
        this.trimmed++
        this.#bottomTrimmed ||= number === Number(this.#lowest?.block_number)
      } else this.missing.push(id)
    }
  }

  /**
   * The first block, at or above `from`, from which on no log was trimmed.
   *
   * @param from the first compared block
   */
  firstComplete(from: number): number {
    if (this.trimmed === 0 || this.#lowest === undefined) return from
    return Number(this.#lowest.block_number) + (this.#bottomTrimmed ? 1 : 0)
  }

  /** Logs above the oldest entry were written after it, so that they cannot have been trimmed. */
  #isTrimmed(number: number, hash: Hex, index: number): boolean {
    if (!this.#someTrimmed || this.#lowest === undefined) return false
    const { block_number, block_hash, log_index } = this.#lowest
    return number < Number(block_number) || (hash === block_hash && index < Number(log_index))
  }
}

/** The digest of a log in the block at this height. */
export const digestOf = (number: number, log: Log): string =>
  digest({
    block_number: String(number),
    tx_hash: log.txHash,
    contract: log.contract,
    topics: JSON.stringify(log.topics),
    data: log.data,
    tx_index: String(log.txIndex),
  })

/**
 * Diffs the blocks `from … to` of a replayed journal against plain `eth_getLogs`, for nodes without limits. Independent of
 * the code that ingests logs.
 *
 * @param someTrimmed see `Diff`
 */
export const compare = Effect.fnUntraced(function* (
  replay: Replay,
  node: RpcClient,
  chain: { readonly id: ChainId; readonly filter: Filter },
  from: number,
  to: number,
  someTrimmed = false,
) {
  const diff = new Diff(replay, from, to, someTrimmed)
  for (const [start, end] of blockRanges(from, to, () => width)) {
    const logs = yield* Eth.logs(node, chain.filter, { from: start, to: end })
    for (const log of logs) diff.add({ number: log.blockNumber, hash: log.blockHash, logs: [log] })
  }
  return diff
})
