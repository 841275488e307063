/** `eth_getLogs` for one filter, split into as many requests as the endpoint requires. */
import { Effect } from "effect"
import type { Filter, Hex } from "../Domain.ts"
import { inOrder } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { isRpcError, errorKind, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import { halving, partsOf } from "../endpoint/AdaptiveSize.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { isUnfiltered, makeMatches } from "./Filter.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"

/** One block by its hash (and its height, for nodes that do not accept a hash), or a range. */
export type Blocks = Eth.LogBlocks & { readonly number?: number }

export type GetLogs = (blocks: Blocks) => Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError>

/** Drops logs that do not match: some nodes ignore a filter, or a part of it. */
const matchingOnly = (filter: Filter): ((logs: ReadonlyArray<PlacedLog>) => ReadonlyArray<PlacedLog>) => {
  if (isUnfiltered(filter)) return (logs) => logs
  const matches = makeMatches(filter)
  return (logs) => (logs.every(matches) ? logs : logs.filter(matches))
}

/** Whether the request itself is too large, independent of its range: HTTP status 413. */
const isTooLargeToRead = ({ reason }: EndpointError) =>
  reason._tag === "Rejected" && /HTTP status 413/.test(reason.detail)

const refusesAddresses = (error: EndpointError) =>
  errorKind(error) === "TooManyAddresses" || isTooLargeToRead(error)

/** Whether the node does not accept `blockHash`: the error reports invalid or missing parameters. */
const refusesHash = ({ reason }: EndpointError): boolean =>
  reason._tag === "Rejected" &&
  (reason.refusal.kind === "Unavailable" || reason.refusal.kind === "MethodNotSupported") &&
  (reason.code === -32602 || /blockHash|fromBlock|toBlock|invalid (argument|param)/i.test(reason.detail))

/** @param capabilities the endpoint's limits; the number of addresses per request is reduced where it is refused */
export const make = (client: RpcClient, filter: Filter, capabilities: Capabilities): GetLogs => {
  const keepMatching = matchingOnly(filter)
  const fetchLogs = (addresses: ReadonlyArray<Hex>, blocks: Eth.LogBlocks) =>
    Effect.map(Eth.logs(client, { ...filter, addresses }, blocks), keepMatching)

  /** The logs of a block by its height. An empty response is accepted only if the node has the block with this hash. */
  const fetchAtHeight = Effect.fnUntraced(function* (
    addresses: ReadonlyArray<Hex>,
    blockHash: Hex,
    number: number,
  ) {
    const logs = yield* fetchLogs(addresses, { from: number, to: number })
    if (logs.some((log) => log.blockHash !== blockHash))
      return yield* integrityError(client.name, `logs of another block ${number}`)
    if (logs.length === 0 && (yield* Eth.blockByNumber(client, number))?.hash !== blockHash)
      return yield* integrityError(client.name, `no logs of block ${number}, which the node does not have`)
    return logs
  })

  const fetchBlocks = (addresses: ReadonlyArray<Hex>, blocks: Blocks) => {
    if (!("blockHash" in blocks)) return fetchLogs(addresses, blocks)
    const { blockHash, number } = blocks
    if (number === undefined) return fetchLogs(addresses, { blockHash })
    if (!capabilities.byHash) return fetchAtHeight(addresses, blockHash, number)
    const byHash = Effect.tap(fetchLogs(addresses, { blockHash }), () =>
      Effect.sync(() => capabilities.recordSupported("blockHash")),
    )
    return Effect.catchIf(byHash, refusesHash, (refused) =>
      fetchAtHeight(addresses, blockHash, number).pipe(
        Effect.tap(() => Effect.sync(() => capabilities.refuseHash(blockHash))),
        // A refusal by height adds no information, unless it concerns the number of addresses.
        Effect.catchIf(
          (error) => isRpcError(error) && !refusesAddresses(error),
          () => Effect.fail(refused),
        ),
      ),
    )
  }

  return (blocks) => {
    const fetchGroup = (group: ReadonlyArray<Hex>) => fetchBlocks(group, blocks)
    const { addresses } = filter
    if (addresses.length <= 1) return fetchGroup(addresses)
    const fetchOrHalve = halving(capabilities.addresses, refusesAddresses, fetchGroup)
    return Effect.gen(function* () {
      const all: Array<PlacedLog> = []
      for (const group of partsOf(addresses, capabilities.addresses))
        for (const log of yield* fetchOrHalve(group)) all.push(log)
      return all.sort(inOrder)
    })
  }
}
