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
import type { Block, Header, Hex } from "../Domain.ts"
import { hex } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { isRpcError, blockNotFound, errorKind, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { ErrorInfo } from "../endpoint/RpcError.ts"
import * as BlockLogs from "./BlockLogs.ts"
import { retryUnverified, recheckPolicy, blockOf, ambiguousAsNotFound } from "./BlockLogs.ts"
import { isZero, mayMatch } from "./Bloom.ts"
import { isUnfiltered } from "./Filter.ts"
import * as GetLogs from "./GetLogs.ts"
import * as Headers from "../endpoint/Headers.ts"
import type { NamedClient } from "../endpoint/Headers.ts"
import type { LogsSubscription } from "./LogsSubscription.ts"
import { hasIndexGaps } from "./Integrity.ts"
import type { IntegrityChecks } from "./Integrity.ts"

/** Blocks of a range that are read concurrently when the range is read block by block. */
const singleBlockConcurrency = 4

/** Whether a refused range may be too wide. Does not apply to single blocks. */
const isTooWide = (refusal: ErrorInfo["kind"] | undefined): boolean =>
  refusal === "RangeTooLarge" || refusal === "Unavailable"

/** Whether `eth_getLogs` is refused for any range, so that blocks must be read one by one by another method. */
const isRefused = (refusal: ErrorInfo["kind"] | undefined): boolean =>
  refusal === "AddressRequired" || refusal === "MethodNotSupported"

/** Largest number of consecutive heights without a block. */
const longestNullRun = 5

const unknownParent: Hex = `0x${"0".repeat(64)}`

export interface LogSource {
  readonly block: (header: Header) => Effect.Effect<Block, EndpointError>
  /** A range above the finalized block: all blocks, whether or not their parent hashes match. */
  readonly unfinalizedRange: (from: number, to: number) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
  /**
   * A finalized range: the blocks with logs, and the last one. If the range exceeds one response, only its beginning up to
   * the last returned block, so that memory is bounded by one response. If the last height has no block, the next block
   * above it is the last one.
   *
   * @param times whether timestamps are required, which may cost header requests; without them, blocks must not be stored
   */
  readonly finalizedRange: (
    from: number,
    to: number,
    times?: boolean,
  ) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
  /** Width of the next finalized range, in blocks. */
  readonly width: () => number
  /** The name of the endpoint that currently serves blocks. */
  readonly servedBy: () => string
}

/**
 * The logs of one endpoint.
 *
 * @param capabilities the endpoint's limits and refusals, updated here
 * @param newest the timestamp of the newest known head, in the node's own unit
 */
export const make = (
  client: NamedClient,
  { filter, logsBloom }: Pick<ChainConfig, "filter" | "logsBloom">,
  capabilities: Capabilities,
  checks: IntegrityChecks,
  newest: () => number | undefined,
  /** The `logs` subscription of the same connection, if supported. */
  announced?: LogsSubscription,
): LogSource => {
  const integrityProblem = checks.block(filter)
  const rangeProblem = checks.range(filter)
  const unfiltered = isUnfiltered(filter)
  const getLogs = GetLogs.make(client, filter, capabilities)
  const readBlock = BlockLogs.make(
    client,
    filter,
    capabilities,
    getLogs,
    checks,
    newest,
    unfiltered ? announced : undefined,
  )

  const integrityFailure = (detail: string) => integrityError(client.name, detail)

  /** The header, with its bloom only if it proves something. */
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
    const fetched = yield* ambiguousAsNotFound(Headers.header(client, number))
    if (fetched?.hash !== empty.hash) return yield* blockNotFound(client.name, number)
    const header = withBloom(fetched)
    return header.logsBloom !== undefined && mayHaveLogs(header) ? yield* readBlock(header) : empty
  })

  const block = (given: Header) => {
    const header = withBloom(given)
    if (!mayHaveLogs(header)) return Effect.succeed(blockOf(header, []))
    // An ignored bloom may still be right that the block has logs.
    const isIgnored = logsBloom === "ignore" && given.logsBloom !== undefined && !isZero(given.logsBloom)
    const mayRecheck =
      logsBloom === "trust" &&
      header.logsBloom === undefined &&
      given.origin === "announced" &&
      capabilities.blooms.fetched
    const block =
      isIgnored && unfiltered
        ? Effect.repeat(readBlock(header), {
            while: ({ logs }) => logs.length === 0,
            schedule: recheckPolicy,
          })
        : readBlock(header)
    return block.pipe(
      Effect.flatMap((block) =>
        mayRecheck && block.logs.length === 0 ? recheckEmpty(block, given) : Effect.succeed(block),
      ),
      Effect.tap(({ logs }) => Effect.sync(() => capabilities.recordRecentSuccess(1, logs.length))),
    )
  }

  const oneByOne = (headers: ReadonlyArray<Header>) =>
    Effect.forEach(headers, block, { concurrency: singleBlockConcurrency })

  const existingHeaders = (from: number, to: number) =>
    Effect.flatMap(
      Headers.headers(
        client,
        Array.from({ length: to - from + 1 }, (_, i) => from + i),
        capabilities,
      ),
      (headers) => {
        const missing = headers.indexOf(undefined)
        return missing === -1
          ? Effect.succeed((headers as ReadonlyArray<Header>).map(withBloom))
          : withoutNullRounds(headers, from)
      },
    )

  /**
   * Some chains have heights without a block (Filecoin's null rounds): there the block above is the child of the block
   * below. Any other missing height is not available yet.
   */
  const withoutNullRounds = Effect.fnUntraced(function* (
    found: ReadonlyArray<Header | undefined>,
    from: number,
  ) {
    const headers = [...found]
    for (let i = 0; i < longestNullRun && headers.at(-1) === undefined; i++) {
      headers.push(yield* Headers.header(client, from + headers.length))
    }
    const to = headers.length - 1
    let below = from === 0 ? undefined : yield* Headers.header(client, from - 1)
    let missing: number | undefined
    const existing: Array<Header> = []
    for (const [i, header] of headers.entries()) {
      if (header === undefined) {
        missing ??= from + i
        continue
      }
      if (missing !== undefined && below !== undefined && header.parentHash !== below.hash)
        return yield* blockNotFound(client.name, missing)
      missing = undefined
      below = header
      if (i < found.length) existing.push(withBloom(header))
    }
    if (missing !== undefined) return yield* blockNotFound(client.name, Math.min(missing, from + to))
    return existing
  })

  /** The header at a finalized height, or the next one above if that height has no block. */
  const headerFrom = Effect.fnUntraced(function* (number: number) {
    for (let i = 0; i <= longestNullRun; i++) {
      const header = yield* Headers.header(client, number + i)
      if (header !== undefined) return header
    }
    return yield* blockNotFound(client.name, number)
  })

  /** Whether a block has matching logs. `false` where it cannot be determined, because the endpoint serves ranges only. */
  const hasLogs = (header: Header) =>
    readBlock(header).pipe(
      Effect.map(({ logs }) => logs.length > 0),
      Effect.catchIf(
        (error) => isRpcError(error) && errorKind(error) !== "BlockNotFound",
        () => Effect.succeed(false),
      ),
    )

  /** Assigns the logs of a range to their headers; blocks that fail their checks are requested one by one. */
  const attachToHeaders = (headers: ReadonlyArray<Header>, logs: ReadonlyArray<PlacedLog>) => {
    const byNumber = Map.groupBy(logs, (log) => log.blockNumber)
    return Effect.forEach(
      headers,
      (header) => {
        const found = byNumber.get(header.number) ?? []
        if (found.length === 0) return block(header)
        return integrityProblem(found, header) === undefined
          ? Effect.succeed(blockOf(header, found))
          : readBlock(header)
      },
      { concurrency: singleBlockConcurrency },
    )
  }

  /** Whether to read block by block: the endpoint refuses ranges, or the range is a single block. */
  const isSingle = (from: number, to: number) =>
    from === to || !capabilities.ranges || capabilities.refused.has("eth_getLogs")

  const unfinalizedRange = Effect.fnUntraced(function* (from: number, to: number) {
    const existing = ambiguousAsNotFound(existingHeaders(from, to))
    if (isSingle(from, to)) return yield* oneByOne(yield* existing)
    const range = getLogs({ fromBlock: hex(from), toBlock: hex(to) })
    const [headers, logs] = yield* Effect.all([existing, Effect.result(range)], {
      concurrency: 2,
    })
    if (logs._tag === "Success") {
      capabilities.recordSupported("range")
      capabilities.recordRecentSuccess(to - from + 1, logs.success.length)
      return yield* attachToHeaders(headers, logs.success)
    }
    const refusal = errorKind(logs.failure)
    if (isTooWide(refusal)) capabilities.shrinkRecent(to - from + 1)
    // An oversized frame has closed the connection.
    if (refusal === undefined || logs.failure.reason._tag === "Oversized") return yield* logs.failure
    if (isRefused(refusal)) capabilities.refuseRange(from, false)
    return yield* oneByOne(headers)
  }, retryUnverified)

  /**
   * The timestamp of each block. The logs' `blockTimestamp` is used if it agrees with a known header; otherwise headers are
   * fetched, and their hashes are compared too.
   *
   * @param known headers of the range that are already fetched
   */
  const timestamps = Effect.fnUntraced(function* (
    blocks: ReadonlyArray<ReadonlyArray<PlacedLog>>,
    known: ReadonlyArray<Header>,
  ) {
    const times = new Map<number, number>(known.map(({ number, timestamp }) => [number, timestamp]))
    const headersOf = Effect.fnUntraced(function* (logs: ReadonlyArray<PlacedLog>) {
      const headers = yield* Headers.headers(
        client,
        logs.map((log) => log.blockNumber),
        capabilities,
      )
      for (const [i, header] of headers.entries()) {
        const { blockHash, blockNumber } = logs[i]!
        if (header?.hash !== blockHash)
          return yield* integrityFailure(`block ${blockNumber} has another hash`)
        times.set(header.number, header.timestamp)
      }
    })
    const firsts = blocks.map(([log]) => log!)
    if (firsts.length === 0) return times
    if (!firsts.some(({ blockNumber }) => times.has(blockNumber))) yield* headersOf([firsts.at(-1)!])
    const latest = known.reduce((time, { timestamp }) => Math.max(time, timestamp), 0)
    const isPlausible = (time: number | undefined): time is number =>
      time !== undefined && time > 0 && time <= latest
    const agrees = firsts.every(
      ({ blockNumber, blockTimestamp }) =>
        !times.has(blockNumber) || (blockTimestamp ?? 0) === times.get(blockNumber),
    )
    const unknown = firsts.filter(({ blockNumber, blockTimestamp }) => {
      if (times.has(blockNumber)) return false
      if (!agrees || !isPlausible(blockTimestamp)) return true
      times.set(blockNumber, blockTimestamp)
      return false
    })
    if (unknown.length > 0) yield* headersOf(unknown)
    return times
  })

  /**
   * A lagging replica returns only the beginning of a range without an error, a pruned one only its end. Detects both by
   * the last block and by the block before the first one with logs, if their blooms match.
   */
  const missingAtEnds = Effect.fnUntraced(function* (
    logs: ReadonlyArray<PlacedLog>,
    from: number,
    last: Header,
    below: ReadonlyArray<Header>,
  ) {
    const ends = [...(logs.at(-1)?.blockNumber === last.number ? [] : [last]), ...below]
    for (const header of ends) {
      if (header.number >= from && mayHaveLogs(header) && (yield* hasLogs(header)))
        return `the logs of block ${header.number} are missing`
    }
    return undefined
  })

  /** The headers of the first block and of the block before the first one with logs, where a pruned response would begin. */
  const headersBelow = (logs: ReadonlyArray<PlacedLog>, from: number, to: number) => {
    const first = logs[0]?.blockNumber ?? to
    const numbers = [...new Set([from, first - 1])].filter((number) => number >= from && number < first)
    return Effect.map(Headers.headers(client, numbers, capabilities), (headers) =>
      headers.flatMap((header) => (header === undefined ? [] : [withBloom(header)])),
    )
  }

  /** If index gaps are the only problem, reads the first such block by all methods to find out whether they are genuine. */
  const rangeProblemOf = Effect.fnUntraced(function* (
    logs: ReadonlyArray<PlacedLog>,
    from: number,
    last: Header,
  ) {
    const problem = rangeProblem(logs, from, last, capabilities.hasIndexGaps)
    if (problem === undefined || rangeProblem(logs, from, last, true) !== undefined) return problem
    const byNumber = Map.groupBy(logs, (log) => log.blockNumber)
    const firstWithGaps = [...byNumber].find(([, ofBlock]) => hasIndexGaps(ofBlock))
    const header = firstWithGaps && (yield* Headers.header(client, firstWithGaps[0]))
    if (header) yield* readBlock(withBloom(header))
    return capabilities.hasIndexGaps ? undefined : problem
  })

  /** Reads the whole range in one request, validated against the header of its last block. */
  const fetchRange = Effect.fnUntraced(function* (from: number, end: number, withTimes: boolean) {
    const last = withBloom(yield* headerFrom(end))
    const to = last.number
    const logs = yield* getLogs({ fromBlock: hex(from), toBlock: hex(to) })
    const below = from < capabilities.servedFrom ? yield* headersBelow(logs, from, to) : []
    const problem =
      (yield* rangeProblemOf(logs, from, last)) ?? (yield* missingAtEnds(logs, from, last, below))
    if (problem !== undefined) return yield* integrityFailure(problem)
    capabilities.servedFrom = Math.min(capabilities.servedFrom, from)
    capabilities.recordSupported("range")
    capabilities.recordSuccess(to - from + 1, logs.length)
    const found = [...Map.groupBy(logs, (log) => log.blockNumber).values()]
    const times = withTimes ? yield* timestamps(found, [last, ...below]) : undefined
    const blocks = found.map((logs): Block => {
      const { blockNumber: number, blockHash: hash } = logs[0]!
      const parentHash = number === last.number ? last.parentHash : unknownParent
      return { number, hash, parentHash, timestamp: times === undefined ? 0 : times.get(number)!, logs }
    })
    return blocks.at(-1)?.number === to ? blocks : [...blocks, blockOf(last, [])]
  }, retryUnverified)

  const narrower = (from: number, to: number, refusal: ErrorInfo | undefined): number => {
    const half = from + Math.floor((to - from) / 2)
    if (refusal?.kind !== "RangeTooLarge") return half
    const hinted = refusal.through ?? (refusal.blocks === undefined ? undefined : from + refusal.blocks - 1)
    // A hint must lie inside the request and be smaller than it.
    return hinted !== undefined && hinted >= from && hinted < to ? hinted : half
  }

  const finalizedRange = (
    from: number,
    to: number,
    withTimes = true,
  ): Effect.Effect<ReadonlyArray<Block>, EndpointError> => {
    const blockByBlock = Effect.gen(function* () {
      const end = Math.min(from + capabilities.recentWidth - 1, to)
      const headers = yield* existingHeaders(from, end)
      return yield* oneByOne(headers.length > 0 ? headers : [withBloom(yield* headerFrom(end))])
    })
    if (isSingle(from, to)) return blockByBlock
    return fetchRange(from, to, withTimes).pipe(
      Effect.catch((error) => {
        const refusal = errorKind(error)
        // A shorter range may be complete when it is requested after the reconnect.
        if (error.reason._tag === "Unverified") capabilities.shrink(Math.ceil((to - from + 1) / 2))
        if (isRefused(refusal)) {
          capabilities.refuseRange(from, true)
          capabilities.shrink(Headers.mostPerBatch)
          return blockByBlock
        }
        if (!isTooWide(refusal)) return Effect.fail(error)
        const { reason } = error
        const through = narrower(from, to, reason._tag === "Rejected" ? reason.refusal : undefined)
        capabilities.shrink(through - from + 1)
        return reason._tag === "Oversized" ? Effect.fail(error) : finalizedRange(from, through, withTimes)
      }),
    )
  }

  return {
    block,
    unfinalizedRange,
    finalizedRange,
    width: () => capabilities.width,
    servedBy: () => client.name,
  }
}
