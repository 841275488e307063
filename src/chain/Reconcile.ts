/**
 * What to do with an announced head, given the journal as it will stand: nothing, push, backfill, or roll back and try again.
 * A step is emitted where it is decided, and the head is done when the function returns.
 */
import { Duration, Effect } from "effect"
import type { Header } from "../Domain.ts"
import { within } from "../Tracing.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"
import { atOrAbove } from "../logs/ExistingHeaders.ts"
import { finalizedHead } from "../store/Journal.ts"
import * as Backfill from "./Backfill.ts"
import type { BackfillOptions } from "./Backfill.ts"
import type { FinalityViolation } from "./CrossCheck.ts"
import { classifyHead } from "./ForkChoice.ts"
import type { HeadRelation } from "./ForkChoice.ts"
import * as Retries from "./HeadRetries.ts"
import { isUnknownBlock } from "./HeadRetries.ts"
import type { HeadRetriesOptions } from "./HeadRetries.ts"
import type { ChainStep, PendingJournal } from "./PendingJournal.ts"
import * as Rollback from "./Rollback.ts"
import type { Outdated, RollbackOptions } from "./Rollback.ts"
import { digestOfPart } from "../store/Pushes.ts"
import type { StoreError } from "../store/StoreError.ts"

/** How long a partial block must stay unchanged before it is removed: another ingestor may be writing it. */
const partialBlockDelay = Duration.seconds(3)

/** How often one head may lead to another fork before the connection is given up. */
const mostRewinds = 5

/**
 * `followed`: the journal is at the head. `rewound`: blocks were popped, and the head is to be followed once more. `waits`:
 * nothing else can be done now, and the journal may be on another fork than the node.
 */
type Approach = "followed" | "rewound" | "waits"

type Emit = (steps: ReadonlyArray<ChainStep>) => Effect.Effect<void>

type MadeHere = "isCanonicalHere" | "emit"

export type ReconcileOptions = Omit<BackfillOptions & RollbackOptions & HeadRetriesOptions, MadeHere>

/**
 * A block half written or half removed. It is completed if the node has it and its first logs are the stored ones. A height
 * that the node does not have yet waits. Another block, a height without one, or other logs, are removed after the part
 * stayed unchanged for a while: another ingestor may be writing it, and the store refuses the pop if it has.
 *
 * @returns the steps; `undefined`: wait
 */
const resumePartialBlock = Effect.fnUntraced(function* ({ connection, logs, pending }: ReconcileOptions) {
  const { number, hash, part, digest } = pending.journal.head
  if (part > 0) {
    const header = yield* Effect.catchIf(atOrAbove(connection, number), isUnknownBlock, () =>
      Effect.succeed(undefined),
    )
    if (header === undefined) return undefined
    const block = header.hash === hash && digest !== undefined ? yield* logs.block(header) : undefined
    if (block !== undefined && block.logs.length > part && digestOfPart(block, part) === digest)
      return pending.resume(block)
    yield* Effect.sleep(partialBlockDelay)
  }
  return pending.rewindTo(number - 1)
})

/** Follows a head as part of its trace, where it has one. */
const tracedFrom = <E>(
  head: ReceivedHead,
  pending: PendingJournal,
  emit: Emit,
  follow: (head: ReceivedHead) => Effect.Effect<Approach, E>,
): Effect.Effect<Approach, E> => {
  const { trace } = head
  if (trace === undefined) return follow(head)
  return Effect.suspend(() => {
    pending.trace = trace
    return follow(head)
  }).pipe(
    Effect.tap(emit([{ _tag: "HeadDone", trace }])),
    within(trace),
    Effect.ensuring(Effect.sync(() => (pending.trace = undefined))),
  )
}

/** How a target is reached, or waited for. */
interface Ways {
  readonly backfill: Backfill.Backfill
  readonly rollBack: Rollback.Rollback["rollBack"]
  readonly retryLater: Retries.HeadRetries["retryLater"]
  readonly mustCompare: (target: Header) => boolean
  readonly emit: Emit
}

/** Goes from our head towards a target. */
const approaching = (
  { crossCheck, logs, pending }: ReconcileOptions,
  { backfill, rollBack, retryLater, mustCompare, emit }: Ways,
) => {
  const rewind = (isOnAnother: boolean) =>
    Effect.map(rollBack(isOnAnother), (isPopped): Approach => (isPopped ? "rewound" : "waits"))

  return Effect.fnUntraced(function* (
    target: Header,
    head: ReceivedHead,
    relation: Exclude<HeadRelation, "duplicate">,
  ): Effect.fn.Return<Approach, EndpointError | FinalityViolation | StoreError> {
    switch (relation === "extends" && mustCompare(target) ? "gap" : relation) {
      case "extends":
        yield* emit(pending.push([yield* logs.block(target)], false, head))
        return "followed"
      case "gap":
        return (yield* backfill(target, head)) ? "followed" : yield* rewind(false)
      case "competing": {
        const verdict = yield* crossCheck.competingVerdict(pending.journal.head)
        if (verdict === "unsure") yield* retryLater(head.header)
        return verdict === "reorged" ? yield* rewind(false) : "waits"
      }
      case "fork":
        return yield* rewind(true)
    }
  })
}

/**
 * What to do with each announced head.
 *
 * @param emit hands steps on; waits where the store is slower
 */
export const make = (options: ReconcileOptions, emit: Emit) => {
  const { audit, chain, connection, finality, pending } = options
  const { targetOf, retryLater, retryUnknownBlock } = Retries.make(options)
  const { isCanonicalHere, isInStandoff, rollBack } = Rollback.make({ ...options, emit })
  const backfill = Backfill.make({ ...options, isCanonicalHere, emit })
  /** The height up to which blocks are being written again after an audit. */
  let rewriting = -1

  /** Blocks that are written again, or final from the first, are compared first: a source repeats its own mistake. */
  const mustCompare = ({ number }: Header) =>
    audit !== undefined &&
    number <= (finality.block()?.number ?? -1) &&
    (number <= rewriting || chain.confirmations === "finalized")

  const approach = approaching(options, { backfill, rollBack, retryLater, mustCompare, emit })

  const follow = Effect.fnUntraced(function* (
    head: ReceivedHead,
  ): Effect.fn.Return<Approach, EndpointError | FinalityViolation | StoreError | Outdated> {
    for (let rewinds = 0; ;) {
      if (pending.journal.head.part !== 0) {
        const steps = yield* resumePartialBlock(options)
        if (steps === undefined) {
          yield* retryLater(head.header)
          return "waits"
        }
        yield* emit(steps)
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
      if (target === undefined) return "waits"
      const relation = classifyHead(journal, target)
      if (relation === "duplicate") {
        yield* emit([{ _tag: "NoChange", journal, hash: target.hash, received: head }])
        // A block below our head may be on both sides of a fork.
        return target.hash === journal.head.hash ? "followed" : "waits"
      }
      if (relation !== "extends" && (yield* isInStandoff)) return "waits"
      const outcome = yield* Effect.catchTag(approach(target, head, relation), "EndpointError", (error) =>
        isUnknownBlock(error)
          ? Effect.as(retryUnknownBlock(target, head, error), "waits" as const)
          : Effect.fail(error),
      )
      if (outcome !== "rewound") return outcome
      if (++rewinds > mostRewinds) {
        const detail = `block ${head.header.number} leads to one fork after another`
        return yield* integrityError(connection.name, detail)
      }
    }
  })

  return Effect.fnUntraced(function* (head: ReceivedHead) {
    const outcome = yield* tracedFrom(head, pending, emit, follow)
    const final = yield* finality.finalize(outcome === "followed")
    if (final !== undefined) yield* emit([pending.finalize(final)])
  })
}
