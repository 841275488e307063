/**
 * Detects that the store has lost entries: this process keeps the last entry that it has seen acknowledged, and the store
 * searches for it. The store begins a new epoch where it is gone (decision 15).
 */
import { Effect, Semaphore } from "effect"
import type { ChainId } from "../Domain.ts"
import type { Move } from "../store/Journal.ts"
import type { Publisher } from "./ChainEvents.ts"
import type { JournalStore } from "../store/JournalStore.ts"
import type { FinalizeResult, Known, PopResult, PushResult } from "../store/JournalStore.ts"
import type { StoreError } from "../store/StoreError.ts"

export interface Epochs {
  /** Searches for the last known entry. @param stored the block at which the store is now */
  readonly check: (stored: number | undefined) => Effect.Effect<void, StoreError>
  /** Records the entries that a move has added, or searches first if another ingestor wrote in between. */
  readonly follow: (
    move: Move,
    result: PushResult | PopResult | FinalizeResult,
  ) => Effect.Effect<void, StoreError>
}

/** @param lastStored the block at which the store was last seen */
export const make = (
  chain: ChainId,
  store: Pick<JournalStore["Service"], "checkEpoch">,
  lastStored: () => number | undefined,
  publish: Publisher["publish"],
): Epochs => {
  /** Serializes updates of `known`: several moves are in flight, and their results are recorded in order. */
  const lock = Semaphore.makeUnsafe(1)
  /** The end of the stream as this process last saw it. */
  let known: Known | undefined

  /** @returns whether the added entries follow the known one: else the store may have been set back in between */
  const record = ({ last }: Known, result: Parameters<Epochs["follow"]>[1]): boolean => {
    if (result._tag === "Duplicate") return false
    if (!("added" in result) || result.added === undefined) return true
    const { previous } = result.added
    const follows = previous?.id === last?.id && previous?.identity === last?.identity
    if (!follows || (last !== undefined && last.epoch !== result.added.last.epoch)) return false
    known = { ...known!, last: result.added.last }
    return true
  }

  const check = Effect.fnUntraced(function* (stood: number | undefined, stored: number | undefined) {
    const { known: found, outcome } = yield* store.checkEpoch(chain, known)
    known = found
    if (outcome !== "kept") yield* publish({ _tag: "EpochBegun", outcome, stood, stored })
  })

  return {
    check: (stored) => lock.withPermits(1)(Effect.suspend(() => check(lastStored(), stored))),
    follow: (move, result) =>
      lock.withPermits(1)(
        Effect.suspend(() =>
          known === undefined || record(known, result)
            ? Effect.void
            : check(lastStored(), move.expected.number),
        ),
      ),
  }
}
