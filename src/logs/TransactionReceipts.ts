/** The logs of a block, receipt by receipt, so that no block is too large. */
import { Effect } from "effect"
import type { Header } from "../Domain.ts"
import { partsOf } from "../endpoint/AdaptiveSize.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { sizeOf } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"

/**
 * Approximate memory limit for the logs of one block, in bytes: some 350 000 transfers. A log costs at least 375 gas and
 * a byte of data 8 gas, so no known chain comes near.
 */
const maxBlockBytes = 256 * 1024 * 1024

/** All logs of a block, receipt by receipt, in batches as large as the endpoint allows. */
export const logsByReceipt = Effect.fnUntraced(function* (
  client: RpcClient,
  capabilities: Capabilities,
  header: Header,
) {
  const transactions = yield* Eth.transactionsOf(client, header)
  const all: Array<PlacedLog> = []
  let size = 0
  for (const some of partsOf(transactions, capabilities.receipts)) {
    for (const log of yield* Eth.logsOfTransactions(client, some, capabilities)) {
      all.push(log)
      size += sizeOf(log)
    }
    if (size > maxBlockBytes) {
      const detail = `block ${header.number} exceeds the memory limit for the logs of one block`
      return yield* integrityError(client.name, detail)
    }
  }
  return all
})
