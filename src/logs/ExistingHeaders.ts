/**
 * The headers of a range of heights. Some chains have heights without a block (Filecoin's null rounds); any other missing
 * height is not available yet.
 */
import { Effect } from "effect"
import type { Header } from "../Domain.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { blockNotFound } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"

/** Largest number of consecutive heights without a block. */
const longestNullRun = 5

export interface ExistingHeaders {
  /** The headers of the heights that have a block. */
  readonly range: (from: number, to: number) => Effect.Effect<ReadonlyArray<Header>, EndpointError>
  /** The header at a finalized height, or the next one above if that height has no block. */
  readonly atOrAbove: (number: number) => Effect.Effect<Header, EndpointError>
}

export const make = (client: RpcClient, capabilities: Capabilities): ExistingHeaders => {
  const range = (from: number, to: number) =>
    Effect.flatMap(
      Eth.blocksByNumber(
        client,
        Array.from({ length: to - from + 1 }, (_, i) => from + i),
        capabilities,
      ),
      (headers) => {
        const missing = headers.indexOf(undefined)
        return missing === -1
          ? Effect.succeed(headers as ReadonlyArray<Header>)
          : withoutNullRounds(headers, from)
      },
    )

  /**
   * Some chains have heights without a block (Filecoin's null rounds): there the block above is the child of the block
   * below. Any other missing height is not available yet.
   */
  const withoutNullRounds = Effect.fnUntraced(function* (
    found: ReadonlyArray<Header | undefined>,
    from: number,
  ) {
    const headers = [...found]
    for (let i = 0; i < longestNullRun && headers.at(-1) === undefined; i++) {
      headers.push(yield* Eth.blockByNumber(client, from + headers.length))
    }
    const to = headers.length - 1
    let below = from === 0 ? undefined : yield* Eth.blockByNumber(client, from - 1)
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

  const atOrAbove = Effect.fnUntraced(function* (number: number) {
    for (let i = 0; i <= longestNullRun; i++) {
      const header = yield* Eth.blockByNumber(client, number + i)
      if (header !== undefined) return header
    }
    return yield* blockNotFound(client.name, number)
  })

  return { range, atOrAbove }
}
