/**
 * Removes the blocks that are no longer canonical. Where another ingestor replaced blocks that our node still shows, the two
 * nodes are on different forks: our side is written again only after a wait (ForkStandoff.ts, decision 14).
 */
import { Effect, Schema } from "effect"
import type { Scope } from "effect"
import * as Background from "../Background.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { Heads } from "../endpoint/Heads.ts"
import * as Monotonic from "../Monotonic.ts"
import { finalizedHead } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"
import type { Publisher } from "./ChainEvents.ts"
import type { FinalityViolation } from "./CrossCheck.ts"
import type { BlockRef } from "./ForkChoice.ts"
import type { ForkStandoff } from "./ForkStandoff.ts"
import type { ChainStep } from "./PendingJournal.ts"
import { commonAncestorOf } from "./Reorg.ts"
import type { ReorgOptions } from "./Reorg.ts"
import type { StoreError } from "../store/StoreError.ts"

/** The store has changed meanwhile, so that the journal must be read again. */
export class Outdated extends Schema.TaggedError<Outdated>()("Outdated", {}) {}

export interface RollbackOptions extends ReorgOptions {
  readonly heads: Pick<Heads, "replay">
  /** The journal as the store has it now. */
  readonly stored: Effect.Effect<Journal | undefined, StoreError>
  /** What the node and the store agreed on, to know whether another ingestor replaced it. */
  readonly standoff: ForkStandoff
  readonly events: Pick<Publisher, "publish">
  /** Of the connection: retries are forked in it. */
  readonly scope: Scope.Scope
  /** Hands steps on; waits where the store is slower. */
  readonly emit: (steps: ReadonlyArray<ChainStep>) => Effect.Effect<void>
}

export interface Rollback {
  /** Whether the node shows a block. */
  readonly isCanonicalHere: (block: BlockRef) => Effect.Effect<boolean, EndpointError>
  /** Whether another ingestor's blocks are still to stand: the node shows ours, and the store has theirs. */
  readonly isInStandoff: Effect.Effect<boolean, EndpointError | StoreError | Outdated>
  /**
   * Removes what is no longer canonical.
   *
   * @param isOnAnother whether the head itself is on top of another block than ours: if ours is canonical all the same, the
   *   head is orphaned
   * @returns whether the head is to be followed from there
   */
  readonly rollBack: (isOnAnother: boolean) => Effect.Effect<boolean, EndpointError | FinalityViolation>
}

export const make = (options: RollbackOptions): Rollback => {
  const { connection, emit, events, heads, pending, scope, standoff } = options
  const commonAncestor = commonAncestorOf(options)
  /** What another ingestor replaced, if the newest head is replayed once that has lasted for long enough. */
  let awaited: BlockRef | undefined

  const isCanonicalHere = ({ number, hash }: BlockRef) =>
    Effect.map(Eth.blockByNumber(connection, number), (header) => header?.hash === hash)

  const isInStandoff = Effect.gen(function* () {
    if (awaited === undefined || !standoff.isWaiting || !(yield* isCanonicalHere(awaited))) return false
    const { hash, number } = awaited
    const journal = yield* options.stored
    // Another ingestor has written it again, and perhaps made it final; or the store was emptied.
    const isOver =
      journal === undefined ||
      finalizedHead(journal).number >= number ||
      journal.window.some((record) => record.hash === hash)
    return isOver ? yield* new Outdated() : true
  })

  const replayAfter = (wait: number) =>
    Effect.sync(() => void (awaited = undefined)).pipe(
      Effect.andThen(heads.replay),
      Effect.delay(wait),
      Background.forkIn(scope),
    )

  const rollBack = Effect.fnUntraced(function* (isOnAnother: boolean) {
    const { depth, number } = yield* commonAncestor
    if (isOnAnother && number === pending.journal.head.number) return false
    const ours = standoff.replacedBy(pending.journal, number)
    const isReplaced = ours !== undefined && (yield* isCanonicalHere(ours))
    const wait = isReplaced ? standoff.waitFor(yield* Monotonic.millis) : 0
    yield* events.publish({ _tag: "Standoff", wait })
    if (wait > 0) {
      // Each announced head leads here: one replay is enough.
      if (awaited === undefined) yield* replayAfter(wait)
      awaited = ours
      return false
    }
    yield* emit(pending.rewindTo(number, depth))
    return true
  })

  return { isCanonicalHere, isInStandoff, rollBack }
}
