/**
 * The logs of a block or of a range, complete or not at all.
 *
 * - `block`: one block, on the connection that announced it; without a request if its bloom proves that it has no logs.
 * - `unfinalizedRange`: a range above the finalized block. Every header is fetched, and a log is accepted only with the
 *   block hash of the header at its height.
 * - `finalizedRange`: a range up to the finalized block, as wide as the provider allows.
 *
 * A response that fails its integrity checks is retried, then read by another method, and otherwise is an error: never an
 * empty block.
 */
import { Effect } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { Block, Header } from "../Domain.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { blockNotFound, errorKind } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import * as BlockLogs from "./BlockLogs.ts"
import { blockOf } from "./BlockLogs.ts"
import { retryUnverified, recheckPolicy, ambiguousAsNotFound, isOld } from "./Rechecks.ts"
import { isZero, mayMatch } from "./Bloom.ts"
import * as ExistingHeaders from "./ExistingHeaders.ts"
import * as FinalizedRange from "./FinalizedRange.ts"
import { isRefused, isTooWide } from "./FinalizedRange.ts"
import { isUnfiltered } from "./Filter.ts"
import * as GetLogs from "./GetLogs.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import { freeItems } from "../Memory.ts"
import type { LogsSubscription } from "./LogsSubscription.ts"
import type { IntegrityChecks } from "./Integrity.ts"

/** Blocks of a range that are read concurrently when the range is read block by block. */
const singleBlockConcurrency = 4

export interface LogSource {
  readonly block: (header: Header) => Effect.Effect<Block, EndpointError>
  /** A range above the finalized block: all blocks, whether or not their parent hashes match. */
  readonly unfinalizedRange: (from: number, to: number) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
  readonly finalizedRange: FinalizedRange.FinalizedRange
  /** Width of the next finalized range, in blocks. */
  readonly width: () => number
  /** The name of the endpoint that currently serves blocks. */
  readonly servedBy: () => string
}

/** Assigns the logs of a range to their headers; blocks that fail their checks are requested one by one. */
const attachToHeaders = (
  { block, readBlock, blockProblem }: FinalizedRange.RangeReader,
  headers: ReadonlyArray<Header>,
  logs: ReadonlyArray<PlacedLog>,
) => {
  const byNumber = Map.groupBy(logs, (log) => log.blockNumber)
  freeItems(logs)
  return Effect.forEach(
    headers,
    (header) => {
      const found = byNumber.get(header.number) ?? []
      if (found.length === 0) return block(header)
      return blockProblem(found, header) === undefined
        ? Effect.succeed(blockOf(header, found))
        : readBlock(header)
    },
    { concurrency: singleBlockConcurrency },
  )
}

const unfinalizedRange = Effect.fnUntraced(function* (
  reader: FinalizedRange.RangeReader,
  from: number,
  to: number,
) {
  const { capabilities, oneByOne } = reader
  const existing = ambiguousAsNotFound(reader.existingHeaders.range(from, to))
  if (reader.isSingle(from, to)) return yield* oneByOne(yield* existing)
  const range = reader.getLogs({ from, to })
  const [headers, logs] = yield* Effect.all([existing, Effect.result(range)], { concurrency: 2 })
  if (logs._tag === "Success") {
    capabilities.recordSupported("range")
    capabilities.recordRecentSuccess(to - from + 1, logs.success.length)
    return yield* attachToHeaders(reader, headers, logs.success)
  }
  const refusal = errorKind(logs.failure)
  if (isTooWide(refusal)) capabilities.recentWidth.shrink(Math.floor((to - from + 1) / 2))
  // An oversized frame has closed the connection.
  if (refusal === undefined || logs.failure.reason._tag === "Oversized") return yield* logs.failure
  if (isRefused(refusal)) capabilities.refuseRange(from, false)
  return yield* oneByOne(headers)
}, retryUnverified)

/**
 * The logs of one endpoint.
 *
 * @param capabilities the endpoint's limits and refusals, updated here
 * @param newest the timestamp of the newest known head, in the node's own unit
 * @param announced the `logs` subscription of the same connection, if supported
 */
export const make = (
  client: RpcClient,
  { filter, logsBloom }: Pick<ChainConfig, "filter" | "logsBloom">,
  capabilities: Capabilities,
  checks: IntegrityChecks,
  newest: () => number | undefined,
  announced?: LogsSubscription,
): LogSource => {
  const unfiltered = isUnfiltered(filter)
  const getLogs = GetLogs.make(client, filter, capabilities)
  const options = { client, filter, capabilities, getLogs, checks, newest }
  const readBlock = BlockLogs.make({ ...options, announced: unfiltered ? announced : undefined })

  const withBloom = (header: Header): Header => {
    const proven = checks.bloom(header, capabilities.blooms)
    const bloom = logsBloom === "ignore" ? undefined : proven
    return bloom === header.logsBloom ? header : { ...header, logsBloom: bloom }
  }

  /** @param header as `withBloom` returns it */
  const mayHaveLogs = ({ logsBloom: bloom }: Header): boolean => {
    if (bloom === undefined) return true
    return unfiltered ? !isZero(bloom) : mayMatch(bloom, filter.addresses, filter.topics)
  }

  /** Checks an empty response under an announced bloom that proves nothing: the fetched header may have one that does. */
  const recheckEmpty = Effect.fnUntraced(function* (empty: Block, { number }: Header) {
    const fetched = yield* ambiguousAsNotFound(Eth.blockByNumber(client, number))
    if (fetched?.hash !== empty.hash) return yield* blockNotFound(client.name, number)
    const header = withBloom(fetched)
    return header.logsBloom !== undefined && mayHaveLogs(header) ? yield* readBlock(header) : empty
  })

  const block = Effect.fnUntraced(function* (given: Header) {
    const header = withBloom(given)
    if (!mayHaveLogs(header)) return blockOf(header, [])
    const mayRecheck =
      logsBloom === "trust" &&
      header.logsBloom === undefined &&
      given.origin === "announced" &&
      capabilities.blooms.fetched
    // An ignored bloom may still be right that the block has logs.
    const isIgnored = logsBloom === "ignore" && given.logsBloom !== undefined && !isZero(given.logsBloom)
    const whileEmpty = { while: ({ logs }: Block) => logs.length === 0, schedule: recheckPolicy }
    const read = readBlock(header)
    const found = yield* isIgnored && unfiltered ? Effect.repeat(read, whileEmpty) : read
    const block = mayRecheck && found.logs.length === 0 ? yield* recheckEmpty(found, given) : found
    capabilities.recordRecentSuccess(1, block.logs.length)
    return block
  })

  const reader: FinalizedRange.RangeReader = {
    client,
    capabilities,
    getLogs,
    readBlock,
    block,
    blockProblem: checks.block(filter),
    rangeProblem: checks.range(filter),
    existingHeaders: ExistingHeaders.make(client, capabilities, withBloom),
    withBloom,
    mayHaveLogs,
    isRecent: (header) => !isOld(header, newest()),
    // The endpoint refuses ranges, or the range is a single block.
    isSingle: (from, to) => from === to || !capabilities.ranges || capabilities.refused.has("eth_getLogs"),
    oneByOne: (headers) => Effect.forEach(headers, block, { concurrency: singleBlockConcurrency }),
  }
  return {
    block,
    unfinalizedRange: (from, to) => unfinalizedRange(reader, from, to),
    finalizedRange: FinalizedRange.make(reader),
    width: () => capabilities.width.current,
    servedBy: () => client.name,
  }
}
