/** Compares what a journal holds with what a node says now. */
import { Effect } from "effect"
import type { Block, ChainId, Filter, Hex, Log } from "../Domain.ts"
import { hex, logsOf } from "../endpoint/Decode.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import { orMalformed } from "../endpoint/EndpointError.ts"
import { blockRanges } from "../chain/ForkChoice.ts"
import { logParams } from "../logs/Filter.ts"
import { mostRecorded } from "../chain/Finality.ts"
import { digest, Replay } from "../store/Replay.ts"
import type { Store } from "../store/Store.ts"

export interface Comparison {
  /** Logs of the node. */
  readonly logs: number
  /** Identities (`block hash:log index`) that the node has and the journal lacks, … */
  readonly missing: ReadonlyArray<string>
  /** … lacks because its oldest entries were trimmed, … */
  readonly trimmed: number
  /** … that only the journal has, … */
  readonly extra: ReadonlyArray<string>
  /** … and that both have with other contents. */
  readonly different: ReadonlyArray<string>
}

/** Blocks that are asked for at once. */
const width = 200

const pageSize = 1000

export interface ReplayOptions {
  /** The id after which to begin; `undefined`: at the oldest entry. */
  readonly after?: string | undefined
  /** Entries to pass over, which are not of this journal. */
  readonly skip?: number
  /** Whether what follows is the first entry of the journal. */
  readonly fromTheBeginning?: boolean
  /** Asked after each page: whether what follows does not matter. */
  readonly isEnough?: (replay: Replay) => boolean
}

/** Replays a journal. */
export const replay = Effect.fnUntraced(function* (
  store: Pick<Store["Service"], "read">,
  chain: ChainId,
  { after, skip = 0, fromTheBeginning = after === undefined, isEnough = () => false }: ReplayOptions = {},
) {
  const replay = new Replay(fromTheBeginning)
  let last = after
  let left = skip
  for (;;) {
    const page = yield* store.read(chain, last, pageSize)
    for (const stored of page.slice(left)) replay.apply(stored)
    left = Math.max(left - page.length, 0)
    if (page.length === 0 || isEnough(replay)) return replay
    last = page.at(-1)!.id
  }
})

/**
 * More blocks with logs than are ever in the window: it holds `mostRecorded`, and what is added while the floor waits to be
 * raised.
 */
const mostUndone = 2 * mostRecorded

/**
 * Whether no later entry of a journal can undo the blocks up to `to`.
 *
 * That `to` is final by now is not enough, nor is an entry above the final block: what follows may have been written
 * before that, and undo both. But nothing is undone that is not in the window any more.
 *
 * @param depth how many blocks with logs on top of it put a block out of reach
 */
export const isBeyondUndoing = ({ blocks }: Replay, to: number, depth = mostUndone): boolean =>
  (blocks.at(-depth)?.number ?? -1) > to

/** What a node has, block by block, against the blocks `from … to` of a replayed journal. */
export class Diff {
  readonly #replay: Replay
  readonly #someTrimmed: boolean
  readonly #ours = new Map<string, string>()
  readonly #missing: Array<string> = []
  readonly #different: Array<string> = []
  #logs = 0
  #trimmed = 0
  /** Whether some logs of the lowest block that is there were trimmed. */
  #bottomTrimmed = false

  /**
   * @param someTrimmed whether the journal was replayed from its oldest entry, and others were before it once: then what
   *   is below its lowest entry is not missing
   */
  constructor(replay: Replay, from: number, to: number, someTrimmed: boolean) {
    this.#replay = replay
    this.#someTrimmed = someTrimmed
    for (const { number, hash, logs } of replay.blocks) {
      if (number < from || number > to) continue
      for (const { index, digest } of logs) this.#ours.set(`${hash}:${index}`, digest)
    }
  }

  /** Takes a block of the node, or some logs of one. */
  take({ number, hash, logs }: Pick<Block, "number" | "hash" | "logs">): void {
    for (const log of logs) {
      this.#logs++
      const id = `${hash}:${log.index}`
      const known = this.#ours.get(id)
      if (known !== undefined) {
        if (known !== digestOf(number, log)) this.#different.push(id)
        this.#ours.delete(id)
      } else if (this.#isTrimmed(number, hash, log.index)) {
        this.#trimmed++
        this.#bottomTrimmed ||= number === Number(this.#replay.lowest?.block_number)
      } else this.#missing.push(id)
    }
  }

  /**
   * The block from which on no log of the node is one that was trimmed; at or above `from`.
   *
   * @param from the first block that was compared
   */
  firstWhole(from: number): number {
    const { lowest } = this.#replay
    if (this.#trimmed === 0 || lowest === undefined) return from
    return Number(lowest.block_number) + (this.#bottomTrimmed ? 1 : 0)
  }

  /** A log that the chain has above an entry was written after that entry, so that it cannot have been trimmed. */
  #isTrimmed(number: number, hash: Hex, index: number): boolean {
    const { lowest } = this.#replay
    if (!this.#someTrimmed || lowest === undefined) return false
    const bottom = Number(lowest.block_number)
    return number < bottom || (hash === lowest.block_hash && index < Number(lowest.log_index))
  }

  get result(): Comparison {
    return {
      logs: this.#logs,
      missing: this.#missing,
      trimmed: this.#trimmed,
      different: this.#different,
      extra: [...this.#ours.keys()],
    }
  }
}

/** What `digest` makes of a log of the block at this height. */
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
 * Diffs the blocks `from … to` of a replayed journal against plain `eth_getLogs`, for nodes that refuse nothing:
 * nothing of the feed has a part in it.
 *
 * @param someTrimmed as `Diff` has it
 */
export const compare = Effect.fnUntraced(function* (
  replay: Replay,
  node: Pick<Connection, "name" | "request">,
  chain: { readonly id: ChainId; readonly filter: Filter },
  from: number,
  to: number,
  someTrimmed = false,
) {
  const diff = new Diff(replay, from, to, someTrimmed)
  for (const [start, end] of blockRanges(from, to, () => width)) {
    const params = [{ ...logParams(chain.filter), fromBlock: hex(start), toBlock: hex(end) }]
    const answer = yield* orMalformed(node.name, logsOf(yield* node.request("eth_getLogs", params)))
    for (const log of answer) diff.take({ number: log.blockNumber, hash: log.blockHash, logs: [log] })
  }
  return diff.result
})
