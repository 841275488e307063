/**
 * The moves of one chain, and its journal as it will be once the store has applied them. The steps run ahead of the store:
 * each move is applied to a copy of the journal when it is created. If the store disagrees, the steps are started again.
 */
import type { DecodeBlock } from "../abi/LoadDecoder.ts"
import type { Block, Hex } from "../Domain.ts"
import { applied } from "../store/Journal.ts"
import { pushes } from "../store/Pushes.ts"
import type { CallLimits, Journal, Move, Push } from "../store/Journal.ts"
import { traceparent } from "../Tracing.ts"
import type { BlockRef } from "./ForkChoice.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"

type Trace = ReceivedHead["trace"]

/**
 * A move for the store (`Move`), a head that needs none (`NoChange`), or the end of a head's moves (`HeadDone`). `journal`:
 * its state after the step; `hash`: the block of the journal that the head confirms.
 */
export type ChainStep =
  | {
      readonly _tag: "Move"
      readonly move: Move
      readonly journal: Journal
      readonly received: ReceivedHead | undefined
      readonly trace: Trace
      /** On the first pop of a reorg: how many blocks are replaced. */
      readonly reorg?: number
    }
  | {
      readonly _tag: "NoChange"
      readonly journal: Journal
      readonly hash: Hex
      readonly received: ReceivedHead
    }
  | { readonly _tag: "HeadDone"; readonly trace: Trace }

export type MoveStep = Extract<ChainStep, { readonly _tag: "Move" }>

export class PendingJournal {
  /** The trace of the head that is being reconciled. */
  trace: Trace
  #journal: Journal
  readonly #limits: { readonly push: () => CallLimits; readonly pop: number }
  readonly #onPush: (block: Block) => void
  readonly #decode: DecodeBlock

  /**
   * @param journal as the store has it
   * @param limits the current size limit of a push, and how many logs one pop retracts
   * @param onPush called with each pushed block that is not final yet
   * @param decode decodes the logs of a block that is pushed
   */
  constructor(
    journal: Journal,
    limits: { readonly push: () => CallLimits; readonly pop: number },
    onPush: (block: Block) => void,
    decode: DecodeBlock = (block) => block,
  ) {
    this.#journal = journal
    this.#limits = limits
    this.#onPush = onPush
    this.#decode = decode
  }

  /** The journal after all moves created so far. */
  get journal(): Journal {
    return this.#journal
  }

  /** Pushes for blocks on top of the journal. The last one carries the received head if it contains that block. */
  push(blocks: ReadonlyArray<Block>, final: boolean, received: ReceivedHead): ReadonlyArray<ChainStep> {
    if (!final) for (const block of blocks) this.#onPush(block)
    const context = traceparent(this.trace)
    const traced = context ? blocks.map((block) => ({ ...block, traceparent: context })) : blocks
    const moves = this.#pushes(traced, final)
    const handles = (push: Push) =>
      push === moves.at(-1) && push.blocks.at(-1)!.hash === received.header.hash ? received : undefined
    return moves.map((push) => this.#make(push, handles(push)))
  }

  /** Pushes for the missing logs of the partial block on top. */
  resume(block: Block): ReadonlyArray<ChainStep> {
    this.#onPush(block)
    return this.#pushes([block], false).map((push) => this.#make(push))
  }

  /**
   * Pops every block above a height.
   *
   * @param reorg how many blocks of the chain are replaced, recorded or not; `undefined` if it is no reorg
   */
  rewindTo(number: number, reorg?: number): ReadonlyArray<ChainStep> {
    const steps: Array<ChainStep> = []
    while (this.#journal.head.number > number) {
      const step = this.#make({ _tag: "Pop", expected: this.#journal.head })
      steps.push(steps.length === 0 && reorg !== undefined ? { ...step, reorg } : step)
    }
    return steps
  }

  /** Moves the finalized head up to this block. */
  finalize({ number, hash }: BlockRef): ChainStep {
    return this.#make({ _tag: "Finalize", expected: this.#journal.head, number, hash })
  }

  #pushes(blocks: ReadonlyArray<Block>, final: boolean): ReadonlyArray<Push> {
    return [...pushes(this.#journal.head, blocks.map(this.#decode), final, this.#limits.push())]
  }

  #make(move: Move, received?: ReceivedHead): MoveStep {
    this.#journal = applied(this.#journal, move, this.#limits.pop)
    return { _tag: "Move", move, journal: this.#journal, received, trace: this.trace }
  }
}
