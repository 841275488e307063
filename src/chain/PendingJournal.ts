/**
 * The moves of one chain, and its journal as it will stand once they are done: the feed runs ahead of the store, and each
 * move is applied to a copy of the journal when it is made. When the store disagrees, the feed is simply started again.
 */
import type { Block, Hex } from "../Domain.ts"
import { finalized, popped, pushed, pushes } from "../store/Journal.ts"
import type { CallLimits, Journal, Move, Push } from "../store/Journal.ts"
import { traceparent } from "../observability/Tracing.ts"
import type { BlockRef } from "./ForkChoice.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"

type Trace = ReceivedHead["trace"]

/**
 * A move to make, the news that a head needs none, or that all of its moves have been told. `journal`: as it stands then;
 * `hash`: the block of it that the head is about.
 */
export type ChainStep =
  | {
      readonly _tag: "Move"
      readonly move: Move
      readonly journal: Journal
      readonly heard: ReceivedHead | undefined
      readonly trace: Trace
      /** Where a reorg begins: how many blocks are replaced. */
      readonly reorg?: number
    }
  | { readonly _tag: "Seen"; readonly journal: Journal; readonly hash: Hex; readonly heard: ReceivedHead }
  | { readonly _tag: "Followed"; readonly trace: Trace }

export type MoveStep = Extract<ChainStep, { readonly _tag: "Move" }>

export class PendingJournal {
  /** The trace of the head that is being followed. */
  trace: Trace
  #journal: Journal
  readonly #limits: { readonly push: () => CallLimits; readonly pop: number }
  readonly #onPush: (block: Block) => void

  /**
   * @param journal as the store has it
   * @param limits how much a push carries now, and how many logs a pop undoes
   * @param wrote told of each block that is pushed and not final yet
   */
  constructor(
    journal: Journal,
    limits: { readonly push: () => CallLimits; readonly pop: number },
    wrote: (block: Block) => void,
  ) {
    this.#journal = journal
    this.#limits = limits
    this.#onPush = wrote
  }

  /** As it will stand. */
  get journal(): Journal {
    return this.#journal
  }

  /** Pushes for blocks on top of the journal. The last one handles the head when it brings it in. */
  push(blocks: ReadonlyArray<Block>, final: boolean, heard: ReceivedHead): ReadonlyArray<ChainStep> {
    if (!final) for (const block of blocks) this.#onPush(block)
    const context = traceparent(this.trace)
    const traced = context ? blocks.map((block) => ({ ...block, traceparent: context })) : blocks
    const moves = [...pushes(this.#journal.head, traced, final, this.#limits.push())]
    const handles = (push: Push) =>
      push === moves.at(-1) && push.blocks.at(-1)!.hash === heard.header.hash ? heard : undefined
    return moves.map((push) => this.#make(push, handles(push)))
  }

  /** Pushes for what is missing of the block on top. */
  resume(block: Block): ReadonlyArray<ChainStep> {
    this.#onPush(block)
    return [...pushes(this.#journal.head, [block], false, this.#limits.push())].map((push) =>
      this.#make(push),
    )
  }

  /**
   * Undoes every block above a height.
   *
   * @param reorg how many blocks of the chain are replaced, recorded or not; `undefined` where it is no reorg
   */
  rewindTo(number: number, reorg?: number): ReadonlyArray<ChainStep> {
    const steps: Array<ChainStep> = []
    while (this.#journal.head.number > number) {
      const step = this.#make({ _tag: "Pop", expected: this.#journal.head })
      steps.push(steps.length === 0 && reorg !== undefined ? { ...step, reorg } : step)
    }
    return steps
  }

  /** Raises the floor. */
  finalize({ number, hash }: BlockRef): ChainStep {
    return this.#make({ _tag: "Finalize", expected: this.#journal.head, number, hash })
  }

  #make(move: Move, heard?: ReceivedHead): MoveStep {
    this.#journal =
      move._tag === "Push"
        ? pushed(this.#journal, move)
        : move._tag === "Pop"
          ? popped(this.#journal, this.#limits.pop)
          : finalized(this.#journal, move.number, move.hash)
    return { _tag: "Move", move, journal: this.#journal, heard, trace: this.trace }
  }
}
