/**
 * The headers of a range of heights. Some chains have heights without a block (Filecoin's null rounds); any other missing
 * height is not available yet.
 */
import { Effect } from "effect"
import type { Header } from "../Domain.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { blockNotFound } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"

/** Largest number of consecutive heights without a block. */
const longestNullRun = 5

/** The next block below a height; `undefined` below height 0. */
const nextBelow = Effect.fnUntraced(function* (client: RpcClient, height: number) {
  for (let i = 1; i <= longestNullRun + 1 && i <= height; i++) {
    const header = yield* Eth.blockByNumber(client, height - i)
    if (header !== undefined) return header
  }
  return height === 0 ? undefined : yield* blockNotFound(client.name, height)
})

/**
 * The header at a height, or the next one above if that height has no block: only then is the block above the child of the
 * block below. Otherwise a replica has answered that does not have the block yet.
 */
export const atOrAbove = Effect.fnUntraced(function* (client: RpcClient, height: number) {
  const header = yield* Eth.blockByNumber(client, height)
  if (header !== undefined) return header
  for (let i = 1; i <= longestNullRun; i++) {
    const above = yield* Eth.blockByNumber(client, height + i)
    if (above === undefined) continue
    const below = yield* nextBelow(client, height)
    if (below === undefined || above.parentHash === below.hash) return above
    break
  }
  return yield* blockNotFound(client.name, height)
})

/** Omits heights without a block: there the block above is the child of the block below. */
const withoutNullRounds = Effect.fnUntraced(function* (
  client: RpcClient,
  found: ReadonlyArray<Header | undefined>,
  from: number,
) {
  const headers = [...found]
  for (let i = 0; i < longestNullRun && headers.at(-1) === undefined; i++) {
    headers.push(yield* Eth.blockByNumber(client, from + headers.length))
  }
  const to = headers.length - 1
  let below = headers[0] === undefined ? yield* nextBelow(client, from) : undefined
  let missing: number | undefined
  const existing: Array<Header> = []
  for (const [i, header] of headers.entries()) {
    if (header === undefined) {
      missing ??= from + i
      continue
    }
    if (missing !== undefined && below !== undefined && header.parentHash !== below.hash)
      return yield* blockNotFound(client.name, missing)
    missing = undefined
    below = header
    if (i < found.length) existing.push(header)
  }
  if (missing !== undefined) return yield* blockNotFound(client.name, Math.min(missing, from + to))
  return existing
})

/** @param map applied to each header */
export const make = (client: RpcClient, capabilities: Capabilities, map: (header: Header) => Header) => ({
  /** The headers of the heights that have a block. */
  range: Effect.fnUntraced(function* (from: number, to: number) {
    const numbers = Array.from({ length: to - from + 1 }, (_, i) => from + i)
    const found = yield* Eth.blocksByNumber(client, numbers, capabilities)
    const existing = found.filter((header) => header !== undefined)
    const isComplete = existing.length === found.length
    return (isComplete ? existing : yield* withoutNullRounds(client, found, from)).map(map)
  }),
  /** The header at a finalized height, or the next one above if that height has no block. */
  atOrAbove: (number: number) => Effect.map(atOrAbove(client, number), map),
})

export type ExistingHeaders = ReturnType<typeof make>
