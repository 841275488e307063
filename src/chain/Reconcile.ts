/**
 * What to do with an announced head, given the journal as it will stand: nothing, push, backfill, or roll back and try again.
 * Written as one line of thought: a step is emitted where it is decided, and the head is done when the function returns.
 */
import { Duration, Effect, Schema, Tracer } from "effect"
import type { Scope } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import type { Header } from "../Domain.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import type { Heads, ReceivedHead } from "../endpoint/Heads.ts"
import type { LogSource } from "../logs/LogSource.ts"
import * as Monotonic from "../Monotonic.ts"
import { digestOfPart, finalizedHead } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/Store.ts"
import type { Audit } from "./Audit.ts"
import * as Backfill from "./Backfill.ts"
import type { CrossCheck } from "./CrossCheck.ts"
import type { Finality } from "./Finality.ts"
import { classifyHead } from "./ForkChoice.ts"
import type { BlockRef, HeadRelation } from "./ForkChoice.ts"
import type { ForkStandoff } from "./ForkStandoff.ts"
import type { ChainStep, PendingJournal } from "./PendingJournal.ts"
import type { RecentHeaders } from "./RecentHeaders.ts"
import { commonAncestorOf } from "./Reorg.ts"
import * as Retries from "./HeadRetries.ts"
import { isUnknownBlock } from "./HeadRetries.ts"

/**
 * After a pause, backfill makes blocks final that were not audited: their audit waits so long (milliseconds) for endpoints that
 * are still connecting, once: four attempts of each.
 */
const auditDeadline = 30_000

/** How long a partial block must stay unchanged before it is removed: another ingestor may be writing it. */
const partialBlockDelay = Duration.seconds(3)

/** How often one head may lead to another fork before the connection is given up. */
const mostRewinds = 5

/** The store has changed meanwhile, so that the journal must be read again. */
export class Outdated extends Schema.TaggedError<Outdated>()("Outdated", {}) {}

export interface ReconcileOptions {
  readonly chain: Pick<ChainConfig, "confirmations">
  readonly connection: RpcClient
  readonly heads: Heads
  readonly logs: LogSource
  readonly capabilities: Capabilities
  readonly pending: PendingJournal
  readonly crossCheck: CrossCheck
  readonly finality: Finality
  /** `undefined` where the audit is off. */
  readonly audit?: Audit | undefined
  /** The journal as the store has it now. */
  readonly stored: Effect.Effect<Journal | undefined, StoreError>
  /** The same, once the moves in flight are done; `undefined` if it does not reach that block. */
  readonly storedUpTo: (to: number) => Effect.Effect<Journal | undefined, StoreError>
  /** What the node and the store agreed on, to know whether another ingestor replaced it. */
  readonly standoff: ForkStandoff
  readonly recentHeaders: RecentHeaders
  /** Another ingestor's node is on another fork: ours is not written again for so many milliseconds; 0: it is over. */
  readonly onStandoff: (wait: number) => Effect.Effect<void>
  /** Of the connection: retries are forked in it. */
  readonly scope: Scope.Scope
}

/**
 * What to do with each announced head.
 *
 * @param emit hands steps on; waits where the store is slower
 */
export const make = (
  options: ReconcileOptions,
  emit: (steps: ReadonlyArray<ChainStep>) => Effect.Effect<void>,
) => {
  const { audit, chain, connection, crossCheck, finality, heads, logs, pending, scope, standoff } = options
  const headerAt = (block: number | Eth.Tag) => Eth.blockByNumber(connection, block)
  const { targetOf, retryLater, retryUnknownBlock } = Retries.make(options)
  const backfills = Backfill.make({ ...options, emit })
  const commonAncestor = commonAncestorOf(options)
  /** The height up to which blocks are being written again after an audit. */
  let rewriting = -1
  /** What another ingestor replaced, if the newest head is replayed once that has lasted for long enough. */
  let awaited: BlockRef | undefined

  /**
   * A block half written or half removed. It is completed if the node has it and its first logs are the stored ones. A height
   * that the node does not have yet waits. Another block, or other logs, are removed after the part stayed unchanged for a
   * while: another ingestor may be writing it, and the store refuses the pop if it has.
   *
   * @returns whether it is done; `false`: wait
   */
  const resumePartialBlock = Effect.gen(function* () {
    const { number, hash, part, digest } = pending.journal.head
    if (part > 0) {
      const header = yield* headerAt(number)
      if (header === undefined) return false
      const block = header.hash === hash && digest !== undefined ? yield* logs.block(header) : undefined
      if (block !== undefined && block.logs.length > part && digestOfPart(block, part) === digest) {
        yield* emit(pending.resume(block))
        return true
      }
      yield* Effect.sleep(partialBlockDelay)
    }
    yield* emit(pending.rewindTo(number - 1))
    return true
  })

  /** Whether the node shows a block. */
  const isCanonicalHere = ({ number, hash }: BlockRef) =>
    Effect.map(headerAt(number), (header) => header?.hash === hash)

  /** Whether another ingestor's blocks are still to stand: the node shows ours, and the store has theirs. */
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
      Defects.toOwner,
      Effect.forkIn(scope),
    )

  /**
   * Removes what is no longer canonical.
   *
   * @param isOnAnother whether the head itself is on top of another block than ours: if ours is canonical all the same, the
   *   head is orphaned
   * @returns whether the head is to be followed from there
   */
  const rollBack = Effect.fnUntraced(function* (isOnAnother: boolean) {
    const { depth, number } = yield* commonAncestor
    if (isOnAnother && number === pending.journal.head.number) return false
    const ours = standoff.replacedBy(pending.journal, number)
    const isReplaced = ours !== undefined && (yield* isCanonicalHere(ours))
    const wait = isReplaced ? standoff.waitFor(yield* Monotonic.millis) : 0
    yield* options.onStandoff(wait)
    if (wait > 0) {
      // Each announced head leads here: one replay is enough.
      if (awaited === undefined) yield* replayAfter(wait)
      awaited = ours
      return false
    }
    yield* emit(pending.rewindTo(number, depth))
    return true
  })

  const extend = (target: Header, head: ReceivedHead) =>
    Effect.flatMap(logs.block(target), (block) => emit(pending.push([block], false, head)))

  /** Backfill makes final whatever is below it: that is audited first, with a short deadline. */
  const auditBeforeBackfill = Effect.gen(function* () {
    if (audit === undefined) return
    const { number } = pending.journal.head
    const stored = yield* options.storedUpTo(number)
    const wrong = yield* audit.auditRange(stored ?? pending.journal, number, auditDeadline)
    if (wrong !== undefined) yield* emit(pending.rewindTo(wrong - 1))
  })

  /** Pushes the blocks up to the target. @returns `false` where they are not on top of our head */
  const backfill = Effect.fnUntraced(function* (target: Header, head: ReceivedHead) {
    const { journal } = pending
    const to = Math.min(target.number, finality.block()?.number ?? -1)
    if (journal.head.number < to) {
      // Finalized ranges are not linked block by block, so our own head has to be on the chain.
      const { hash, number } = journal.head
      if (hash !== "" && number > finalizedHead(journal).number) {
        if (!(yield* isCanonicalHere({ number, hash }))) return false
        yield* auditBeforeBackfill
      } else if (hash !== "") yield* crossCheck.confirm({ number, hash })
      yield* backfills.finalized(to, head)
    }
    return yield* backfills.unfinalized(target, head)
  })

  /** Blocks that are written again, or final from the first, are compared first: a source repeats its own mistake. */
  const mustCompare = ({ number }: Header) =>
    audit !== undefined &&
    number <= (finality.block()?.number ?? -1) &&
    (number <= rewriting || chain.confirmations === "finalized")

  /**
   * Goes from our head towards the target.
   *
   * @returns whether nothing is left to do; `false` after rolling back, from where the head is followed once more
   */
  const approach = Effect.fnUntraced(function* (
    target: Header,
    head: ReceivedHead,
    relation: Exclude<HeadRelation, "duplicate">,
  ) {
    switch (relation === "extends" && mustCompare(target) ? "gap" : relation) {
      case "extends":
        yield* extend(target, head)
        return true
      case "gap":
        return (yield* backfill(target, head)) || !(yield* rollBack(false))
      case "competing": {
        const verdict = yield* crossCheck.competingVerdict(pending.journal.head)
        if (verdict === "unsure") yield* retryLater(head.header)
        return verdict !== "reorged" || !(yield* rollBack(false))
      }
      case "fork":
        return !(yield* rollBack(true))
    }
  })

  const follow = Effect.fnUntraced(function* (head: ReceivedHead) {
    for (let rewinds = 0; ;) {
      if (pending.journal.head.part !== 0) {
        if (!(yield* resumePartialBlock)) return yield* retryLater(head.header)
        continue
      }
      const { journal } = pending
      const wrong = finality.takeMismatch()
      // What is finalized was audited before.
      if (wrong !== undefined && wrong > finalizedHead(journal).number) {
        rewriting = journal.head.number
        yield* emit(pending.rewindTo(wrong - 1))
        continue
      }
      const target = yield* targetOf(head.header)
      if (target === undefined) return
      const relation = classifyHead(journal, target)
      if (relation === "duplicate")
        return yield* emit([{ _tag: "NoChange", journal, hash: target.hash, received: head }])
      if (relation !== "extends" && (yield* isInStandoff)) return
      const isFollowed = yield* Effect.catchTag(approach(target, head, relation), "EndpointError", (error) =>
        isUnknownBlock(error) ? Effect.as(retryUnknownBlock(target, head, error), true) : Effect.fail(error),
      )
      if (isFollowed) return
      if (++rewinds > mostRewinds) {
        const detail = `block ${head.header.number} leads to one fork after another`
        return yield* integrityError(connection.name, detail)
      }
    }
  })

  /** As part of the trace of the head, where it has one. */
  const followTraced = (head: ReceivedHead) => {
    const { trace } = head
    if (trace === undefined) return follow(head)
    pending.trace = trace
    return follow(head).pipe(
      Effect.andThen(emit([{ _tag: "HeadDone", trace }])),
      Effect.provideService(Tracer.ParentSpan, trace),
      Effect.ensuring(Effect.sync(() => (pending.trace = undefined))),
    )
  }

  return Effect.fnUntraced(function* (head: ReceivedHead) {
    yield* Effect.suspend(() => followTraced(head))
    const final = yield* finality.finalize
    if (final !== undefined) yield* emit([pending.finalize(final)])
  })
}
