/** The timestamps of blocks whose logs were read in one range. */
import { Effect } from "effect"
import type { Header } from "../Domain.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"

/**
 * The timestamp of each block. The logs' `blockTimestamp` is used if it agrees with a known header; otherwise headers are
 * fetched, and their hashes are compared too.
 *
 * @param blocks the logs of each block, in order
 * @param known headers of the range that are already fetched
 */
export const blockTimes = Effect.fnUntraced(function* (
  client: RpcClient,
  capabilities: Capabilities,
  blocks: ReadonlyArray<ReadonlyArray<PlacedLog>>,
  known: ReadonlyArray<Header>,
) {
  const times = new Map<number, number>(known.map(({ number, timestamp }) => [number, timestamp]))
  const headersOf = Effect.fnUntraced(function* (logs: ReadonlyArray<PlacedLog>) {
    const headers = yield* Eth.blocksByNumber(
      client,
      logs.map((log) => log.blockNumber),
      capabilities,
    )
    for (const [i, header] of headers.entries()) {
      const { blockHash, blockNumber } = logs[i]!
      if (header?.hash !== blockHash)
        return yield* integrityError(client.name, `block ${blockNumber} has another hash`)
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
