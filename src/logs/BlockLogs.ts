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
import type { Block, Filter, Header, Log } from "../Domain.ts"
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
import { logsByReceipt } from "./TransactionReceipts.ts"
import type { Age } from "./Rechecks.ts"
import { asBlockNotFound, isAboutMethod, isAmbiguous, makeAgeOf, retryUnverified } from "./Rechecks.ts"

/** A block with these logs. */
export const blockOf = (
  { number, hash, parentHash, timestamp }: Header,
  logs: ReadonlyArray<PlacedLog>,
): Block => ({ number, hash, parentHash, timestamp, logs })

export interface BlockLogsOptions {
  readonly client: RpcClient
  readonly filter: Filter
  /** The endpoint's limits and refusals, updated here. */
  readonly capabilities: Capabilities
  readonly getLogs: GetLogs
  readonly checks: IntegrityChecks
  /**
   * The timestamp of the newest known head, in the node's own unit. The local clock may be wrong, and every block could
   * look old by it.
   */
  readonly newest: () => number | undefined
  /** The connection's `logs` subscription, which requires that there is no filter. */
  readonly announced: LogsSubscription | undefined
}

/** The responses for one block so far, valid or not. */
interface Answers {
  logs?: ReadonlyArray<PlacedLog>
  receipts?: Eth.BlockReceipts
  /** Whether the block is so recent that a replica may not have it yet. */
  readonly isFresh: boolean
}

/** Reads a block's logs. Fails with an integrity error if no response is valid, else with the error of a method. */
export type BlockLogs = (header: Header) => Effect.Effect<Block, EndpointError>

type Read = (header: Header, answers: Answers) => Effect.Effect<Block, EndpointError>

/** Whether one of the logs of a block, identified by index and transaction, is among others. */
const isAmong = (logs: ReadonlyArray<PlacedLog>) => {
  const present = new Set(logs.map(({ index, txHash }) => `${index} ${txHash}`))
  return ({ index, txHash }: Log) => present.has(`${index} ${txHash}`)
}

/**
 * Whether `eth_getLogs` returned all logs of the receipts and more: logs of a system transaction without a receipt, such
 * as Polygon's state sync. The bloom does not include them either.
 */
const extendsReceipts = (
  header: Header,
  logs: ReadonlyArray<PlacedLog> | undefined,
  receipts: Block["logs"],
  unfiltered: boolean,
): logs is ReadonlyArray<PlacedLog> =>
  logs !== undefined &&
  logs.length > receipts.length &&
  inconsistent(logs, header) === undefined &&
  !(unfiltered && hasIndexGaps(logs)) &&
  receipts.every(isAmong(logs))

const checkReceiptCount = Effect.fnUntraced(function* (client: RpcClient, header: Header, count: number) {
  const { length } = yield* Eth.transactionsOf(client, header)
  if (length === count) return
  const detail = `${count} receipts for the ${length} transactions of block ${header.number}`
  return yield* integrityError(client.name, detail)
})

/**
 * The block on which two methods agree although it fails a check: then the header's bloom is wrong, or the log indexes
 * of this chain have gaps. A log that only `eth_getLogs` returns belongs to a system transaction without a receipt.
 */
const agreedBlock = Effect.fnUntraced(function* (
  { client, filter, capabilities }: BlockLogsOptions,
  header: Header,
  { logs, receipts }: Answers,
) {
  const unfiltered = isUnfiltered(filter)
  if (logs === undefined || inconsistent(receipts?.logs ?? [], header) !== undefined) return undefined
  if (receipts === undefined) {
    // Without receipts, an empty response is accepted if the node has the block.
    if (unfiltered || logs.length > 0) return undefined
    yield* Eth.transactionsOf(client, header)
    return blockOf(header, logs)
  }
  if (!receipts.logs.filter(makeMatches(filter)).every(isAmong(logs))) return undefined
  if (unfiltered && inconsistent(logs, header) !== undefined) return undefined
  yield* checkReceiptCount(client, header, receipts.count)
  const all = unfiltered ? logs : receipts.logs
  if (!hasIndexGaps(all)) capabilities.bloomMismatches++
  // Gaps and a bloom of other logs: both methods omit a log.
  else if (wrongBloom(all, header) !== undefined) return undefined
  else capabilities.hasIndexGaps = true
  return blockOf(header, logs)
})

/**
 * Where heads are polled, each response may come from another replica, so an empty one for a fresh block may come from
 * a replica without the block. Only a bloom that does not match the filter proves that there are no logs.
 */
const rejectUnprovenEmpty = ({ client, filter }: BlockLogsOptions, header: Header, { isFresh }: Answers) =>
  Effect.flatMap((block: Block) => {
    const { logsBloom: bloom } = header
    const isProven = bloom !== undefined && !mayMatch(bloom, filter.addresses, filter.topics)
    // `polled` may change later, when the subscription is refused.
    return client.polled === true && isFresh && block.logs.length === 0 && !isProven
      ? integrityError(client.name, `no logs in block ${header.number}, which another replica may have`)
      : Effect.succeed(block)
  })

/** The methods, cheapest first, each with the validation of its response. */
const makeMethods = (options: BlockLogsOptions): ReadonlyArray<readonly [LogMethod, Read]> => {
  const { client, filter, capabilities, getLogs, checks, announced } = options
  const matches = makeMatches(filter)
  const unfiltered = isUnfiltered(filter)
  const integrityProblem = checks.block(filter)
  const emptyProblem = checks.empty(filter)
  const integrityFailure = (detail: string) => integrityError(client.name, detail)

  const acceptUnless = (problem: string | undefined, header: Header, logs: ReadonlyArray<PlacedLog>) =>
    problem === undefined ? Effect.succeed(blockOf(header, logs)) : integrityFailure(problem)

  const validated = (header: Header, logs: ReadonlyArray<PlacedLog>) => {
    const check = unfiltered && capabilities.hasIndexGaps ? checkCompleteWithGaps : integrityProblem
    return acceptUnless(check(logs, header) ?? emptyProblem(logs, header), header, logs)
  }

  /** Validates all logs of a block together, then filters them. */
  const validatedWhole = (header: Header, logs: ReadonlyArray<PlacedLog>) => {
    const check = capabilities.hasIndexGaps ? checkCompleteWithGaps : checks.whole
    return acceptUnless(check(logs, header), header, logs.filter(matches))
  }

  /** An unproven empty response is checked against the receipts; without receipts, the request is retried. */
  const byGetLogs: Read = (header, answers) => {
    const byHash = Effect.flatMap(getLogs({ blockHash: header.hash, number: header.number }), (logs) => {
      answers.logs = logs
      return validated(header, logs)
    })
    const rejectUnproven = rejectUnprovenEmpty(options, header, answers)
    return capabilities.allows("eth_getBlockReceipts", header.hash)
      ? rejectUnproven(retryUnverified(byHash))
      : retryUnverified(rejectUnproven(byHash))
  }

  const byBlockReceipts: Read = Effect.fnUntraced(function* (header, answers) {
    const receipts = yield* Eth.blockReceipts(client, header)
    answers.receipts = receipts
    // Without a bloom only the number of transactions shows that no receipt is missing.
    if (header.logsBloom === undefined && header.executed !== false)
      yield* checkReceiptCount(client, header, receipts.count)
    const block = yield* validatedWhole(header, receipts.logs)
    const { logs } = answers
    return extendsReceipts(header, logs, block.logs, unfiltered) ? blockOf(header, logs) : block
  }, retryUnverified)

  const bySubscription: Read = (header) =>
    announced === undefined
      ? integrityFailure(`the logs of block ${header.number} are not announced`)
      : Effect.flatMap(announced.logs(header), (logs) => validated(header, logs))

  const byReceipt: Read = (header) =>
    retryUnverified(
      Effect.flatMap(logsByReceipt(client, capabilities, header), (logs) => validatedWhole(header, logs)),
    )

  return [
    ["eth_getLogs", byGetLogs],
    ["eth_getBlockReceipts", byBlockReceipts],
    ["eth_subscribe", bySubscription],
    ["eth_getTransactionReceipt", byReceipt],
  ]
}

/** Records what an error reveals about the endpoint; returns whether to try the next method. */
const recordFailure = (
  capabilities: Capabilities,
  method: LogMethod,
  { hash }: Header,
  error: EndpointError,
  { isOld, isArriving }: Age,
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

/** Reads the logs of blocks from one endpoint. */
export const make = (options: BlockLogsOptions): BlockLogs => {
  const { client, filter, capabilities, announced } = options
  const methods = makeMethods(options)
  const ageOf = makeAgeOf(options.newest)
  const isSupported = (method: LogMethod, { hash }: Header): boolean =>
    capabilities.allows(method, hash) &&
    (method !== "eth_subscribe" ||
      (announced !== undefined &&
        capabilities.wasRefused("eth_getLogs") &&
        capabilities.wasRefused("eth_getBlockReceipts")))

  return Effect.fnUntraced(function* (header) {
    const { isOld } = ageOf(header, yield* Monotonic.millis)
    const answers: Answers = { isFresh: !isOld }
    const agreed = Effect.suspend(() => agreedBlock(options, header, answers))
    let first: EndpointError | undefined
    let ambiguous: EndpointError | undefined

    for (const [method, read] of methods) {
      if (!isSupported(method, header)) continue
      // One receipt per transaction is too expensive for an empty response under a filter.
      if (method === "eth_getTransactionReceipt" && !isUnfiltered(filter) && answers.logs?.length === 0) break
      const result = yield* Effect.result(read(header, answers))
      if (result._tag === "Success") {
        capabilities.recordSupported(method)
        return result.success
      }
      const { failure } = result
      const age = ageOf(header, yield* Monotonic.millis)
      if (age.isArriving && isAmbiguous(failure)) ambiguous ??= failure
      first ??= failure
      if (!recordFailure(capabilities, method, header, failure, age))
        return yield* failure === ambiguous ? asBlockNotFound(failure) : failure
      const hasReceipts = method === "eth_getBlockReceipts" && answers.receipts !== undefined
      const block = hasReceipts ? yield* agreed : undefined
      if (block !== undefined) return block
    }

    // All methods failed: the block on which two of them agree, else the first error, which is the most specific one.
    const block = answers.receipts === undefined ? yield* agreed : undefined
    if (block !== undefined) return block
    if (ambiguous !== undefined) return yield* asBlockNotFound(ambiguous)
    return yield* first ?? integrityError(client.name, `no method can read block ${header.number}`)
  })
}
