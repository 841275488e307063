/** Known behaviour of providers, as interceptors of a FakeNode. Error texts are recorded ones. */
import { readFileSync } from "node:fs"
import { quantity } from "../../src/endpoint/Decode.ts"
import { Refused } from "./FakeNode.ts"
import type { FakeNode, Intercept } from "./FakeNode.ts"

interface Recorded {
  readonly provider: string
  readonly code?: number
  readonly message: string
}

const { errors } = JSON.parse(
  readFileSync(new URL("../fixtures/provider-errors.json", import.meta.url), "utf8"),
) as { errors: ReadonlyArray<Recorded> }

/** The recorded refusal of a provider that contains this text. */
export const refusal = (provider: string, text: string): Refused => {
  const found = errors.find((error) => error.provider.startsWith(provider) && error.message.includes(text))
  if (found === undefined) throw new Error(`no such refusal: ${provider}, ${text}`)
  return new Refused(found.code ?? -32000, found.message)
}

const unknownMethod = new Refused(-32601, "the method does not exist/is not available")

export interface Query {
  readonly address?: string | ReadonlyArray<string>
  readonly blockHash?: string
  readonly fromBlock?: string
  readonly toBlock?: string
}

/** The width of a query in blocks: 1 for a query by hash. */
export const widthOf = ({ blockHash, fromBlock, toBlock }: Query): number =>
  blockHash === undefined ? quantity(toBlock)! - quantity(fromBlock)! + 1 : 1

/** These methods do not exist. */
export const without =
  (...names: ReadonlyArray<string>): Intercept =>
  (method, _params, proceed) => {
    if (names.includes(method)) throw unknownMethod
    return proceed()
  }

/** Chains two interceptors: the first may refuse a request before the second receives it. */
export const both =
  (first: Intercept, second: Intercept): Intercept =>
  (method, params, proceed) =>
    first(method, params, () => second(method, params, proceed))

/** publicnode.com: no logs without an address or with ten or more, no old blocks. */
export const publicnode =
  (node: FakeNode, oldest = 128): Intercept =>
  (method, params, proceed) => {
    if (method !== "eth_getLogs") return proceed()
    const query = params[0] as Query
    const addresses = query.address === undefined ? [] : [query.address].flat()
    if (addresses.length === 0) throw refusal("publicnode", "specify an address")
    if (addresses.length >= 10) throw refusal("publicnode", "Request blocked")
    if ((quantity(query.fromBlock) ?? Infinity) < node.chain.head.number - oldest)
      throw refusal("publicnode", "Archive requests")
    return proceed()
  }

/** drpc.org without a key: ranges of at most ten blocks, although its error text names another limit. */
export const drpc: Intercept = (method, params, proceed) => {
  if (method === "eth_getLogs" && widthOf(params[0] as Query) > 10)
    throw refusal("drpc (free)", "not supported on free plan")
  return proceed()
}
