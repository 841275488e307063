/** Block headers by height or tag, from one connection. */
import { Effect } from "effect"
import type { Header } from "../Domain.ts"
import { headerOf, hex } from "../endpoint/Decode.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import { EndpointError, Malformed } from "../endpoint/EndpointError.ts"
import type { Call } from "../endpoint/JsonRpc.ts"

export type Asker = Pick<Connection, "name" | "request" | "batch">

export type Tag = "latest" | "finalized"

/** Providers accept batches of 10 to 1000 calls; 20 is below what nearly all of them accept. */
export const mostPerBatch = 20

const call = (block: number | Tag): Call => ({
  method: "eth_getBlockByNumber",
  params: [typeof block === "number" ? hex(block) : block, false],
})

const decoded = (
  endpoint: string,
  block: number | Tag,
  result: unknown,
): Effect.Effect<Header | undefined, EndpointError> => {
  const header = result === null ? undefined : headerOf(result)
  if (header instanceof Malformed) return Effect.fail(new EndpointError({ endpoint, reason: header }))
  if (header === undefined || typeof block !== "number" || header.number === block)
    return Effect.succeed(header)
  const reason = new Malformed({ detail: `block ${header.number} instead of ${block}` })
  return Effect.fail(new EndpointError({ endpoint, reason }))
}

/** The header at a height, or `undefined` where the node has none. */
export const header = (
  { name, request }: Asker,
  block: number | Tag,
): Effect.Effect<Header | undefined, EndpointError> => {
  const { method, params } = call(block)
  return Effect.flatMap(request(method, params), (result) => decoded(name, block, result))
}

/** The headers at these heights, in their order, in batches. What a batch refuses is asked for by itself. */
export const headers = (
  asker: Asker,
  numbers: ReadonlyArray<number>,
): Effect.Effect<ReadonlyArray<Header | undefined>, EndpointError> => {
  const batches: Array<ReadonlyArray<number>> = []
  for (let i = 0; i < numbers.length; i += mostPerBatch) batches.push(numbers.slice(i, i + mostPerBatch))
  return Effect.forEach(batches, (part) =>
    Effect.flatMap(asker.batch(part.map(call)), (answers) =>
      Effect.forEach(answers, (answer, i) =>
        answer._tag === "Result" ? decoded(asker.name, part[i]!, answer.result) : header(asker, part[i]!),
      ),
    ),
  ).pipe(Effect.map((all) => all.flat()))
}
