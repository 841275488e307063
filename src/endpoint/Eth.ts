/** Fetches block headers by height or tag from one connection. */
import { Effect } from "effect"
import type { Header } from "../Domain.ts"
import { isLeftOut } from "./RpcClient.ts"
import type { Answer } from "./RpcClient.ts"
import { headerOf, hex } from "./Decode.ts"
import type { Connection } from "./Endpoint.ts"
import { endsConnection, Malformed, orMalformed } from "./EndpointError.ts"
import type { EndpointError } from "./EndpointError.ts"
import type { Call } from "./JsonRpc.ts"
import type { Capabilities } from "./Capabilities.ts"

export type NamedClient = Pick<Connection, "name" | "request" | "batch"> & Partial<Pick<Connection, "polled">>

export type Tag = "latest" | "finalized"

/** Headers per batch, for endpoints without a lower limit. */
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
  if (header === undefined || header instanceof Malformed || typeof block !== "number") {
    return orMalformed(endpoint, header)
  }
  const hint = block === 0 ? ": the endpoint has no block 0; START_BLOCK=1 starts above it" : ""
  const another = new Malformed({ detail: `block ${header.number} instead of ${block}${hint}` })
  return orMalformed(endpoint, header.number === block ? header : another)
}

/** The header at a height or tag, or `undefined` if the node has none. */
export const header = (
  { name, request }: NamedClient,
  block: number | Tag,
): Effect.Effect<Header | undefined, EndpointError> => {
  const { method, params } = call(block)
  return Effect.flatMap(request(method, params), (result) => decoded(name, block, result))
}

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
export const headers = (
  client: NamedClient,
  numbers: ReadonlyArray<number>,
  capabilities: Capabilities,
): Effect.Effect<ReadonlyArray<Header | undefined>, EndpointError> => {
  const some = (
    part: ReadonlyArray<number>,
  ): Effect.Effect<ReadonlyArray<Header | undefined>, EndpointError> =>
    Effect.flatMap(
      Effect.tapError(client.batch(part.map(call)), (error) =>
        Effect.sync(() => remember(error, part.length)),
      ),
      (answers) => {
        if (part.length > 1 && answers.every(isRefused)) {
          const half = Math.ceil(part.length / 2)
          capabilities.headers = Math.min(capabilities.headers, half)
          return Effect.map(Effect.forEach([part.slice(0, half), part.slice(half)], some), (halves) =>
            halves.flat(),
          )
        }
        if (answers.some((answer) => answer._tag === "Rejected" && isLeftOut(answer.error)))
          capabilities.headers = Math.min(capabilities.headers, Math.ceil(part.length / 2))
        return Effect.forEach(answers, (answer, i) =>
          answer._tag === "Result" ? decoded(client.name, part[i]!, answer.result) : header(client, part[i]!),
        )
      },
    )
  /** Halves the batch size after a batch that closed the connection. */
  const remember = (error: EndpointError, size: number) => {
    if (endsConnection(error))
      capabilities.headers = Math.max(Math.min(capabilities.headers, Math.ceil(size / 2)), 1)
  }
  return Effect.gen(function* () {
    const all: Array<Header | undefined> = []
    while (all.length < numbers.length) {
      all.push(...(yield* some(numbers.slice(all.length, all.length + capabilities.headers))))
    }
    return all
  })
}
