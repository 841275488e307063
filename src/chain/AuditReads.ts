/**
 * How much the audit reads at a time. An audit is not urgent, and all chains of a process begin theirs at the same moment:
 * without a limit, the answers of all of them would be in memory together.
 */
import { Duration, Effect, Semaphore } from "effect"
import type { BlockRecord } from "../store/Journal.ts"

/**
 * Stored logs of the blocks that are read in one range; a single block may have more. Node keeps the text of an answer of more
 * than a million characters outside of the heap until the next full collection (docs/decisions/0012).
 */
export const mostLogs = 1000

/** A read waits so long for those of other chains: an endpoint that does not answer must not delay their audits. */
const longestWait = Duration.seconds(10)

/** The last block up to `to` to read in one range from `from` on, by the number of logs that the store has of each block. */
export const endOfRead = (window: ReadonlyArray<BlockRecord>, from: number, to: number): number => {
  let logs = 0
  for (const { number, count } of window) {
    if (number < from) continue
    if (number > to) break
    logs += count
    if (logs > mostLogs) return Math.max(number - 1, from)
  }
  return to
}

/** Runs one read after the other. */
export type InTurn = <A, E, R>(read: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** The reads of all chains of a process. */
export const make = Effect.map(
  Semaphore.make(1),
  (turn): InTurn =>
    (read) =>
      Effect.scoped(
        Effect.andThen(Effect.timeoutOption(Semaphore.takeScoped(turn, 1), longestWait), read),
      ) as typeof read,
)
