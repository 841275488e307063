/** `eth_getLogs` for one filter: one question, in as many requests as the endpoint wants. */
import { Effect } from "effect"
import type { Filter, Hex } from "../Domain.ts"
import { logsOf } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { orMalformed, refusalOf } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Learned } from "../endpoint/Learned.ts"
import { isUnfiltered, logParams, makeMatches } from "./Filter.ts"
import type { Asker } from "./Headers.ts"

/** Which blocks: one by its hash, or a range. */
export type Blocks = { readonly blockHash: Hex } | { readonly fromBlock: Hex; readonly toBlock: Hex }

export type GetLogs = (blocks: Blocks) => Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError>

const inOrder = (a: PlacedLog, b: PlacedLog) => a.blockNumber - b.blockNumber || a.index - b.index

/** Matching logs only: some nodes ignore a filter, or a part of it. */
const only = (filter: Filter): ((logs: ReadonlyArray<PlacedLog>) => ReadonlyArray<PlacedLog>) => {
  if (isUnfiltered(filter)) return (logs) => logs
  const matches = makeMatches(filter)
  return (logs) => (logs.every(matches) ? logs : logs.filter(matches))
}

const refusesAddresses = (error: EndpointError) => refusalOf(error) === "fewer addresses"

/** @param learned how many addresses the endpoint takes at once; reduced where it refuses them */
export const make = (asker: Asker, filter: Filter, learned: Learned): GetLogs => {
  const wanted = only(filter)
  const ask = (addresses: ReadonlyArray<Hex>, blocks: Blocks) =>
    Effect.flatMap(
      asker.request("eth_getLogs", [{ ...logParams({ ...filter, addresses }), ...blocks }]),
      (answer) => Effect.map(orMalformed(asker.name, logsOf(answer)), wanted),
    )

  return (blocks) => {
    const { addresses } = filter
    if (addresses.length <= 1) return ask(addresses, blocks)
    const some: Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError> = Effect.suspend(() => {
      const size = Math.min(learned.addresses, addresses.length)
      const groups: Array<ReadonlyArray<Hex>> = []
      for (let i = 0; i < addresses.length; i += size) groups.push(addresses.slice(i, i + size))
      if (groups.length === 1) return ask(addresses, blocks)
      return Effect.map(
        Effect.forEach(groups, (group) => ask(group, blocks)),
        (answers) => answers.flat().sort(inOrder),
      )
    }).pipe(
      Effect.catchIf(refusesAddresses, (error) => {
        const size = Math.min(learned.addresses, addresses.length)
        if (size === 1) return Effect.fail(error)
        learned.addresses = Math.ceil(size / 2)
        return some
      }),
    )
    return some
  }
}
