/** The journal as the store has it, once the moves in flight are done, and whether the chain of a node has its blocks. */
import { Effect, Schedule } from "effect"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import { finalizedHead } from "../store/Journal.ts"
import type { BlockRecord, Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/StoreError.ts"
import type { BlockRef } from "./ForkChoice.ts"

/** How often, and how far apart, the store is read until it has the moves in flight. */
const settling = Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 6 }))

/** Whether two journals record the same blocks up to a height. */
export const recordSame = (a: Journal, b: Journal, to: number): boolean => {
  // Another ingestor may have finalized more already.
  const final = Math.max(finalizedHead(a).number, finalizedHead(b).number)
  const [ours, theirs] = [a, b].map(({ window }) =>
    window.filter(({ number }) => number > final && number <= to),
  )
  return (
    ours!.length === theirs!.length &&
    ours!.every(({ hash, count }, i) => hash === theirs![i]!.hash && count === theirs![i]!.count)
  )
}

/**
 * Reads the journal up to a block; `undefined` if the store does not reach there.
 *
 * @param stored reads the journal
 * @param pending the journal as it will stand
 * @param onForeign called where the store has other blocks: another ingestor wrote them, from an unknown source
 */
export const storedUpTo = (
  to: number,
  stored: Effect.Effect<Journal | undefined, StoreError>,
  pending: () => Journal,
  onForeign: () => void,
): Effect.Effect<Journal | undefined, StoreError> => {
  const isOurs = (journal: Journal | undefined): journal is Journal =>
    journal !== undefined && recordSame(pending(), journal, to)
  return stored.pipe(
    Effect.repeat({ schedule: settling, until: isOurs }),
    Effect.map((journal) => {
      if (!isOurs(journal)) onForeign()
      return journal !== undefined && journal.head.number >= to ? journal : undefined
    }),
  )
}

/**
 * Whether a node's chain has a block and ours up to it: its lowest record at or above is canonical, and so are all below.
 * Of a height without a record, nothing else shows which block was there.
 */
export const isCanonical = Effect.fnUntraced(function* (
  connection: RpcClient,
  window: ReadonlyArray<BlockRecord>,
  block: BlockRef,
): Effect.fn.Return<boolean, EndpointError> {
  const above = window.find((record) => record.number >= block.number)
  if (above === undefined || (above.number === block.number && above.hash !== block.hash)) return false
  return (yield* Eth.blockByNumber(connection, above.number))?.hash === above.hash
})
