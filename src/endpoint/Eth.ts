/**
 * The `eth_…` methods of a node (execution-apis, EIP-1474, geth's pub/sub) as typed actions. Each encodes its parameters,
 * decodes and validates its answer, and fails with an `EndpointError`: that of the request, or `Malformed`.
 */
import { Effect, Predicate } from "effect"
import type { ChainId, Filter, Header, Hex } from "../Domain.ts"
import { freeItems } from "../Memory.ts"
import { halving, partsOf } from "./AdaptiveSize.ts"
import type { Capabilities } from "./Capabilities.ts"
import { headerOf, hex, logsOf, quantity } from "./Decode.ts"
import type { PlacedLog } from "./Decode.ts"
import {
  EndpointError,
  endsConnection,
  errorKind,
  IntegrityError,
  Malformed,
  orInvalid,
  WrongChain,
} from "./EndpointError.ts"
import { subscriptionOf } from "./JsonRpc.ts"
import type { Call } from "./JsonRpc.ts"
import { isLeftOut } from "./RpcClient.ts"
import type { Answer, RpcClient } from "./RpcClient.ts"

export type Tag = "latest" | "finalized"

/** The blocks of a log query: one by its hash, or the heights `from … to`. */
export type LogBlocks = { readonly blockHash: Hex } | { readonly from: number; readonly to: number }

/** Largest accepted subscription id, in characters. All observed ids have at most 34. */
const longestSubscription = 256

/** Sends one call and decodes its answer. */
const send = <A>(
  { name, request }: RpcClient,
  { method, params }: Call,
  decode: (answer: unknown) => A | Malformed | IntegrityError,
): Effect.Effect<A, EndpointError> =>
  Effect.flatMap(request(method, params), (answer) => orInvalid(name, decode(answer)))

const noNumber = (method: string) => new Malformed({ detail: `${method} did not return a number` })

/** Fails unless the endpoint serves this chain (`undefined`: any chain). A chain id is accepted as text only. */
export const confirmChain = Effect.fnUntraced(function* (client: RpcClient, expected: ChainId | undefined) {
  const method = "eth_chainId"
  const actual = yield* send(
    client,
    { method, params: [] },
    (answer) => (Predicate.isString(answer) ? quantity(answer) : undefined) ?? noNumber(method),
  )
  if (expected !== undefined && actual !== expected)
    return yield* new EndpointError({ endpoint: client.name, reason: new WrongChain({ expected, actual }) })
})

/** The height of the newest block. */
export const blockNumber = (client: RpcClient) => {
  const method = "eth_blockNumber"
  return send(client, { method, params: [] }, (answer) => quantity(answer) ?? noNumber(method))
}

/** Whether the node reports that it is syncing: its latest block is then an old one. */
export const syncing = (client: RpcClient) =>
  send(
    client,
    { method: "eth_syncing", params: [] },
    (answer) => answer === true || Predicate.isObject(answer),
  )

const blockCall = (block: number | Tag): Call => ({
  method: "eth_getBlockByNumber",
  params: [typeof block === "number" ? hex(block) : block, false],
})

const decodeBlock =
  (block: number | Tag) =>
  (answer: unknown): Header | Malformed | undefined => {
    const header = answer === null ? undefined : headerOf(answer)
    if (header === undefined || header instanceof Malformed || typeof block !== "number") return header
    const hint = block === 0 ? ": the endpoint has no block 0; START_BLOCK=1 starts above it" : ""
    return header.number === block
      ? header
      : new Malformed({ detail: `block ${header.number} instead of ${block}${hint}` })
  }

/** The header at a height or tag, or `undefined` if the node has none. */
export const blockByNumber = (client: RpcClient, block: number | Tag) =>
  send(client, blockCall(block), decodeBlock(block))

/** The latest block as the node sends it, like a notification of `newHeads`. */
export const latestBlock = (client: RpcClient) =>
  send(client, blockCall("latest"), (block) => block ?? new Malformed({ detail: "there is no latest block" }))

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
  for (const part of partsOf(numbers, size)) {
    for (const [i, answer] of (yield* answersTo(part)).entries()) {
      const number = part[i]!
      all.push(
        yield* answer._tag === "Result"
          ? orInvalid(client.name, decodeBlock(number)(answer.result))
          : blockByNumber(client, number),
      )
    }
  }
  return all
})

/** The transaction hashes of a block. Fails with an integrity error if the node does not have it. */
export const transactionsOf = (client: RpcClient, { hash, number }: Header) =>
  send(client, { method: "eth_getBlockByHash", params: [hash, false] }, (block) =>
    Predicate.isObject(block) && "transactions" in block && Array.isArray(block.transactions)
      ? (block.transactions as ReadonlyArray<Hex>)
      : new IntegrityError({ detail: `the node does not have block ${number}` }),
  )

/** The `eth_getLogs` parameters of a filter, without the blocks. */
export const logParams = ({ addresses, topics }: Filter): Record<string, unknown> => ({
  ...(addresses.length === 0 ? undefined : { address: addresses }),
  ...(topics.length === 0 ? undefined : { topics }),
})

const takeLogs = (answer: unknown) => {
  const logs = logsOf(answer)
  if (Array.isArray(answer)) freeItems(answer)
  return logs
}

/** The logs of these blocks that match a filter. Some nodes ignore the filter, or a part of it. */
export const logs = (client: RpcClient, filter: Filter, blocks: LogBlocks) => {
  const where = "from" in blocks ? { fromBlock: hex(blocks.from), toBlock: hex(blocks.to) } : blocks
  return send(client, { method: "eth_getLogs", params: [{ ...logParams(filter), ...where }] }, takeLogs)
}

const logsOfReceipts = (receipts: ReadonlyArray<unknown>) =>
  logsOf(
    receipts.flatMap((receipt: unknown) =>
      Predicate.isObject(receipt) && "logs" in receipt ? (receipt.logs as unknown) : [null],
    ),
  )

/** How many receipts a block has, and all their logs. */
export interface BlockReceipts {
  readonly count: number
  readonly logs: ReadonlyArray<PlacedLog>
}

/** The receipts of a block. Fails with an integrity error if the node has none. */
export const blockReceipts = (client: RpcClient, { hash, number }: Header) =>
  send(client, { method: "eth_getBlockReceipts", params: [hash] }, (receipts) => {
    if (!Array.isArray(receipts)) return new IntegrityError({ detail: `no receipts for block ${number}` })
    const logs = logsOfReceipts(receipts)
    return logs instanceof Malformed ? logs : ({ count: receipts.length, logs } satisfies BlockReceipts)
  })

/** The logs of these transactions, in order. Batches that exceed one response are halved. */
export const logsOfTransactions = (
  { name, batch }: RpcClient,
  transactions: ReadonlyArray<Hex>,
  { receipts: size }: Capabilities,
) => {
  const isTooLarge = (error: EndpointError) =>
    errorKind(error) === "RangeTooLarge" || isLeftOut(error) || endsConnection(error)
  const receiptsOf = halving(size, isTooLarge, (part: ReadonlyArray<Hex>) =>
    Effect.flatMap(
      batch(part.map((hash) => ({ method: "eth_getTransactionReceipt", params: [hash] }))),
      Effect.forEach((answer) => (answer._tag === "Result" ? Effect.succeed(answer.result) : answer.error)),
    ),
  )
  return Effect.flatMap(receiptsOf(transactions), (receipts) => orInvalid(name, logsOfReceipts(receipts)))
}

/** Subscribes to `newHeads` or `logs`. Returns the id as text, and as the node has sent it. */
export const subscribe = (client: RpcClient, params: ReadonlyArray<unknown>) =>
  send(client, { method: "eth_subscribe", params }, (raw) => {
    const id = subscriptionOf(raw)
    return id === undefined || id.length > longestSubscription
      ? new Malformed({ detail: "eth_subscribe did not return an id" })
      : { id, raw }
  })

/** The call that ends a subscription, with its id as the node has sent it. */
export const unsubscribe = (raw: unknown): Call => ({ method: "eth_unsubscribe", params: [raw] })
