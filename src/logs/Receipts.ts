/** The logs of a block's receipts: of all in one answer, or of a few at a time, so that no block is too large. */
import { Effect, Predicate } from "effect"
import type { Header, Hex } from "../Domain.ts"
import { halving } from "../endpoint/AdaptiveSize.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { logsOf, sizeOf } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { endsConnection, errorKind, integrityError, orMalformed } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { NamedClient } from "../endpoint/Eth.ts"
import { isLeftOut } from "../endpoint/RpcClient.ts"

/**
 * Approximate memory limit for the logs of one block, in bytes: some 350 000 transfers. A log costs at least 375 gas and
 * a byte of data 8 gas, so no known chain comes near.
 */
const maxBlockBytes = 256 * 1024 * 1024

export interface Receipts {
  /** The logs of receipts, in order. */
  readonly logsOf: (
    receipts: ReadonlyArray<unknown>,
  ) => Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError>
  /** The transaction hashes of a block, requested by its hash. */
  readonly transactionsOf: (header: Header) => Effect.Effect<ReadonlyArray<Hex>, EndpointError>
  /** All logs of a block, receipt by receipt, in batches as large as the endpoint allows. */
  readonly oneByOne: (header: Header) => Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError>
}

export const make = (client: NamedClient, capabilities: Capabilities): Receipts => {
  const integrityFailure = (detail: string) => integrityError(client.name, detail)

  const logsOfReceipts = (receipts: ReadonlyArray<unknown>) =>
    orMalformed(
      client.name,
      logsOf(
        receipts.flatMap((receipt: unknown) =>
          Predicate.isObject(receipt) && "logs" in receipt ? (receipt.logs as unknown) : [null],
        ),
      ),
    )

  const transactionsOf = (header: Header) =>
    Effect.flatMap(client.request("eth_getBlockByHash", [header.hash, false]), (block) =>
      Predicate.isObject(block) && "transactions" in block && Array.isArray(block.transactions)
        ? Effect.succeed(block.transactions as ReadonlyArray<Hex>)
        : Effect.fail(integrityFailure(`the node does not have block ${header.number}`)),
    )

  const isTooMuch = (error: EndpointError) =>
    errorKind(error) === "RangeTooLarge" || isLeftOut(error) || endsConnection(error)

  /** The receipts of these transactions, in order. */
  const someReceipts = halving(capabilities.receipts, isTooMuch, (transactions: ReadonlyArray<Hex>) =>
    Effect.flatMap(
      client.batch(transactions.map((hash) => ({ method: "eth_getTransactionReceipt", params: [hash] }))),
      Effect.forEach((answer) => (answer._tag === "Result" ? Effect.succeed(answer.result) : answer.error)),
    ),
  )

  const oneByOne = Effect.fnUntraced(function* (header: Header) {
    const transactions = yield* transactionsOf(header)
    const all: Array<PlacedLog> = []
    let size = 0
    for (let i = 0; i < transactions.length;) {
      const some = transactions.slice(i, i + capabilities.receipts.current)
      const logs = yield* logsOfReceipts(yield* someReceipts(some))
      for (const log of logs) {
        all.push(log)
        size += sizeOf(log)
      }
      if (size > maxBlockBytes)
        return yield* integrityFailure(
          `block ${header.number} exceeds the memory limit for the logs of one block`,
        )
      i += some.length
    }
    return all
  })

  return { logsOf: logsOfReceipts, transactionsOf, oneByOne }
}
