/** What an endpoint can do: asked directly, a few requests each. */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { ChainConfig, EndpointConfig, Settings } from "../Config.ts"
import type { Header } from "../Domain.ts"
import { hex } from "../endpoint/Decode.ts"
import * as Endpoint from "../endpoint/Endpoint.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Transport } from "../endpoint/Transport.ts"
import { logParams } from "../feed/Filter.ts"
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

const accepted = <A>(effect: Effect.Effect<A, EndpointError>) =>
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

/** The findings about one WebSocket endpoint. */
export const probe = (
  chain: ChainConfig,
  endpoint: EndpointConfig,
  settings: Pick<Settings, "requestTimeout" | "wsMaxPayload">,
) => {
  const subject = `${chain.name} ${endpoint.name}`
  const failure = (detail: string, fix: string): Finding => ({ subject, level: "failure", detail, fix })
  return Effect.gen(function* (): Effect.fn.Return<
    ReadonlyArray<Finding>,
    EndpointError,
    Transport | Scope.Scope
  > {
    const connection = yield* Endpoint.connect(chain, endpoint, settings)
    const head = yield* Headers.header(connection, "latest")
    if (head === undefined) {
      return [failure("there is no latest block", "use another endpoint")]
    }
    const finalized = yield* Headers.header(connection, "finalized").pipe(
      Effect.orElseSucceed(() => undefined),
    )
    const byHash = { ...logParams(chain.filter), blockHash: head.hash }
    const [atTip, ranges, receipts] = yield* Effect.all([
      accepted(connection.request("eth_getLogs", [byHash])),
      widest(connection, chain, head),
      accepted(connection.request("eth_getBlockReceipts", [head.hash])),
    ])
    const findings: Array<Finding> = [
      {
        subject,
        level: "ok",
        detail: `chain ${chain.id}, head ${head.number}, final ${finalized?.number ?? `by depth (${chain.finalityDepth} blocks)`}`,
      },
    ]
    if (atTip === undefined) {
      const up = ranges.best === 0 ? "but no ranges" : `and ranges up to ${ranges.best} wide`
      const refused = ranges.refusal === undefined ? "" : `; wider: ${ranges.refusal}`
      findings.push({
        subject,
        level: ranges.best === 0 ? "warning" : "ok",
        detail: `eth_getLogs: single blocks ${up}${refused}`,
      })
    } else if (receipts === undefined) {
      findings.push({
        subject,
        level: "warning",
        detail: `${atTip}: logs are read from receipts, which costs more`,
      })
    } else {
      findings.push(failure(`${atTip}; and ${receipts}`, "use another endpoint, or give addresses to follow"))
    }
    findings.push({ subject, level: "ok", detail: `eth_getBlockReceipts: ${receipts ?? "yes"}` })
    return findings
  }).pipe(
    Effect.scoped,
    Effect.catch((error) => Effect.succeed([failure(error.reason.message, howToFix(error))])),
  )
}
