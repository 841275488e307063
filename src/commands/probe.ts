/** What an endpoint can do: asked directly, a few requests each. */
import { Duration, Effect } from "effect"
import type { Scope } from "effect"
import type { HttpClient } from "effect/http"
import type { ChainConfig, EndpointConfig, Settings } from "../Config.ts"
import type { Header } from "../Domain.ts"
import { Learned } from "../endpoint/Learned.ts"
import { hex } from "../endpoint/Decode.ts"
import * as Endpoint from "../endpoint/Endpoint.ts"
import type { Connection, SocketConnection } from "../endpoint/Endpoint.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as HttpEndpoint from "../endpoint/HttpEndpoint.ts"
import type { Transport } from "../endpoint/Transport.ts"
import { isZero } from "../feed/Bloom.ts"
import { isUnfiltered, logParams } from "../feed/Filter.ts"
import * as Headers from "../feed/Headers.ts"

/** One line of `check`. */
export interface Finding {
  readonly subject: string
  readonly level: "ok" | "warning" | "failure"
  readonly detail: string
  /** What to do about it. */
  readonly fix?: string
}

const widths = [1, 10, 100, 1000, 10_000]

const accepted = <A, R>(effect: Effect.Effect<A, EndpointError, R>) =>
  Effect.match(effect, { onFailure: ({ reason }) => reason.message, onSuccess: () => undefined })

/** The widest range below the head that `eth_getLogs` answers, and what it says to a wider one. */
const widest = Effect.fnUntraced(function* (connection: Connection, { filter }: ChainConfig, head: Header) {
  let best = 0
  for (const width of widths) {
    if (width > head.number + 1) break
    const range = { fromBlock: hex(head.number - width + 1), toBlock: hex(head.number) }
    const refusal = yield* accepted(connection.request("eth_getLogs", [{ ...logParams(filter), ...range }]))
    if (refusal !== undefined) return { best, refusal }
    best = width
  }
  return { best, refusal: undefined }
})

/** The last headers, and how many came in one batch at most. */
const lastHeaders = Effect.fnUntraced(function* (connection: Connection, head: Header) {
  const learned = new Learned()
  const count = Math.min(Headers.mostPerBatch, head.number + 1)
  const numbers = Array.from({ length: count }, (_, i) => head.number - i)
  const headers = yield* Headers.headers(connection, numbers, learned)
  return { headers, batch: Math.min(learned.headers, count) }
})

const rangesOf = (
  subject: string,
  { best, refusal }: { readonly best: number; readonly refusal: string | undefined },
): Finding => {
  const ranges = best === 0 ? "but no ranges" : `and ranges up to ${best} wide`
  const wider = refusal === undefined ? "" : `; wider: ${refusal}`
  return {
    subject,
    level: best === 0 ? "warning" : "ok",
    detail: `eth_getLogs: single blocks ${ranges}${wider}`,
  }
}

const bloomsOf = (headers: ReadonlyArray<Header | undefined>): string =>
  headers.some((header) => header?.logsBloom !== undefined && !isZero(header.logsBloom))
    ? "yes"
    : `zero in the last ${headers.length} blocks: as long as no other is seen, every block is asked for its logs`

/** What there is where `eth_getLogs` is refused, from the cheapest way on. */
const otherWays = Effect.fnUntraced(function* (
  connection: Connection,
  subscribe: SocketConnection["subscribe"] | undefined,
  { filter }: ChainConfig,
  refused: string,
  receipts: string | undefined,
) {
  if (receipts === undefined) {
    return { level: "warning", detail: `${refused}: logs are read from receipts, which costs more` } as const
  }
  const single = yield* accepted(connection.request("eth_getTransactionReceipt", [`0x${"0".repeat(64)}`]))
  const subscription =
    subscribe !== undefined && isUnfiltered(filter)
      ? yield* accepted(subscribe(["logs", {}], () => {}))
      : "is of no use over HTTP or with a filter"
  if (single !== undefined) {
    const tip = subscription === undefined ? "; only the logs subscription is left, which fills no gap" : ""
    return {
      level: "failure",
      detail: `${refused}; and ${receipts}${tip}`,
      fix: "use another endpoint, or give addresses to follow",
    } as const
  }
  const tip = subscription === undefined ? "from the logs subscription at the tip, else " : ""
  return {
    level: "warning",
    detail: `${refused}: logs are read ${tip}receipt by receipt, which costs much more`,
  } as const
})

const howToFix = ({ reason }: EndpointError): string => {
  switch (reason._tag) {
    case "WrongChain":
      return "correct the URL or the chain id"
    case "Rejected":
      return reason.refusal.action === "operator" ? "check the key and its quota" : "use another endpoint"
    default:
      return "check the URL, the network and the provider's status page"
  }
}

/** The findings about one endpoint. */
export const probe = (
  chain: ChainConfig,
  endpoint: EndpointConfig,
  over: "WebSocket" | "HTTP",
  settings: Pick<Settings, "requestTimeout" | "wsMaxPayload">,
) => {
  const subject = `${chain.name} ${endpoint.name}${over === "HTTP" ? " HTTP" : ""}`
  const failure = (detail: string, fix: string): Finding => ({ subject, level: "failure", detail, fix })
  return Effect.gen(function* (): Effect.fn.Return<
    ReadonlyArray<Finding>,
    EndpointError,
    Transport | HttpClient.HttpClient | Scope.Scope
  > {
    const options = { ...settings, heads: chain.heads, pollInterval: chain.pollInterval }
    const socket = over === "WebSocket" ? yield* Endpoint.connect(chain, endpoint, options) : undefined
    const connection = socket ?? (yield* HttpEndpoint.connect(chain, endpoint, settings))
    const head = yield* Headers.header(connection, "latest")
    if (head === undefined) {
      return [failure("there is no latest block", "use another endpoint")]
    }
    const finalized = yield* Effect.result(Headers.header(connection, "finalized"))
    const byHash = { ...logParams(chain.filter), blockHash: head.hash }
    const subscribed = socket ? yield* accepted(socket.subscribe(["newHeads"], () => {})) : undefined
    const atTip = yield* accepted(connection.request("eth_getLogs", [byHash]))
    const receipts = yield* accepted(connection.request("eth_getBlockReceipts", [head.hash]))
    const { headers, batch } = yield* lastHeaders(connection, head)
    // Last: an answer that is too large costs the connection.
    const logs =
      atTip === undefined
        ? rangesOf(subject, yield* widest(connection, chain, head))
        : { subject, ...(yield* otherWays(connection, socket?.subscribe, chain, atTip, receipts)) }
    const tag = finalized._tag === "Success" ? finalized.success : undefined
    const ok = (detail: string): Finding => ({ subject, level: "ok", detail })
    return [
      ok(
        `chain ${chain.id}, head ${head.number}, final ${tag?.number ?? `by depth (${chain.finalityDepth} blocks)`}`,
      ),
      subscribed === undefined
        ? ok(
            `heads: ${connection.polled ? `polled every ${Duration.toSeconds(chain.pollInterval)} s` : "subscribed"}`,
          )
        : failure(`heads: ${subscribed}`, "use another endpoint"),
      logs,
      ok(`eth_getBlockReceipts: ${receipts ?? "yes"}`),
      ok(
        `finalized tag: ${finalized._tag === "Failure" ? finalized.failure.reason.message : tag ? "yes" : "no block yet"}`,
      ),
      ok(
        batch < headers.length
          ? `batches: up to ${batch} headers`
          : `batches: ${batch} headers and maybe more`,
      ),
      ok(`logsBloom: ${bloomsOf(headers)}`),
    ]
  }).pipe(
    Effect.scoped,
    Effect.catch((error) => Effect.succeed([failure(error.reason.message, howToFix(error))])),
  )
}
