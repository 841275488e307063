/**
 * Whether an answer can be all of a block's logs. Pure; every function returns what is wrong, or `undefined`.
 *
 * Nodes have been seen to answer `[]` for a block they announced a moment before, to leave out logs, and to mix two
 * forks in one answer. An error is harmless; a short answer that is believed is a loss.
 */
import { Context } from "effect"
import type { Filter, Header, Log } from "../Domain.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { bloomOf, isZero } from "./Bloom.ts"
import { isUnfiltered, makeMatches } from "./Filter.ts"

/** Above this many logs most of the 2048 bits are set: equality would prove little and cost much. */
const mostForBloom = 256

/** What is wrong with logs as those of one block, wherever they come from. */
const misplaced = (
  logs: ReadonlyArray<PlacedLog>,
  block: Pick<Header, "number" | "hash">,
): string | undefined => {
  let before = -1
  for (const log of logs) {
    if (log.blockHash !== block.hash || log.blockNumber !== block.number) {
      return `a log of another block among those of ${block.number}`
    }
    if (log.removed) return `a removed log in block ${block.number}`
    if (log.index <= before) return `log ${log.index} after ${before} in block ${block.number}`
    before = log.index
  }
  return undefined
}

/** Without a filter a block's logs are numbered from 0 without a hole. */
const holed = (logs: ReadonlyArray<Pick<Log, "index">>, number: number): string | undefined => {
  const hole = logs.findIndex((log, i) => log.index !== i)
  return hole === -1 ? undefined : `log ${hole} is missing in block ${number}`
}

/** What is wrong with `logs` as the complete logs of a block under no filter. */
const incomplete = (logs: ReadonlyArray<PlacedLog>, header: Header): string | undefined => {
  const found = misplaced(logs, header) ?? holed(logs, header.number)
  if (found !== undefined) return found
  // Logs under a zero bloom: a chain that does not compute blooms.
  if (isZero(header.logsBloom) && logs.length > 0) return undefined
  if (logs.length <= mostForBloom && bloomOf(logs) !== header.logsBloom) {
    return `the ${logs.length} logs of block ${header.number} do not make its bloom`
  }
  return undefined
}

/** What is wrong with `logs` as the logs of a block that match a filter. */
const makeUnbelievable = (
  filter: Filter,
): ((logs: ReadonlyArray<PlacedLog>, header: Header) => string | undefined) => {
  if (isUnfiltered(filter)) return incomplete
  const matches = makeMatches(filter)
  return (logs, header) =>
    misplaced(logs, header) ??
    (logs.every(matches) ? undefined : `a log that does not match the filter in block ${header.number}`)
}

/** What is wrong with the logs of a range of final blocks, of which only the last block's header is known. */
const makeUnbelievableRange = (
  filter: Filter,
): ((logs: ReadonlyArray<PlacedLog>, from: number, last: Header) => string | undefined) => {
  const unfiltered = isUnfiltered(filter)
  const matches = makeMatches(filter)
  return (logs, from, last) => {
    let block: PlacedLog | undefined
    let next = 0
    for (const log of logs) {
      if (log.removed) return `a removed log in block ${log.blockNumber}`
      if (log.blockNumber < from || log.blockNumber > last.number) return `a log of block ${log.blockNumber}`
      if (block !== undefined && log.blockNumber < block.blockNumber) return "blocks out of order"
      if (block?.blockNumber !== log.blockNumber) {
        if (log.blockNumber === last.number && log.blockHash !== last.hash) return "logs of two forks"
        block = log
        next = 0
      } else if (log.blockHash !== block.blockHash) {
        return "logs of two forks"
      }
      if (unfiltered ? log.index !== next : log.index < next) {
        return `log ${log.index} where ${next} was expected in block ${log.blockNumber}`
      }
      next = log.index + 1
      if (!unfiltered && !matches(log))
        return `a log that does not match the filter in block ${log.blockNumber}`
    }
    return undefined
  }
}

/** The checks of an answer. */
export interface Checks {
  /** All logs of a block, under no filter. */
  readonly whole: typeof incomplete
  /** The logs of a block that match a filter. */
  readonly block: typeof makeUnbelievable
  /** The logs of a range of final blocks that match a filter. */
  readonly range: typeof makeUnbelievableRange
}

export const strict: Checks = { whole: incomplete, block: makeUnbelievable, range: makeUnbelievableRange }

/** The checks in use. They are replaced only to show what happens without them. */
export const Verification = Context.Reference<Checks>("event-ingestor/feed/Verification", {
  defaultValue: () => strict,
})
