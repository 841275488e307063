/**
 * Reads the logs of one block by the cheapest method that works:
 *
 * 1. `eth_getLogs` by block hash: a node without the block must then return an error instead of `[]`;
 * 2. `eth_getBlockReceipts`, if the first is refused, exceeds one response, or keeps failing its integrity checks;
 * 3. the `logs` subscription, if both are refused; without a filter, and for blocks that were just announced;
 * 4. `eth_getTransactionReceipt` in small batches, for a block too large for one response, so that no block stops a chain.
 *
 * Each response is validated; methods that an endpoint refuses are remembered in its capabilities.
 */
import { Effect } from "effect"
import type { Block, Filter, Header, Hex } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { endsConnection, errorKind, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Capabilities, LogMethod } from "../endpoint/Capabilities.ts"
import { isUnfiltered, makeMatches } from "./Filter.ts"
import type { GetLogs } from "./GetLogs.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import type { LogsSubscription } from "./LogsSubscription.ts"
import { mayMatch } from "./Bloom.ts"
import { hasIndexGaps, checkCompleteWithGaps, inconsistent, wrongBloom } from "./Integrity.ts"
import type { IntegrityChecks } from "./Integrity.ts"
import { logsByReceipt, transactionsOf } from "./Receipts.ts"
import { asBlockNotFound, isAboutMethod, isAmbiguous, retryUnverified } from "./Rechecks.ts"

/**
 * While a block was first requested less than this ago (milliseconds), an ambiguous error means that the node does not
 * have the block yet.
 */
const arrivalWindow = 5_000

/** A block this much older than the newest head (milliseconds) exists on every node: a refusal applies to all blocks. */
const oldBlockAge = 60_000

/** Some nodes send milliseconds. A timestamp in seconds reaches 1e11 only in the year 5138. */
const millisOf = (timestamp: number) => (timestamp < 1e11 ? timestamp * 1000 : timestamp)

/** Blocks whose first request time is remembered. */
const mostTracked = 64

/** A block with these logs. */
export const blockOf = (header: Header, logs: ReadonlyArray<PlacedLog>): Block => ({
  number: header.number,
  hash: header.hash,
  parentHash: header.parentHash,
  timestamp: header.timestamp,
  logs,
})

/** The responses for one block so far, valid or not. */
interface Answers {
  logs: ReadonlyArray<PlacedLog> | undefined
  receipts: ReadonlyArray<PlacedLog> | undefined
  receiptCount: number
  /** Whether the block is so recent that a replica may not have it yet. */
  isFresh: boolean
}

/** Reads a block's logs. Fails with an integrity error if no response is valid, else with the error of a method. */
export type BlockLogs = (header: Header) => Effect.Effect<Block, EndpointError>

/**
 * @param capabilities the endpoint's limits and refusals, updated here
 * @param newest the timestamp of the newest known head, in the node's own unit; the local clock may be wrong, and every
 *   block could look old by it
 * @param announced the connection's `logs` subscription, which requires that there is no filter
 */
export const make = (
  client: RpcClient,
  filter: Filter,
  capabilities: Capabilities,
  getLogs: GetLogs,
  checks: IntegrityChecks,
  newest: () => number | undefined,
  announced: LogsSubscription | undefined,
): BlockLogs => {
  const matches = makeMatches(filter)
  const integrityProblem = checks.block(filter)

  const integrityFailure = (detail: string) => integrityError(client.name, detail)

  const unfiltered = isUnfiltered(filter)
  const emptyProblem = checks.empty(filter)

  const validated = (header: Header) => (logs: ReadonlyArray<PlacedLog>) => {
    const problem =
      (unfiltered && capabilities.hasIndexGaps ? checkCompleteWithGaps : integrityProblem)(logs, header) ??
      emptyProblem(logs, header)
    return problem === undefined ? Effect.succeed(blockOf(header, logs)) : integrityFailure(problem)
  }

  const byHash = (header: Header, answers: Answers) =>
    Effect.flatMap(getLogs({ blockHash: header.hash, number: header.number }), (logs) => {
      answers.logs = logs
      return validated(header)(logs)
    })

  /**
   * Where heads are polled, each response may come from another replica, so an empty one for a fresh block may come from
   * a replica without the block. Only a bloom that does not match the filter proves that there are no logs.
   */
  const rejectUnprovenEmpty = (header: Header, { isFresh }: Answers) =>
    Effect.flatMap((block: Block) => {
      const { logsBloom: bloom } = header
      const isProven = bloom !== undefined && !mayMatch(bloom, filter.addresses, filter.topics)
      // `polled` may change later, when the subscription is refused.
      return client.polled === true && isFresh && block.logs.length === 0 && !isProven
        ? integrityFailure(`no logs in block ${header.number}, which another replica may have`)
        : Effect.succeed(block)
    })

  /** An unproven empty response is checked against the receipts; without receipts, the request is retried. */
  const byGetLogs = (header: Header, answers: Answers) => {
    const rejectUnproven = rejectUnprovenEmpty(header, answers)
    return capabilities.allows("eth_getBlockReceipts", header.hash)
      ? rejectUnproven(retryUnverified(byHash(header, answers)))
      : retryUnverified(rejectUnproven(byHash(header, answers)))
  }

  /** Validates all logs of a block together, then filters them. */
  const checkedBlock = (header: Header, logs: ReadonlyArray<PlacedLog>) => {
    const problem = (capabilities.hasIndexGaps ? checkCompleteWithGaps : checks.whole)(logs, header)
    return problem === undefined
      ? Effect.succeed(blockOf(header, logs.filter(matches)))
      : integrityFailure(problem)
  }

  const byBlockReceipts = Effect.fnUntraced(function* (header: Header, answers: Answers) {
    const receipts = yield* Eth.blockReceipts(client, header.hash)
    if (receipts === undefined) return yield* integrityFailure(`no receipts for block ${header.number}`)
    const { count, logs } = receipts
    answers.receipts = logs
    answers.receiptCount = count
    // Without a bloom only the number of transactions shows that no receipt is missing.
    if (header.logsBloom === undefined && header.executed !== false) yield* checkReceiptCount(header, count)
    const block = yield* checkedBlock(header, logs)
    return extendsReceipts(header, answers.logs, block.logs) ? blockOf(header, answers.logs) : block
  })

  /**
   * Whether `eth_getLogs` returned all logs of the receipts and more: logs of a system transaction without a receipt, such
   * as Polygon's state sync. The bloom does not include them either.
   */
  const extendsReceipts = (
    header: Header,
    logs: ReadonlyArray<PlacedLog> | undefined,
    receipts: ReadonlyArray<Pick<PlacedLog, "index" | "txHash">>,
  ): logs is ReadonlyArray<PlacedLog> => {
    if (logs === undefined || logs.length <= receipts.length || inconsistent(logs, header) !== undefined)
      return false
    if (unfiltered && hasIndexGaps(logs)) return false
    const present = new Set(logs.map(({ index, txHash }) => `${index} ${txHash}`))
    return receipts.every(({ index, txHash }) => present.has(`${index} ${txHash}`))
  }

  const checkReceiptCount = (header: Header, count: number) =>
    Effect.flatMap(transactionsOf(client, header), (transactions) =>
      transactions.length === count
        ? Effect.void
        : integrityFailure(
            `${count} receipts for the ${transactions.length} transactions of block ${header.number}`,
          ),
    )

  /**
   * The block on which two methods agree although it fails a check: then the header's bloom is wrong, or the log indexes
   * of this chain have gaps. A log that only `eth_getLogs` returns belongs to a system transaction without a receipt.
   */
  const agreedBlock = Effect.fnUntraced(function* (
    header: Header,
    { logs, receipts: ofReceipts, receiptCount }: Answers,
  ) {
    if (logs === undefined || inconsistent(ofReceipts ?? [], header) !== undefined) return undefined
    if (ofReceipts === undefined) {
      // Without receipts, an empty response is accepted if the node has the block.
      if (unfiltered || logs.length > 0) return undefined
      yield* transactionsOf(client, header)
      return blockOf(header, logs)
    }
    const present = new Set(logs.map(({ index, txHash }) => `${index} ${txHash}`))
    const isMissing = ofReceipts.some((log) => matches(log) && !present.has(`${log.index} ${log.txHash}`))
    if (isMissing || (unfiltered && inconsistent(logs, header) !== undefined)) return undefined
    yield* checkReceiptCount(header, receiptCount)
    const all = unfiltered ? logs : ofReceipts
    if (!hasIndexGaps(all)) capabilities.bloomMismatches++
    // Gaps and a bloom of other logs: both methods omit a log.
    else if (wrongBloom(all, header) !== undefined) return undefined
    else capabilities.hasIndexGaps = true
    return blockOf(header, logs)
  })

  const bySubscription = (header: Header) =>
    announced === undefined
      ? integrityFailure(`the logs of block ${header.number} are not announced`)
      : Effect.flatMap(announced.logs(header), validated(header))

  const byReceipt = (header: Header) =>
    Effect.flatMap(logsByReceipt(client, capabilities, header), (logs) => checkedBlock(header, logs))

  const fallbacks: ReadonlyArray<
    readonly [LogMethod, (header: Header, answers: Answers) => Effect.Effect<Block, EndpointError>]
  > = [
    ["eth_getLogs", byGetLogs],
    ["eth_getBlockReceipts", (header, answers) => retryUnverified(byBlockReceipts(header, answers))],
    ["eth_subscribe", bySubscription],
    ["eth_getTransactionReceipt", (header) => retryUnverified(byReceipt(header))],
  ]

  const isSupported = (method: LogMethod, { hash }: Header): boolean =>
    capabilities.allows(method, hash) &&
    (method !== "eth_subscribe" ||
      (announced !== undefined &&
        capabilities.wasRefused("eth_getLogs") &&
        capabilities.wasRefused("eth_getBlockReceipts")))

  /** When blocks were first requested. */
  const firstRequestedAt = new Map<Hex, number>()

  const ageOf = ({ hash, timestamp }: Header, now: number) => {
    const since = firstRequestedAt.get(hash) ?? now
    firstRequestedAt.set(hash, since)
    if (firstRequestedAt.size > mostTracked) firstRequestedAt.delete(firstRequestedAt.keys().next().value!)
    const isOld = millisOf(newest() ?? timestamp) - millisOf(timestamp) >= oldBlockAge
    return { isOld, isArriving: !isOld && now - since < arrivalWindow }
  }

  /** Records what an error reveals about the endpoint; returns whether to try the next method. */
  const recordFailure = (
    method: LogMethod,
    { hash }: Header,
    error: EndpointError,
    { isOld, isArriving }: ReturnType<typeof ageOf>,
  ): boolean => {
    if (error.reason._tag === "Unverified") return true
    switch (errorKind(error)) {
      case "RangeTooLarge":
        // There is no other method for a single receipt that is too large.
        if (method !== "eth_getTransactionReceipt") capabilities.markOversized(method, hash)
        return error.reason._tag !== "Oversized"
      case "AddressRequired":
      case "MethodNotSupported":
        if (!isArriving || isAboutMethod(error)) capabilities.refuse(method, hash, isOld)
        return true
      case "Unavailable":
      case "TooManyAddresses":
        return !endsConnection(error)
      default:
        return false
    }
  }

  return Effect.fnUntraced(function* (header) {
    const { isOld } = ageOf(header, yield* Monotonic.millis)
    const answers: Answers = { logs: undefined, receipts: undefined, receiptCount: 0, isFresh: !isOld }
    let first: EndpointError | undefined
    let ambiguous: EndpointError | undefined

    /** All methods failed: the block on which two of them agree, else the first error, which is the most specific one. */
    const exhausted = Effect.suspend(() => {
      const failed = ambiguous
        ? asBlockNotFound(ambiguous)
        : (first ?? integrityFailure(`no method can read block ${header.number}`))
      if (answers.receipts !== undefined) return Effect.fail(failed)
      return Effect.flatMap(agreedBlock(header, answers), (block) =>
        block ? Effect.succeed(block) : Effect.fail(failed),
      )
    })

    const tryFrom = (from: number): Effect.Effect<Block, EndpointError> => {
      const index = fallbacks.findIndex(([method], i) => i >= from && isSupported(method, header))
      const [method, read] = fallbacks[index] ?? []
      // One receipt per transaction is too expensive for an empty response under a filter.
      const isTooCostly = method === "eth_getTransactionReceipt" && !unfiltered && answers.logs?.length === 0
      if (method === undefined || read === undefined || isTooCostly) return exhausted
      return Effect.catch(
        Effect.tap(read(header, answers), () => Effect.sync(() => capabilities.recordSupported(method))),
        Effect.fnUntraced(function* (error) {
          const age = ageOf(header, yield* Monotonic.millis)
          if (age.isArriving && isAmbiguous(error)) ambiguous ??= error
          first ??= error
          if (!recordFailure(method, header, error, age))
            return yield* error === ambiguous ? asBlockNotFound(error) : error
          const hasReceipts = method === "eth_getBlockReceipts" && answers.receipts !== undefined
          const block = hasReceipts ? yield* agreedBlock(header, answers) : undefined
          return block ?? (yield* tryFrom(index + 1))
        }),
      )
    }
    return yield* tryFrom(0)
  })
}
