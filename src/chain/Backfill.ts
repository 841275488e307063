/** The blocks between our head and a target: finalized ones in ranges as wide as the endpoint accepts, the rest under their headers. */
import { Effect, Stream } from "effect"
import type { Header } from "../Domain.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"
import type { LogSource } from "../logs/LogSource.ts"
import { blockRanges, firstBrokenLink } from "./ForkChoice.ts"
import type { Audit } from "./Audit.ts"
import type { CrossCheck, FinalityViolation } from "./CrossCheck.ts"
import type { Finality } from "./Finality.ts"
import type { ChainStep, PendingJournal } from "./PendingJournal.ts"
import type { RecentHeaders } from "./RecentHeaders.ts"
import type { Rollback } from "./Rollback.ts"
import { finalizedHead } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/StoreError.ts"

/**
 * After a pause, backfill makes blocks final that were not audited: their audit waits so long (milliseconds) for endpoints that
 * are still connecting, once: four attempts of each.
 */
const auditDeadline = 30_000

/** Ranges that are fetched at the same time. */
const finalizedAhead = 4
const unfinalizedAhead = 3

export interface BackfillOptions {
  readonly logs: LogSource
  readonly capabilities: Capabilities
  readonly pending: PendingJournal
  readonly recentHeaders: RecentHeaders
  readonly crossCheck: CrossCheck
  readonly finality: Finality
  /** `undefined` where the audit is off. */
  readonly audit?: Audit | undefined
  /** The journal as the store has it up to a block, once the moves in flight are done; `undefined` if it is not there. */
  readonly storedUpTo: (to: number) => Effect.Effect<Journal | undefined, StoreError>
  readonly isCanonicalHere: Rollback["isCanonicalHere"]
  /** Hands steps on; waits where the store is slower. */
  readonly emit: (steps: ReadonlyArray<ChainStep>) => Effect.Effect<void>
}

/** The first elements of an iterator, which goes on behind them. */
function* take<A>(all: Iterator<A>, count: number) {
  for (let i = 0; i < count; i++) {
    const next = all.next()
    if (next.done === true) return
    yield next.value
  }
}

/** The width of ranges. The start block comes alone, so that its hash is known. */
const withStartAlone = (isStart: boolean, width: () => number) => {
  let isFirst = isStart
  return () => {
    const blocks = isFirst ? 1 : width()
    isFirst = false
    return blocks
  }
}

/**
 * Pushes the blocks up to a target.
 *
 * @returns `false` where they are not on top of our head: what is below is pushed
 */
export type Backfill = (
  target: Header,
  head: ReceivedHead,
) => Effect.Effect<boolean, EndpointError | FinalityViolation | StoreError>

export const make = (options: BackfillOptions): Backfill => {
  const { audit, capabilities, crossCheck, emit, finality, logs, pending, recentHeaders } = options
  const height = () => pending.journal.head.number

  const finalizedFrom = (
    from: number,
    to: number,
    head: ReceivedHead,
  ): Effect.Effect<void, EndpointError> => {
    const isStart = pending.journal.head.hash === ""
    const ranges = blockRanges(from, to, withStartAlone(isStart, logs.width))
    const fetched = (concurrency: number) =>
      Stream.mapEffect(
        ([from, through]: readonly [number, number]) =>
          Effect.map(logs.finalizedRange(from, through), (blocks) => ({ blocks, through })),
        { concurrency },
      )
    // The first range shows how many logs a block has, and with that how wide the others may be.
    const alone = Stream.fromIterable(take(ranges, isStart ? 2 : 1), { chunkSize: 1 })
    return Stream.concat(
      fetched(1)(alone),
      fetched(finalizedAhead)(Stream.fromIterable(ranges, { chunkSize: 1 })),
    ).pipe(
      Stream.runForEach(({ blocks, through }) =>
        Effect.gen(function* () {
          const last = blocks.at(-1)!.number
          // Where a range ends at a height without a block, it overlaps with the next one.
          yield* emit(
            pending.push(
              blocks.filter(({ number }) => number > height()),
              true,
              head,
            ),
          )
          if (last < through) yield* finalizedFrom(last + 1, through, head)
        }),
      ),
    )
  }

  /** Pushes the blocks up to a target that is not final, each on top of the one before. */
  const unfinalizedTo = Effect.fnUntraced(function* (target: Header, head: ReceivedHead) {
    let isLinked = true
    // One range after the other: a head may be announced at any height.
    yield* Stream.fromIterable(
      blockRanges(height() + 1, target.number, () => capabilities.recentWidth.current),
      { chunkSize: 1 },
    ).pipe(
      Stream.mapEffect(([from, to]) => logs.unfinalizedRange(from, to), { concurrency: unfinalizedAhead }),
      Stream.runForEachWhile((blocks) => {
        for (const block of blocks) recentHeaders.add(block)
        const broken = firstBrokenLink(pending.journal.head.hash, blocks)
        isLinked = broken === -1
        const linked = isLinked ? blocks : blocks.slice(0, broken)
        return Effect.as(emit(pending.push(linked, false, head)), isLinked)
      }),
    )
    return isLinked
  })

  /** Backfill makes final whatever is below it: that is audited first, with a short deadline. */
  const auditBelow = Effect.gen(function* () {
    if (audit === undefined) return
    const stored = yield* options.storedUpTo(height())
    const wrong = yield* audit.auditRange(stored ?? pending.journal, height(), {
      timeout: auditDeadline,
    })
    if (wrong !== undefined) yield* emit(pending.rewindTo(wrong - 1))
  })

  return Effect.fnUntraced(function* (target, head) {
    const to = Math.min(target.number, finality.block()?.number ?? -1)
    if (height() < to) {
      // Finalized ranges are not linked block by block, so our own head has to be on the chain.
      const { hash, number } = pending.journal.head
      if (hash !== "" && number > finalizedHead(pending.journal).number) {
        if (!(yield* options.isCanonicalHere({ number, hash }))) return false
        yield* auditBelow
      } else if (hash !== "") yield* crossCheck.confirm({ number, hash })
      yield* finalizedFrom(height() + 1, to, head)
    }
    return yield* unfinalizedTo(target, head)
  })
}
