/**
 * The logs of a block or of a range, complete or not at all.
 *
 * - `tip`: one block, on the connection that announced it; without a request when its bloom says that there are none.
 * - `recent`: a range above the final block. Every header is fetched, and a log is believed only under the hash of its
 *   height's header.
 * - `history`: a range at or below the final block, as wide as the provider bears it.
 *
 * What fails its checks is asked again, then read in another way, and else is an error: never an empty block.
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

/** Blocks of one range whose logs are read one by one at the same time. */
const singleBlockConcurrency = 4

/** A range is refused that may be too wide. What is said of one block is another matter. */
const isTooWide = (refusal: ErrorInfo["kind"] | undefined): boolean =>
  refusal === "RangeTooLarge" || refusal === "Unavailable"

/** `eth_getLogs` is refused for whatever range: blocks are to be read one by one, in another way. */
const isRefused = (refusal: ErrorInfo["kind"] | undefined): boolean =>
  refusal === "AddressRequired" || refusal === "MethodNotSupported"

/** Heights without a block that may follow one another. */
const longestNullRun = 5

const unknownParent: Hex = `0x${"0".repeat(64)}`

export interface LogSource {
  readonly block: (header: Header) => Effect.Effect<Block, EndpointError>
  /** A range above the final block. All blocks, linked or not. */
  readonly unfinalizedRange: (from: number, to: number) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
  /**
   * A range of final blocks: those with logs, and the last one. Where the whole is too much for one answer, only its
   * beginning, whose last block says how far it goes: what is held is bounded by what one answer may be. Where the last
   * height has no block, the next block above is the last one.
   *
   * @param times whether the blocks' times are wanted, which may cost headers; without, they are not to be stored
   */
  readonly finalizedRange: (
    from: number,
    to: number,
    times?: boolean,
  ) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
  /** Blocks that the next piece of history should have. */
  readonly width: () => number
  /** The name of the endpoint that is asked for blocks now. */
  readonly servedBy: () => string
}

/**
 * The logs of one endpoint.
 *
 * @param capabilities what it was found to bear, and is found to bear here
 * @param newest the time of the newest head that is known, in the node's own units
 */
export const make = (
  client: NamedClient,
  { filter, logsBloom }: Pick<ChainConfig, "filter" | "logsBloom">,
  capabilities: Capabilities,
  checks: IntegrityChecks,
  newest: () => number | undefined,
  /** The logs that the same connection announces, where they can be used. */
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

  /** The header with its bloom as far as it proves something. */
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

  /** An empty answer under an announced bloom that proves nothing: the fetched header may have one that does. */
  const recheckEmpty = Effect.fnUntraced(function* (empty: Block, { number }: Header) {
    const fetched = yield* ambiguousAsNotFound(Headers.header(client, number))
    if (fetched?.hash !== empty.hash) return yield* blockNotFound(client.name, number)
    const header = withBloom(fetched)
    return header.logsBloom !== undefined && mayHaveLogs(header) ? yield* readBlock(header) : empty
  })

  const block = (given: Header) => {
    const header = withBloom(given)
    if (!mayHaveLogs(header)) return Effect.succeed(blockOf(header, []))
    // A bloom that is ignored may still be right that there are some.
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
   * Heights without a block exist on some chains (Filecoin's null rounds): there the block above is on top of the block
   * below. Any other height that is missing is not there yet.
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

  /** The header at a height of final blocks, or the next one above where that height has no block. */
  const headerFrom = Effect.fnUntraced(function* (number: number) {
    for (let i = 0; i <= longestNullRun; i++) {
      const header = yield* Headers.header(client, number + i)
      if (header !== undefined) return header
    }
    return yield* blockNotFound(client.name, number)
  })

  /** Whether a block has matching logs, by all checks. Where only ranges are granted it cannot be known: `false`. */
  const hasLogs = (header: Header) =>
    readBlock(header).pipe(
      Effect.map(({ logs }) => logs.length > 0),
      Effect.catchIf(
        (error) => isRpcError(error) && errorKind(error) !== "BlockNotFound",
        () => Effect.succeed(false),
      ),
    )

  /** Logs of a range under their headers; blocks that are not as they must be are asked for one by one. */
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

  /** Ranges are refused where single blocks are; and a range of one is a block. */
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
    // After a frame that was too large there is no connection any more.
    if (refusal === undefined || logs.failure.reason._tag === "Oversized") return yield* logs.failure
    if (isRefused(refusal)) capabilities.refuseRange(from, false)
    return yield* oneByOne(headers)
  }, retryUnverified)

  /**
   * The time of each block. That of its logs is used where the node's `blockTimestamp` agrees with a header that is
   * known; else headers are fetched, and their hashes are compared too.
   *
   * @param known headers of the range that were fetched anyway
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
   * A replica that is behind answers the beginning of a range as if it were the whole; one that was pruned answers its
   * end. The last block, and the one before the first that has logs, show it where their blooms match.
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

  /** The first block of a range, and the one before the first that has logs: where a pruned answer would begin. */
  const headersBelow = (logs: ReadonlyArray<PlacedLog>, from: number, to: number) => {
    const first = logs[0]?.blockNumber ?? to
    const numbers = [...new Set([from, first - 1])].filter((number) => number >= from && number < first)
    return Effect.map(Headers.headers(client, numbers, capabilities), (headers) =>
      headers.flatMap((header) => (header === undefined ? [] : [withBloom(header)])),
    )
  }

  /** Where nothing but holes in the indexes is wrong, the first such block is read in every way to know whether they are. */
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

  /** One answer for the whole range, under the header of its last block. */
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
        // Perhaps a shorter one is answered as a whole: when it is asked again, after the end of this connection.
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
