/** The blocks between our head and a target: finalized ones in ranges as wide as the endpoint accepts, the rest under their headers. */
import { Effect, Stream } from "effect"
import type { Header } from "../Domain.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { ReceivedHead } from "../endpoint/Heads.ts"
import type { LogSource } from "../logs/LogSource.ts"
import { blockRanges, firstBrokenLink } from "./ForkChoice.ts"
import type { ChainStep, PendingJournal } from "./PendingJournal.ts"
import type { RecentHeaders } from "./RecentHeaders.ts"

/** Ranges that are fetched at the same time. */
const finalizedAhead = 4
const unfinalizedAhead = 3

export interface BackfillOptions {
  readonly logs: LogSource
  readonly capabilities: Capabilities
  readonly pending: PendingJournal
  readonly recentHeaders: RecentHeaders
  /** Hands steps on; waits where the store is slower. */
  readonly emit: (steps: ReadonlyArray<ChainStep>) => Effect.Effect<void>
}

export interface Backfill {
  /** Pushes finalized blocks up to a height. */
  readonly finalized: (to: number, head: ReceivedHead) => Effect.Effect<void, EndpointError>
  /**
   * Pushes the blocks up to a target that is not final.
   *
   * @returns `false` where a parent hash does not match: what is below is pushed
   */
  readonly unfinalized: (target: Header, head: ReceivedHead) => Effect.Effect<boolean, EndpointError>
}

export const make = ({ logs, capabilities, pending, recentHeaders, emit }: BackfillOptions): Backfill => {
  const height = () => pending.journal.head.number

  /** The start block comes alone, so that its hash is known. */
  const ranges = (from: number, to: number) =>
    Stream.unfold(
      { from, isFirst: pending.journal.head.hash === "" },
      ({
        from,
        isFirst,
      }): Effect.Effect<
        readonly [readonly [number, number], { from: number; isFirst: boolean }] | undefined
      > => {
        if (from > to) return Effect.succeed(undefined)
        const through = isFirst ? from : Math.min(from + logs.width() - 1, to)
        return Effect.succeed([[from, through], { from: through + 1, isFirst: false }])
      },
    )

  const finalizedFrom = (from: number, to: number, head: ReceivedHead): Effect.Effect<void, EndpointError> =>
    ranges(from, to).pipe(
      Stream.mapEffect(
        ([from, through]) =>
          Effect.map(logs.finalizedRange(from, through), (blocks) => ({ blocks, through })),
        { concurrency: finalizedAhead },
      ),
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

  return {
    finalized: (to, head) => Effect.suspend(() => finalizedFrom(height() + 1, to, head)),
    unfinalized: Effect.fnUntraced(function* (target, head) {
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
    }),
  }
}
