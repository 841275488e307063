/** Fetches block headers by height or tag from one connection. */
import { Effect } from "effect"
import type { Header } from "../Domain.ts"
import { halving } from "./AdaptiveSize.ts"
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
export const headers = Effect.fnUntraced(function* (
  client: NamedClient,
  numbers: ReadonlyArray<number>,
  { headers: size }: Capabilities,
) {
  const isTooLarge = (error: EndpointError) => error.reason._tag === "Rejected" || endsConnection(error)
  const answersTo = halving(size, isTooLarge, (part: ReadonlyArray<number>) =>
    Effect.flatMap(client.batch(part.map(call)), (answers) => {
      const [first] = answers
      if (part.length > 1 && first?._tag === "Rejected" && answers.every(isRefused))
        return Effect.fail(first.error)
      if (answers.some((answer) => answer._tag === "Rejected" && isLeftOut(answer.error)))
        size.shrink(Math.ceil(part.length / 2))
      return Effect.succeed(answers)
    }),
  )
  const all: Array<Header | undefined> = []
  while (all.length < numbers.length) {
    const part = numbers.slice(all.length, all.length + size.current)
    for (const [i, answer] of (yield* answersTo(part)).entries()) {
      const block = part[i]!
      all.push(
        yield* answer._tag === "Result" ? decoded(client.name, block, answer.result) : header(client, block),
      )
    }
  }
  return all
})
