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
import type { ChainConfig } from "../Config.ts"
import type { Block, Header, Hex } from "../Domain.ts"
import { hex } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { isRefusal, refusalOf, unverified } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Learned } from "../endpoint/Learned.ts"
import type { Refusal } from "../endpoint/Refusal.ts"
import * as BlockLogs from "./BlockLogs.ts"
import { again, askAgain, blockOf } from "./BlockLogs.ts"
import { emptyBloom, isZero, mayMatch, toHex } from "./Bloom.ts"
import { isUnfiltered } from "./Filter.ts"
import * as GetLogs from "./GetLogs.ts"
import * as Headers from "./Headers.ts"
import type { Asker } from "./Headers.ts"
import type { LogsSubscription } from "./LogsSubscription.ts"
import type { Checks } from "./Verify.ts"

/** Blocks of one range whose logs are read one by one at the same time. */
const singleBlocks = 4

/** A range is refused that may be too wide. What is said of one block is another matter. */
const isTooWide = (refusal: Refusal["action"] | undefined): boolean =>
  refusal === "split" || refusal === "other endpoint"

/** `eth_getLogs` is refused for whatever range: blocks are to be read one by one, in another way. */
const isRefused = (refusal: Refusal["action"] | undefined): boolean =>
  refusal === "use receipts" || refusal === "unsupported"

const unknownParent: Hex = `0x${"0".repeat(64)}`

const noBloom = toHex(emptyBloom())

export interface Logs {
  readonly tip: (header: Header) => Effect.Effect<Block, EndpointError>
  /** A range above the final block. All blocks, linked or not. */
  readonly recent: (from: number, to: number) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
  /**
   * A range of final blocks: those with logs, and the last one. Where the whole is too much for one answer, only its
   * beginning, whose last block says how far it goes: what is held is bounded by what one answer may be.
   */
  readonly history: (from: number, to: number) => Effect.Effect<ReadonlyArray<Block>, EndpointError>
  /** Blocks that the next piece of history should have. */
  readonly width: () => number
  /** The name of the endpoint that is asked for blocks now. */
  readonly by: () => string
}

/** The logs of one endpoint. @param learned what it was found to bear, and is found to bear here */
export const make = (
  asker: Asker,
  { filter, logsBloom }: Pick<ChainConfig, "filter" | "logsBloom">,
  learned: Learned,
  checks: Checks,
  /** The logs that the same connection announces, where they can be used. */
  announced?: LogsSubscription,
): Logs => {
  const unbelievable = checks.block(filter)
  const unbelievableRange = checks.range(filter)
  const unfiltered = isUnfiltered(filter)
  const getLogs = GetLogs.make(asker, filter, learned)
  const ask = BlockLogs.make(asker, filter, learned, getLogs, checks, unfiltered ? announced : undefined)

  const doubt = (detail: string) => unverified(asker.name, detail)

  /** A bloom that is to be ignored says as little as one of zeros. */
  const withBloom = (header: Header): Header =>
    logsBloom === "ignore" ? { ...header, logsBloom: noBloom } : header

  const mayHaveLogs = ({ logsBloom: bloom }: Header): boolean => {
    if (!isZero(bloom)) learned.computesBlooms = true
    if (isZero(bloom) && !learned.computesBlooms) return true
    return unfiltered ? !isZero(bloom) : mayMatch(bloom, filter.addresses, filter.topics)
  }

  const tip = (seen: Header) => {
    const header = withBloom(seen)
    if (!mayHaveLogs(header)) return Effect.succeed(blockOf(header, []))
    // A bloom that is ignored may still be right that there are some.
    const doubted = unfiltered && header !== seen && !isZero(seen.logsBloom)
    const block = doubted
      ? Effect.repeat(ask(header), { while: ({ logs }) => logs.length === 0, schedule: askAgain })
      : ask(header)
    return Effect.tap(block, ({ logs }) => Effect.sync(() => learned.answeredRecent(1, logs.length)))
  }

  const oneByOne = (headers: ReadonlyArray<Header>) =>
    Effect.forEach(headers, tip, { concurrency: singleBlocks })

  const existingHeaders = (from: number, to: number) =>
    Effect.flatMap(
      Headers.headers(
        asker,
        Array.from({ length: to - from + 1 }, (_, i) => from + i),
        learned,
      ),
      (headers) => {
        const missing = headers.indexOf(undefined)
        return missing === -1
          ? Effect.succeed((headers as ReadonlyArray<Header>).map(withBloom))
          : doubt(`the node does not have block ${from + missing}`)
      },
    )

  /** Logs of a range under their headers; blocks that are not as they must be are asked for one by one. */
  const settle = (headers: ReadonlyArray<Header>, logs: ReadonlyArray<PlacedLog>) => {
    const byNumber = Map.groupBy(logs, (log) => log.blockNumber)
    return Effect.forEach(
      headers,
      (header) => {
        const found = byNumber.get(header.number) ?? []
        if (found.length === 0) return tip(header)
        if (!isZero(header.logsBloom)) learned.computesBlooms = true
        return unbelievable(found, header) === undefined
          ? Effect.succeed(blockOf(header, found))
          : ask(header)
      },
      { concurrency: singleBlocks },
    )
  }

  /** Without an address, ranges are refused where single blocks are; and a range of one is a block. */
  const isSingle = (from: number, to: number) => from === to || learned.refused.has("eth_getLogs")

  const recent = Effect.fnUntraced(function* (from: number, to: number) {
    if (isSingle(from, to)) return yield* oneByOne(yield* existingHeaders(from, to))
    const range = getLogs({ fromBlock: hex(from), toBlock: hex(to) })
    const [headers, logs] = yield* Effect.all([existingHeaders(from, to), Effect.result(range)], {
      concurrency: 2,
    })
    if (logs._tag === "Success") {
      learned.answeredRecent(to - from + 1, logs.success.length)
      return yield* settle(headers, logs.success)
    }
    const refusal = refusalOf(logs.failure)
    if (isTooWide(refusal)) learned.narrowRecent(to - from + 1)
    // After a frame that was too large there is no connection any more.
    if (refusal === undefined || logs.failure.reason._tag === "Oversized") return yield* logs.failure
    if (isRefused(refusal)) learned.refused.add("eth_getLogs")
    return yield* oneByOne(headers)
  }, again)

  /** Timestamps, from the logs where the node puts them there, else from the headers. */
  const timestamps = Effect.fnUntraced(function* (blocks: ReadonlyArray<ReadonlyArray<PlacedLog>>) {
    const known = new Map<number, number>()
    for (const [log] of blocks)
      if (log!.blockTimestamp !== undefined) known.set(log!.blockNumber, log!.blockTimestamp)
    const unknown = blocks.filter(([log]) => !known.has(log!.blockNumber))
    const headers = yield* Headers.headers(
      asker,
      unknown.map(([log]) => log!.blockNumber),
      learned,
    )
    for (const [i, header] of headers.entries()) {
      const log = unknown[i]![0]!
      if (header?.hash !== log.blockHash) return yield* doubt(`block ${log.blockNumber} has another hash`)
      known.set(header.number, header.timestamp)
    }
    return known
  })

  /**
   * A replica that is behind, or another one than told the header, answers the beginning of a range as if it were the
   * whole: that it says nothing of the last block shows it.
   */
  const cutShort = Effect.fnUntraced(function* (logs: ReadonlyArray<PlacedLog>, last: Header) {
    if (logs.at(-1)?.blockNumber === last.number || !mayHaveLogs(last)) return undefined
    const isEmpty =
      unfiltered && !isZero(last.logsBloom)
        ? false
        : yield* getLogs({ blockHash: last.hash }).pipe(
            Effect.map((logs) => logs.length === 0),
            // Where only ranges are granted, nobody can tell.
            Effect.catchIf(
              (error) => isRefusal(error) && refusalOf(error) !== "wait for head",
              () => Effect.succeed(true),
            ),
          )
    return isEmpty ? undefined : `the logs of block ${last.number} are missing`
  })

  /** One answer for the whole range, under the header of its last block. */
  const whole = Effect.fnUntraced(function* (from: number, to: number) {
    const seen = yield* Headers.header(asker, to)
    if (seen === undefined) return yield* doubt(`the node does not have block ${to}`)
    const last = withBloom(seen)
    const logs = yield* getLogs({ fromBlock: hex(from), toBlock: hex(to) })
    const wrong = unbelievableRange(logs, from, last) ?? (yield* cutShort(logs, last))
    if (wrong !== undefined) return yield* doubt(wrong)
    learned.answered(to - from + 1, logs.length)
    const found = [...Map.groupBy(logs, (log) => log.blockNumber).values()]
    const times = yield* timestamps(found)
    const blocks = found.map((logs): Block => {
      const { blockNumber: number, blockHash: hash } = logs[0]!
      const parentHash = number === last.number ? last.parentHash : unknownParent
      return { number, hash, parentHash, timestamp: times.get(number)!, logs }
    })
    return blocks.at(-1)?.number === to ? blocks : [...blocks, blockOf(last, [])]
  }, again)

  const narrower = (from: number, to: number, refusal: Refusal | undefined): number => {
    const half = from + Math.floor((to - from) / 2)
    if (refusal?.action !== "split") return half
    const hinted = refusal.through ?? (refusal.blocks === undefined ? undefined : from + refusal.blocks - 1)
    // A hint must lie inside the request and be smaller than it.
    return hinted !== undefined && hinted >= from && hinted < to ? hinted : half
  }

  const history = (from: number, to: number): Effect.Effect<ReadonlyArray<Block>, EndpointError> => {
    const singly = Effect.suspend(() =>
      Effect.flatMap(existingHeaders(from, Math.min(from + learned.recentWidth - 1, to)), oneByOne),
    )
    if (isSingle(from, to)) return singly
    return whole(from, to).pipe(
      Effect.catch((error) => {
        const refusal = refusalOf(error)
        // Perhaps a shorter one is answered as a whole: when it is asked again, after the end of this connection.
        if (error.reason._tag === "Unverified") learned.narrow(Math.ceil((to - from + 1) / 2))
        if (isRefused(refusal)) {
          learned.refused.add("eth_getLogs")
          learned.narrow(Headers.mostPerBatch)
          return singly
        }
        if (!isTooWide(refusal)) return Effect.fail(error)
        const { reason } = error
        const through = narrower(from, to, reason._tag === "Rejected" ? reason.refusal : undefined)
        learned.narrow(through - from + 1)
        return reason._tag === "Oversized" ? Effect.fail(error) : history(from, through)
      }),
    )
  }

  return { tip, recent, history, width: () => learned.width, by: () => asker.name }
}
