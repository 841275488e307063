/**
 * Reads finalized blocks in ranges as wide as the endpoint allows: the logs of a range in one request, validated against the
 * header of its last block.
 */
import { Effect } from "effect"
import type { Block, Header, Hex } from "../Domain.ts"
import { mostCalls } from "../endpoint/Capabilities.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { errorKind, integrityError, isRpcError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import type { ErrorInfo } from "../endpoint/RpcError.ts"
import { freeItems } from "../Memory.ts"
import { blockOf } from "./BlockLogs.ts"
import { retryUnverified } from "./Rechecks.ts"
import type { BlockLogs } from "./BlockLogs.ts"
import { blockTimes } from "./BlockTimes.ts"
import type { ExistingHeaders } from "./ExistingHeaders.ts"
import type { GetLogs } from "./GetLogs.ts"
import { hasIndexGaps } from "./Integrity.ts"
import type { BlockCheck, IntegrityChecks } from "./Integrity.ts"

/** Whether a refused range may be too wide. Does not apply to single blocks. */
export const isTooWide = (refusal: ErrorInfo["kind"] | undefined): boolean =>
  refusal === "RangeTooLarge" || refusal === "Unavailable"

/** Whether `eth_getLogs` is refused for any range, so that blocks must be read one by one by another method. */
export const isRefused = (refusal: ErrorInfo["kind"] | undefined): boolean =>
  refusal === "AddressRequired" || refusal === "MethodNotSupported"

const unknownParent: Hex = `0x${"0".repeat(64)}`

/**
 * A finalized range: the blocks with logs, and the last one. If the range exceeds one response, only its beginning up to the
 * last returned block, so that memory is bounded by one response. If the last height has no block, the next block above it is
 * the last one.
 *
 * @param times whether timestamps are required, which may cost header requests; without them, blocks must not be stored
 */
export type FinalizedRange = (
  from: number,
  to: number,
  times?: boolean,
) => Effect.Effect<ReadonlyArray<Block>, EndpointError>

/** What the ranges of one endpoint are read with. */
export interface RangeReader {
  readonly client: RpcClient
  readonly capabilities: Capabilities
  readonly getLogs: GetLogs
  /** The logs of a block by its methods, whatever its bloom. */
  readonly readBlock: BlockLogs
  /** The logs of a block, without a request if its bloom proves that it has none. */
  readonly block: BlockLogs
  readonly blockProblem: BlockCheck
  readonly rangeProblem: ReturnType<IntegrityChecks["range"]>
  /** Headers with their blooms only if these prove something. */
  readonly existingHeaders: ExistingHeaders
  /** The header, with its bloom only if it proves something. */
  readonly withBloom: (header: Header) => Header
  /** Whether the bloom allows matching logs. */
  readonly mayHaveLogs: (header: Header) => boolean
  /** Whether a replica that is behind may not have the block yet. */
  readonly isRecent: (header: Header) => boolean
  /** Whether to read block by block. */
  readonly isSingle: (from: number, to: number) => boolean
  readonly oneByOne: (headers: ReadonlyArray<Header>) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
}

/**
 * A lagging replica returns only the beginning of a range without an error, a pruned one only its end. Detects both by
 * the last blocks and by the block before the first one with logs, if their blooms match.
 */
const missingAtEnds = Effect.fnUntraced(function* (
  { readBlock, mayHaveLogs }: RangeReader,
  logs: ReadonlyArray<PlacedLog>,
  from: number,
  last: Header,
  ends: ReadonlyArray<Header>,
) {
  for (const header of [...(logs.at(-1)?.blockNumber === last.number ? [] : [last]), ...ends]) {
    if (header.number < from || !mayHaveLogs(header)) continue
    // Where the endpoint serves ranges only, it cannot be determined whether the block has logs.
    const block = yield* Effect.catchIf(
      readBlock(header),
      (error) => isRpcError(error) && errorKind(error) !== "BlockNotFound",
      () => Effect.succeed(undefined),
    )
    if (block !== undefined && block.logs.length > 0) return `the logs of block ${header.number} are missing`
  }
  return undefined
})

/** The headers of the first block and of the block before the first one with logs, where a pruned response would begin. */
const headersBelow = (
  { client, capabilities, withBloom }: RangeReader,
  logs: ReadonlyArray<PlacedLog>,
  from: number,
  to: number,
) => {
  const first = logs[0]?.blockNumber ?? to
  const numbers = [...new Set([from, first - 1])].filter((number) => number >= from && number < first)
  return Effect.map(Eth.blocksByNumber(client, numbers, capabilities), (headers) =>
    headers.filter((header) => header !== undefined).map(withBloom),
  )
}

/**
 * The headers between the last block with logs and the end of a range, where the response of a replica that is behind would
 * end: one batch, as no replica is further behind. Only a chain whose blocks are final within a minute costs them.
 */
const headersAbove = (
  { existingHeaders, isRecent }: RangeReader,
  logs: ReadonlyArray<PlacedLog>,
  from: number,
  last: Header,
) => {
  const lowest = Math.max((logs.at(-1)?.blockNumber ?? from - 1) + 1, last.number - mostCalls)
  return isRecent(last) && lowest < last.number
    ? existingHeaders.range(lowest, last.number - 1)
    : Effect.succeed([])
}

/** If index gaps are the only problem, reads the first such block by all methods to find out whether they are genuine. */
const rangeProblemOf = Effect.fnUntraced(function* (
  { client, capabilities, readBlock, rangeProblem, withBloom }: RangeReader,
  logs: ReadonlyArray<PlacedLog>,
  from: number,
  last: Header,
) {
  const problem = rangeProblem(logs, from, last, capabilities.hasIndexGaps)
  if (problem === undefined || rangeProblem(logs, from, last, true) !== undefined) return problem
  const byNumber = Map.groupBy(logs, (log) => log.blockNumber)
  const firstWithGaps = [...byNumber].find(([, ofBlock]) => hasIndexGaps(ofBlock))
  const header = firstWithGaps && (yield* Eth.blockByNumber(client, firstWithGaps[0]))
  if (header) yield* readBlock(withBloom(header))
  return capabilities.hasIndexGaps ? undefined : problem
})

/** Reads the whole range in one request, validated against the header of its last block. */
const fetchRange = Effect.fnUntraced(function* (
  reader: RangeReader,
  from: number,
  end: number,
  withTimes: boolean,
) {
  const { client, capabilities, getLogs } = reader
  const last = yield* reader.existingHeaders.atOrAbove(end)
  const to = last.number
  const logs = yield* getLogs({ from, to })
  const below = from < capabilities.servedFrom ? yield* headersBelow(reader, logs, from, to) : []
  const above = yield* headersAbove(reader, logs, from, last)
  const problem =
    (yield* rangeProblemOf(reader, logs, from, last)) ??
    (yield* missingAtEnds(reader, logs, from, last, [...above, ...below]))
  if (problem !== undefined) return yield* integrityError(client.name, problem)
  capabilities.servedFrom = Math.min(capabilities.servedFrom, from)
  capabilities.recordSupported("range")
  capabilities.recordSuccess(to - from + 1, logs.length)
  const found = [...Map.groupBy(logs, (log) => log.blockNumber).values()]
  freeItems(logs)
  const times = withTimes ? yield* blockTimes(client, capabilities, found, [last, ...below]) : undefined
  const blocks = found.map((logs): Block => {
    const { blockNumber: number, blockHash: hash } = logs[0]!
    const parentHash = number === to ? last.parentHash : unknownParent
    return { number, hash, parentHash, timestamp: times === undefined ? 0 : times.get(number)!, logs }
  })
  return blocks.at(-1)?.number === to ? blocks : [...blocks, blockOf(last, [])]
}, retryUnverified)

/** The last block of the range to request after this error: the hinted one, if it lies inside the request, or half of it. */
const narrower = (from: number, to: number, { reason }: EndpointError): number => {
  const half = from + Math.floor((to - from) / 2)
  if (reason._tag !== "Rejected" || reason.refusal.kind !== "RangeTooLarge") return half
  const { through, blocks } = reason.refusal
  const hinted = through ?? (blocks === undefined ? half : from + blocks - 1)
  return hinted >= from && hinted < to ? hinted : half
}

export const make = (reader: RangeReader): FinalizedRange => {
  const { capabilities, existingHeaders, isSingle, oneByOne } = reader

  const blockByBlock = Effect.fnUntraced(function* (from: number, to: number) {
    const end = Math.min(from + capabilities.recentWidth.current - 1, to)
    const headers = yield* existingHeaders.range(from, end)
    return yield* oneByOne(headers.length > 0 ? headers : [yield* existingHeaders.atOrAbove(end)])
  })

  const finalizedRange: FinalizedRange = (from, to, withTimes = true) => {
    if (isSingle(from, to)) return blockByBlock(from, to)
    return fetchRange(reader, from, to, withTimes).pipe(
      Effect.catch((error) => {
        const refusal = errorKind(error)
        // A shorter range may be complete when it is requested after the reconnect.
        if (error.reason._tag === "Unverified") capabilities.width.shrink(Math.ceil((to - from + 1) / 2))
        if (isRefused(refusal)) {
          capabilities.refuseRange(from, true)
          capabilities.width.shrink(mostCalls)
          return blockByBlock(from, to)
        }
        if (!isTooWide(refusal)) return Effect.fail(error)
        const through = narrower(from, to, error)
        capabilities.width.shrink(through - from + 1)
        return error.reason._tag === "Oversized"
          ? Effect.fail(error)
          : finalizedRange(from, through, withTimes)
      }),
    )
  }
  return finalizedRange
}
