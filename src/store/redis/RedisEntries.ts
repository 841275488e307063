/** The entries of each chain's stream. */
import { Effect, Option, Stream } from "effect"
import type { ChainId, Entry } from "../../Domain.ts"
import { lastBelow, pageSize, paged } from "../Entries.ts"
import type { Entries } from "../Entries.ts"
import { fieldsOf } from "./RedisChains.ts"
import type { RedisChains } from "./RedisChains.ts"

type Page = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

/** The highest second half of an id. */
const highestSerial = "18446744073709551615"

/** When an entry was added (unix milliseconds): the first half of its id. */
const millisOf = ([id]: Page[number]) => Number(id.split("-")[0])

const blockOf = ([, fields]: Page[number]) => Number(fieldsOf(fields)["block_number"])

export const make = ({ commandOf, streamOf }: RedisChains): Entries["Service"] => {
  /** Reads up to `count` entries at or after an id, or after it if it begins with `(`. */
  const read = (operation: string, chain: ChainId, from: string, count: number) =>
    commandOf(chain)(
      operation,
      (client) => client.xrange(streamOf(chain), from, "+", "COUNT", count) as Promise<Page>,
    )

  const page = (chain: ChainId) => (after: string | undefined) =>
    Effect.map(read("read", chain, after === undefined ? "-" : `(${after}`, pageSize), (entries) =>
      entries.map(([id, fields]) => ({ id, entry: fieldsOf(fields) as unknown as Entry })),
    )

  /** Bisects by time first, then reads through the entries of one millisecond. */
  const seek = Effect.fnUntraced(function* (chain: ChainId, block: number) {
    const [first] = yield* read("seek", chain, "-", 1)
    const [newest] = yield* commandOf(chain)(
      "seek",
      (client) => client.xrevrange(streamOf(chain), "+", "-", "COUNT", 1) as Promise<Page>,
    )
    if (first === undefined || newest === undefined) return undefined
    // The last millisecond whose first entry is below the block.
    const millis = yield* lastBelow(block, millisOf(first), millisOf(newest), (millis) =>
      Effect.map(
        read("read", chain, `${millis}-0`, 1),
        ([found]) => found && { place: millisOf(found), block: blockOf(found) },
      ),
    )
    if (millis === undefined) return undefined
    const last = yield* paged(page(chain), `${millis - 1}-${highestSerial}`).pipe(
      Stream.takeWhile(({ entry }) => !(Number(entry.block_number) >= block)),
      Stream.runLast,
    )
    return Option.getOrUndefined(last)?.id
  })

  return { after: (chain, after) => paged(page(chain), after), seek }
}
