/**
 * Checks whether a response can be all of a block's logs. Pure: each function returns the problem, or `undefined`.
 *
 * Nodes have been observed to return `[]` for a block they announced a moment before, to omit logs, and to mix two forks
 * in one response. An error is harmless; an incomplete response that is accepted loses logs.
 */
import { Context } from "effect"
import type { Filter, Header, Hex, Log } from "../Domain.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { bitsSet, bloomOf, chanceOfMatch, isZero, provenBloom } from "./Bloom.ts"
import { isUnfiltered, makeMatches } from "./Filter.ts"
import { finalVerdict } from "../endpoint/FinalityQuorum.ts"

/** The problem with logs as those of a block, if any. */
export type BlockCheck = (logs: ReadonlyArray<PlacedLog>, header: Header) => string | undefined

/** With fewer zero bits than this, almost any set of logs has the same bloom. */
const leastZeroBits = 2

/** Two logs of a block with the same index have the same identity, and cannot both be stored. */
const duplicateIndex = (index: number, number: number): string =>
  `two logs of block ${number} have the index ${index}: logs without an identity cannot be stored`

/** The problem with logs that must belong to one block, complete or not. */
export const inconsistent: BlockCheck = (logs, block) => {
  let before = -1
  for (const log of logs) {
    if (log.blockHash !== block.hash || log.blockNumber !== block.number) {
      return `a log of another block among those of ${block.number}`
    }
    if (log.removed) return `a removed log in block ${block.number}`
    if (log.index === before) return duplicateIndex(log.index, block.number)
    if (log.index < before) return `log ${log.index} after ${before} in block ${block.number}`
    before = log.index
  }
  return undefined
}

/** Without a filter the log indexes of a block start at 0 and have no gap. */
const indexGap = (logs: ReadonlyArray<Pick<Log, "index">>, number: number): string | undefined => {
  const gap = logs.findIndex((log, i) => log.index !== i)
  return gap === -1 ? undefined : `log ${gap} is missing in block ${number}`
}

/** Whether a bloom can prove that logs are missing, or that there are none. */
const isConclusive = (bloom: Header["logsBloom"], logs: number): bloom is Hex =>
  bloom !== undefined && (isZero(bloom) ? logs === 0 : bitsSet(bloom) <= 2048 - leastZeroBits)

/** The problem if the header's bloom was not computed from these logs. A bloom of `undefined` proves nothing. */
export const wrongBloom: BlockCheck = (logs, header) =>
  isConclusive(header.logsBloom, logs.length) && bloomOf(logs) !== header.logsBloom
    ? `the ${logs.length} logs of block ${header.number} do not match its bloom`
    : undefined

/** The problem with `logs` as the complete logs of a block, without a filter. */
const checkComplete: BlockCheck = (logs, header) =>
  inconsistent(logs, header) ?? indexGap(logs, header.number) ?? wrongBloom(logs, header)

/** The same for an endpoint whose log indexes have gaps: there only the header's bloom shows that a log is missing. */
export const checkCompleteWithGaps: BlockCheck = (logs, header) =>
  inconsistent(logs, header) ??
  (isConclusive(header.logsBloom, logs.length) ? wrongBloom(logs, header) : indexGap(logs, header.number))

/** Whether log indexes are missing. */
export const hasIndexGaps = (logs: ReadonlyArray<Pick<Log, "index">>): boolean =>
  indexGap(logs, 0) !== undefined

/** The problem with `logs` as the logs of a block that match a filter. */
const makeBlockCheck = (filter: Filter): BlockCheck => {
  if (isUnfiltered(filter)) return checkComplete
  const matches = makeMatches(filter)
  return (logs, header) =>
    inconsistent(logs, header) ??
    (logs.every(matches) ? undefined : `a log that does not match the filter in block ${header.number}`)
}

/** The problem with the logs of a finalized range, of which only the last header is known. */
const makeRangeCheck = (
  filter: Filter,
): ((
  logs: ReadonlyArray<PlacedLog>,
  from: number,
  last: Header,
  allowGaps?: boolean,
) => string | undefined) => {
  const unfiltered = isUnfiltered(filter)
  const matches = makeMatches(filter)
  return (logs, from, last, allowGaps = false) => {
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
      if (log.index === next - 1) return duplicateIndex(log.index, log.blockNumber)
      if (unfiltered && !allowGaps ? log.index !== next : log.index < next) {
        return `log ${log.index} where ${next} was expected in block ${log.blockNumber}`
      }
      next = log.index + 1
      if (!unfiltered && !matches(log))
        return `a log that does not match the filter in block ${log.blockNumber}`
    }
    return undefined
  }
}

/** A bloom that matches a filter by chance with a higher probability says nothing about an empty response. */
const maxChance = 0.1

/** The problem with an empty response under a filter, if the block's bloom matches and is unlikely to match by chance. */
const makeEmptyCheck =
  (filter: Filter): BlockCheck =>
  (logs, { number, logsBloom: bloom }) =>
    !isUnfiltered(filter) &&
    logs.length === 0 &&
    bloom !== undefined &&
    !isZero(bloom) &&
    chanceOfMatch(bloom, filter.addresses, filter.topics) < maxChance
      ? `no logs in block ${number}, whose bloom matches the filter`
      : undefined

/** The checks that decide whether a response is accepted. */
export const allChecks = {
  /** All logs of a block, without a filter. */
  whole: checkComplete,
  /** The logs of a block that match a filter. */
  block: makeBlockCheck,
  /** An empty response for a block whose bloom matches the filter. */
  empty: makeEmptyCheck,
  /** The logs of a finalized range that match a filter. */
  range: makeRangeCheck,
  /** What a header's bloom proves. */
  bloom: provenBloom,
  /** Whether a block that is finalized on the endpoint in use is accepted as finalized. */
  final: finalVerdict,
}

export type IntegrityChecks = Readonly<typeof allChecks>

/** The checks in use. Tests replace them to show what each check prevents. */
export const CurrentIntegrityChecks = Context.Reference<IntegrityChecks>("event-ingestor/IntegrityChecks", {
  defaultValue: () => allChecks,
})
