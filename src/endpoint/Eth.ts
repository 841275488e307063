/**
 * The `eth_…` methods of a node (execution-apis, EIP-1474, geth's pub/sub) as typed actions. Each encodes its parameters,
 * decodes and validates its answer, and fails with an `EndpointError`: that of the request, or `Malformed`.
 */
import { Effect, Predicate } from "effect"
import type { ChainId, Filter, Header, Hex } from "../Domain.ts"
import { halving } from "./AdaptiveSize.ts"
import type { Capabilities } from "./Capabilities.ts"
import { headerOf, hex, logsOf, quantity } from "./Decode.ts"
import type { PlacedLog } from "./Decode.ts"
import {
  EndpointError,
  endsConnection,
  errorKind,
  Malformed,
  orMalformed,
  WrongChain,
} from "./EndpointError.ts"
import type { Call } from "./JsonRpc.ts"
import { subscriptionOf } from "./JsonRpc.ts"
import { isLeftOut } from "./RpcClient.ts"
import type { Answer, RpcClient } from "./RpcClient.ts"

export type Tag = "latest" | "finalized"

/** The blocks of a log query: one by its hash, or the heights `from … to`. */
export type LogBlocks = { readonly blockHash: Hex } | { readonly from: number; readonly to: number }

/** The receipts of a block: how many, and the logs of all of them. */
export interface BlockReceipts {
  readonly count: number
  readonly logs: ReadonlyArray<PlacedLog>
}

/** Largest accepted subscription id, in characters. All observed ids have at most 34. */
const longestSubscription = 256

const orNoNumber = (endpoint: string, method: string, value: number | undefined) =>
  orMalformed(endpoint, value ?? new Malformed({ detail: `${method} did not return a number` }))

/** The chain id (EIP-155). Only text is accepted. */
export const chainId = ({ name, request }: RpcClient): Effect.Effect<ChainId, EndpointError> =>
  Effect.flatMap(request("eth_chainId", []), (answer) =>
    orNoNumber(name, "eth_chainId", Predicate.isString(answer) ? quantity(answer) : undefined),
  )

/** Fails unless the endpoint serves this chain (`undefined`: any chain). */
export const confirmChain = Effect.fnUntraced(function* (client: RpcClient, expected: ChainId | undefined) {
  const actual = yield* chainId(client)
  if (expected !== undefined && actual !== expected)
    return yield* new EndpointError({ endpoint: client.name, reason: new WrongChain({ expected, actual }) })
})

/** The height of the newest block. */
export const blockNumber = ({ name, request }: RpcClient): Effect.Effect<number, EndpointError> =>
  Effect.flatMap(request("eth_blockNumber", []), (answer) =>
    orNoNumber(name, "eth_blockNumber", quantity(answer)),
  )

/** Whether the node reports that it is syncing: its latest block is then an old one. */
export const syncing = ({ request }: RpcClient): Effect.Effect<boolean, EndpointError> =>
  Effect.map(request("eth_syncing", []), (answer) => answer === true || Predicate.isObject(answer))

const blockCall = (block: number | Tag): Call => ({
  method: "eth_getBlockByNumber",
  params: [typeof block === "number" ? hex(block) : block, false],
})

const decodedHeader = (
  endpoint: string,
  block: number | Tag,
  result: unknown,
): Effect.Effect<Header | undefined, EndpointError> => {
  const header = result === null ? undefined : headerOf(result)
  if (header === undefined || header instanceof Malformed || typeof block !== "number") {
    return orMalformed(endpoint, header)
  }
  const hint = block === 0 ? ": the endpoint has no block 0; START_BLOCK=1 starts above it" : ""
  const another = new Malformed({ detail: `block ${header.number} instead of ${block}${hint}` })
  return orMalformed(endpoint, header.number === block ? header : another)
}

/** The header at a height or tag, or `undefined` if the node has none. */
export const blockByNumber = (
  { name, request }: RpcClient,
  block: number | Tag,
): Effect.Effect<Header | undefined, EndpointError> => {
  const { method, params } = blockCall(block)
  return Effect.flatMap(request(method, params), (result) => decodedHeader(name, block, result))
}

/** The latest block as the node sends it, like a notification of `newHeads`. */
export const latestBlock = ({ name, request }: RpcClient): Effect.Effect<unknown, EndpointError> => {
  const { method, params } = blockCall("latest")
  return Effect.flatMap(request(method, params), (block) =>
    orMalformed(name, block ?? new Malformed({ detail: "there is no latest block" })),
  )
}

/** Whether an answer rejects the batch as a whole rather than the one call. */
const isRefused = (answer: Answer): boolean => {
  if (answer._tag === "Result" || answer.error.reason._tag !== "Rejected") return false
  const { kind } = answer.error.reason.refusal
  return kind !== "BlockNotFound" && kind !== "RateLimited"
}

/**
 * The headers at these heights, in order, in the largest batches that the endpoint accepts. Calls that a batch rejects are
 * retried one by one.
 */
export const blocksByNumber = Effect.fnUntraced(function* (
  client: RpcClient,
  numbers: ReadonlyArray<number>,
  { headers: size }: Capabilities,
) {
  const isTooLarge = (error: EndpointError) => error.reason._tag === "Rejected" || endsConnection(error)
  const answersTo = halving(size, isTooLarge, (part: ReadonlyArray<number>) =>
    Effect.flatMap(client.batch(part.map(blockCall)), (answers) => {
      const [first] = answers
      if (part.length > 1 && first?._tag === "Rejected" && answers.every(isRefused))
        return Effect.fail(first.error)
      if (answers.some((answer) => answer._tag === "Rejected" && isLeftOut(answer.error)))
        size.shrink(Math.ceil(part.length / 2))
      return Effect.succeed(answers)
    }),
  )
  const all: Array<Header | undefined> = []
  while (all.length < numbers.length) {
    const part = numbers.slice(all.length, all.length + size.current)
    for (const [i, answer] of (yield* answersTo(part)).entries()) {
      const number = part[i]!
      all.push(
        yield* answer._tag === "Result"
          ? decodedHeader(client.name, number, answer.result)
          : blockByNumber(client, number),
      )
    }
  }
  return all
})

/** The transaction hashes of a block, or `undefined` if the node does not have it. */
export const blockByHash = (
  { request }: RpcClient,
  hash: Hex,
): Effect.Effect<{ readonly transactions: ReadonlyArray<Hex> } | undefined, EndpointError> =>
  Effect.map(request("eth_getBlockByHash", [hash, false]), (block) =>
    Predicate.isObject(block) && "transactions" in block && Array.isArray(block.transactions)
      ? { transactions: block.transactions as ReadonlyArray<Hex> }
      : undefined,
  )

/** The `eth_getLogs` parameters of a filter, without the blocks. */
export const logParams = ({ addresses, topics }: Filter): Record<string, unknown> => ({
  ...(addresses.length === 0 ? undefined : { address: addresses }),
  ...(topics.length === 0 ? undefined : { topics }),
})

/** The logs of these blocks that match a filter. Some nodes ignore the filter, or a part of it. */
export const logs = (
  { name, request }: RpcClient,
  filter: Filter,
  blocks: LogBlocks,
): Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError> => {
  const where = "from" in blocks ? { fromBlock: hex(blocks.from), toBlock: hex(blocks.to) } : blocks
  return Effect.flatMap(request("eth_getLogs", [{ ...logParams(filter), ...where }]), (answer) =>
    orMalformed(name, logsOf(answer)),
  )
}

const logsOfReceipts = (endpoint: string, receipts: ReadonlyArray<unknown>) =>
  orMalformed(
    endpoint,
    logsOf(
      receipts.flatMap((receipt: unknown) =>
        Predicate.isObject(receipt) && "logs" in receipt ? (receipt.logs as unknown) : [null],
      ),
    ),
  )

/** The receipts of a block, or `undefined` if the node has none. */
export const blockReceipts = (
  { name, request }: RpcClient,
  hash: Hex,
): Effect.Effect<BlockReceipts | undefined, EndpointError> =>
  Effect.flatMap(request("eth_getBlockReceipts", [hash]), (answer) =>
    Array.isArray(answer)
      ? Effect.map(logsOfReceipts(name, answer), (logs) => ({ count: answer.length, logs }))
      : Effect.succeed(undefined),
  )

/** The logs of these transactions, in order. Batches that exceed one response are halved. */
export const transactionReceipts = (
  { name, batch }: RpcClient,
  transactions: ReadonlyArray<Hex>,
  { receipts: size }: Capabilities,
): Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError> => {
  const isTooLarge = (error: EndpointError) =>
    errorKind(error) === "RangeTooLarge" || isLeftOut(error) || endsConnection(error)
  const receiptsOf = halving(size, isTooLarge, (part: ReadonlyArray<Hex>) =>
    Effect.flatMap(
      batch(part.map((hash) => ({ method: "eth_getTransactionReceipt", params: [hash] }))),
      Effect.forEach((answer) => (answer._tag === "Result" ? Effect.succeed(answer.result) : answer.error)),
    ),
  )
  return Effect.flatMap(receiptsOf(transactions), (receipts) => logsOfReceipts(name, receipts))
}

/** A subscription: its id in notifications, and as the node has sent it. */
export interface Subscription {
  readonly id: string
  readonly raw: unknown
}

/** Subscribes to `newHeads` or `logs`. */
export const subscribe = (
  { name, request }: RpcClient,
  params: ReadonlyArray<unknown>,
): Effect.Effect<Subscription, EndpointError> =>
  Effect.flatMap(request("eth_subscribe", params), (raw) => {
    const id = subscriptionOf(raw)
    return orMalformed(
      name,
      id === undefined || id.length > longestSubscription
        ? new Malformed({ detail: "eth_subscribe did not return an id" })
        : { id, raw },
    )
  })

/** The call that ends a subscription. */
export const unsubscribe = ({ raw }: Subscription): Call => ({ method: "eth_unsubscribe", params: [raw] })
