/** Probes what an endpoint can do and how the service would use it, with a few requests per capability. */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { HttpClient } from "effect/http"
import { decoderOf } from "../abi/LoadDecoder.ts"
import type { ChainConfig, EndpointConfig, Settings } from "../config/AppConfig.ts"
import type { Header } from "../Domain.ts"
import * as RateLimiter from "../endpoint/RateLimiter.ts"
import { Capabilities, mostCalls } from "../endpoint/Capabilities.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import * as WebSocketConnection from "../endpoint/WebSocketConnection.ts"
import type { Connection } from "../endpoint/Connection.ts"
import { endsConnection, isRpcError, errorKind } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import { isHttp } from "../endpoint/EndpointPool.ts"
import * as HttpConnection from "../endpoint/HttpConnection.ts"
import type { Transport } from "../endpoint/Socket.ts"
import { bitsSet } from "../logs/Bloom.ts"
import { retryUnverified } from "../logs/Rechecks.ts"
import { isUnfiltered } from "../logs/Filter.ts"
import { isNothingFinal } from "../chain/Finality.ts"
import * as GetLogs from "../logs/GetLogs.ts"
import * as Eth from "../endpoint/Eth.ts"
import { blooms, events, finality, indexes, variable } from "./dialect.ts"
import type { Sample } from "./dialect.ts"
import { about, failure, ok, warning } from "./Finding.ts"
import type { Finding, Trait } from "./Finding.ts"
import * as Heads from "./probeHeads.ts"

const widths = [1, 10, 100, 1000, 10_000]

/** Blocks sampled to see how their logs are numbered. */
const mostSamples = 3

/** How often the endpoint may close the connection because a request is too large; each retry asks for less. */
const mostReductions = 12

/** The endpoint closed the connection because a request was too large: the next connection asks for less. */
const isRequestTooLarge = (error: EndpointError) =>
  endsConnection(error) && errorKind(error) === "TooManyAddresses"

/** The message of a failed request; `undefined` if it succeeds. */
const errorOf = <A, R>(effect: Effect.Effect<A, EndpointError, R>) =>
  effect.pipe(
    Effect.as(undefined),
    Effect.catch((error) =>
      isRequestTooLarge(error) ? Effect.fail(error) : Effect.succeed(error.reason.message),
    ),
  )

/** The widest range below the head that `eth_getLogs` accepts, and its error for the next wider one. */
const widest = Effect.fnUntraced(function* (getLogs: GetLogs.GetLogs, head: Header) {
  let best = 0
  for (const width of widths) {
    if (width > head.number + 1) break
    const range = { from: head.number - width + 1, to: head.number }
    const refusal = yield* errorOf(getLogs(range))
    if (refusal !== undefined) return { best, refusal }
    best = width
  }
  return { best, refusal: undefined }
})

/** The limits of `eth_getLogs`: the range, and further restrictions. */
const rangesOf = (
  { filter }: ChainConfig,
  { best, refusal }: { readonly best: number; readonly refusal: string | undefined },
  { addresses: { current: most }, byHash }: Capabilities,
): Trait => {
  const ranges = best === 0 ? "but no ranges" : `and ranges up to ${best} wide`
  const wider = refusal === undefined ? "" : `; wider: ${refusal}`
  const addresses = filter.addresses.length
  const fewer =
    most < addresses
      ? `; at most ${most} of ${addresses} addresses per call, in ${Math.ceil(addresses / most)} calls`
      : ""
  const height = byHash ? "" : "; by height, because blockHash is refused"
  const trait = best === 0 ? warning : ok
  return trait(`eth_getLogs: single blocks ${ranges}${fewer}${height}${wider}`)
}

/** The cheapest fallback when `eth_getLogs` is refused. */
const fallbackOf = Effect.fnUntraced(function* (
  connection: Connection,
  subscribe: Connection["subscribe"] | undefined,
  { filter }: ChainConfig,
  refused: string,
  receipts: string | undefined,
): Effect.fn.Return<Trait, EndpointError, Scope.Scope> {
  if (receipts === undefined) return warning(`${refused}: logs are read from receipts, which costs more`)
  const single = yield* errorOf(connection.request("eth_getTransactionReceipt", [`0x${"0".repeat(64)}`]))
  const subscription =
    subscribe !== undefined && isUnfiltered(filter)
      ? yield* errorOf(subscribe(["logs", {}], () => {}))
      : "is of no use over HTTP or with a filter"
  if (single !== undefined) {
    const tip =
      subscription === undefined ? "; only the logs subscription remains, which cannot backfill" : ""
    return failure(`${refused}; and ${receipts}${tip}`, "use another endpoint, or configure addresses")
  }
  const tip = subscription === undefined ? "from the logs subscription at the tip, else " : ""
  return warning(`${refused}: logs are read ${tip}receipt by receipt, which costs much more`)
})

/** The recent block whose unfiltered logs show best how they are numbered: ideally those of several transactions. */
const sampleOf = Effect.fnUntraced(function* (
  connection: Connection,
  headers: ReadonlyArray<Header>,
  hasReceipts: boolean,
) {
  const getLogs = GetLogs.make(connection, { addresses: [], topics: [] }, new Capabilities())
  const full = headers.toSorted((a, b) => bitsSet(b.logsBloom ?? "0x") - bitsSet(a.logsBloom ?? "0x"))
  let best: Sample | undefined
  for (const header of full.slice(0, mostSamples)) {
    const byHash = getLogs({ blockHash: header.hash, number: header.number })
    const read: Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError> = hasReceipts
      ? Effect.catchIf(byHash, isRpcError, () =>
          Effect.map(Eth.blockReceipts(connection, header), ({ logs }) => logs),
        )
      : byHash
    const logs = yield* Effect.catch(read, () => Effect.succeed(undefined))
    if (logs === undefined) return best
    if (best === undefined || logs.length > best.logs.length) best = { header, logs }
    if (new Set(logs.map(({ txHash }) => txHash)).size > 1) break
  }
  return best
})

const howToFix = ({ reason }: EndpointError): string => {
  switch (reason._tag) {
    case "WrongChain":
      return "correct the URL or the chain id"
    case "Rejected":
      return reason.refusal.kind === "Unauthorized" ? "check the key and its quota" : "use another endpoint"
    default:
      return "check the URL, the network and the provider's status page"
  }
}

/** Without a journal, nothing would be stored until the chain reaches START_BLOCK. */
const startsAbove = (chain: ChainConfig, { number }: Header): Trait =>
  failure(
    `${variable(chain, "START_BLOCK")} (or START_BLOCK) is ${chain.startBlock}, above the chain's head, which is block ${number}`,
    "set an existing block, or latest",
  )

type Limits = Pick<Settings, "requestTimeout" | "wsMaxPayload" | "rpcRate">

/** What outlives the connections to an endpoint, as in the service. */
interface Known {
  readonly capabilities: Capabilities
  readonly rateLimiter: RateLimiter.RateLimiter
}

/** Probes the endpoint over one connection, with the capabilities known from previous connections. */
const traitsOf = Effect.fnUntraced(function* (
  chain: ChainConfig,
  endpoint: EndpointConfig,
  settings: Limits,
  { capabilities, rateLimiter }: Known,
  hasJournal: Effect.Effect<boolean>,
): Effect.fn.Return<ReadonlyArray<Trait>, EndpointError, Transport | HttpClient.HttpClient | Scope.Scope> {
  const options = { ...settings, rateLimiter, heads: chain.heads, pollInterval: chain.pollInterval }
  const socket = isHttp(endpoint) ? undefined : yield* WebSocketConnection.connect(chain, endpoint, options)
  const connection = socket ?? (yield* HttpConnection.connect(chain, endpoint, options))
  const head = yield* Eth.blockByNumber(connection, "latest")
  if (head === undefined) return [failure("the endpoint returns no latest block", "use another endpoint")]
  const tag = yield* Effect.catchIf(Eth.blockByNumber(connection, "finalized"), isRpcError, (error) =>
    Effect.succeed({ refusal: error.reason.message, isNothing: isNothingFinal(error) }),
  )
  const getLogs = GetLogs.make(connection, chain.filter, capabilities)
  const count = Math.min(mostCalls, head.number + 1)
  const numbers = Array.from({ length: count }, (_, i) => head.number - i)
  const found = yield* Eth.blocksByNumber(connection, numbers, capabilities)
  const headers = found.filter((header) => header !== undefined)
  const batch = Math.min(capabilities.headers.current, count)
  const atTip = yield* errorOf(retryUnverified(getLogs({ blockHash: head.hash, number: head.number })))
  // A refusal for a second block confirms that it is the endpoint's behaviour: the capabilities remember it.
  const below = headers.find(({ number }) => number < head.number)
  if (atTip === undefined && below !== undefined)
    yield* errorOf(getLogs({ blockHash: below.hash, number: below.number }))
  const receipts = yield* errorOf(retryUnverified(Eth.blockReceipts(connection, head)))

  // An endpoint of RPC_URL has heads only while no socket does.
  const whyPolled = chain.endpoints.includes(endpoint)
    ? "because HTTP endpoints announce none"
    : "while no WebSocket is connected"
  const heads = socket
    ? yield* Heads.probe(chain, socket, headers)
    : { trait: Heads.polled(chain, whyPolled) }
  const { announced } = heads
  const same = announced && (yield* Eth.blockByNumber(connection, announced.number))
  // Last, because a response that is too large costs the connection.
  const sample = yield* sampleOf(connection, headers, receipts === undefined)
  const logs =
    atTip === undefined
      ? rangesOf(chain, yield* widest(getLogs, head), capabilities)
      : yield* fallbackOf(connection, socket?.subscribe, chain, atTip, receipts)
  const isAbove = chain.startBlock !== "latest" && chain.startBlock > head.number
  const start = isAbove && !(yield* hasJournal) ? [startsAbove(chain, head)] : []
  const decode = yield* decoderOf(chain.events)
  return [
    ok(`chain ${chain.id}, head ${head.number}`),
    ...start,
    heads.trait,
    logs,
    ok(`eth_getBlockReceipts: ${receipts ?? "yes"}`),
    finality(chain, head, tag),
    ok(batch < count ? `batches: up to ${batch} headers` : `batches: at least ${batch} headers`),
    blooms(chain, headers, announced && [announced, same], sample),
    indexes(chain, sample, receipts === undefined),
    ...(decode ? [events(chain, sample, decode)] : []),
  ]
})

/**
 * The findings about one endpoint.
 *
 * @param hasJournal whether the store has a journal of the chain, which resumes from it and ignores START_BLOCK
 */
export const probe = (
  chain: ChainConfig,
  endpoint: EndpointConfig,
  settings: Limits,
  hasJournal: Effect.Effect<boolean>,
): Effect.Effect<ReadonlyArray<Finding>, never, Transport | HttpClient.HttpClient> => {
  const subject = `${chain.name} ${endpoint.name}${isHttp(endpoint) ? " HTTP" : ""}`
  return Effect.gen(function* () {
    const known: Known = {
      capabilities: new Capabilities(),
      rateLimiter: yield* RateLimiter.make(RateLimiter.limitOf(endpoint, settings.rpcRate)),
    }
    return yield* Effect.scoped(traitsOf(chain, endpoint, settings, known, hasJournal)).pipe(
      Effect.retry({ while: isRequestTooLarge, times: mostReductions }),
    )
  }).pipe(
    Effect.scoped,
    Effect.catch((error) => Effect.succeed([failure(error.reason.message, howToFix(error))])),
    Effect.map((traits) => traits.map((trait) => about(subject, trait))),
  )
}
