/** Heads that cannot be followed yet: the node does not serve them, or not all of what they lead to. */
import { Duration, Effect } from "effect"
import type { Scope } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Background from "../Background.ts"
import type { Header } from "../Domain.ts"
import { errorKind, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import type { Heads, ReceivedHead } from "../endpoint/Heads.ts"
import { ambiguousAsNotFound } from "../logs/Rechecks.ts"
import { confirmedHeight } from "./Confirmations.ts"
import type { Finality } from "./Finality.ts"
import type { PendingJournal } from "./PendingJournal.ts"

/** A head that cannot be followed now is retried after a while. */
const retryInterval = Duration.seconds(1)

/** How often a head is retried that its node does not serve yet; less often if it serves it, but not its logs. */
const mostRetries = 60
const mostLogRetries = 5

/** A replica is behind by fewer blocks than these: a head further above the node's latest block is not the chain's. */
const mostBlocksAhead = 1000

/** The node says that it has no such block. */
export const isUnknownBlock = (error: EndpointError) => errorKind(error) === "BlockNotFound"

export interface HeadRetriesOptions {
  readonly chain: Pick<ChainConfig, "confirmations">
  readonly connection: RpcClient
  readonly heads: Pick<Heads, "replay" | "inject">
  readonly pending: PendingJournal
  readonly finality: Finality
  /** Retries are forked in it. */
  readonly scope: Scope.Scope
}

export interface HeadRetries {
  /** Injects a head again after a second. */
  readonly retryLater: (header: Header) => Effect.Effect<unknown>
  /** The block that the announced head lets us follow, given the confirmations that are configured; `undefined`: none yet. */
  readonly targetOf: (header: Header) => Effect.Effect<Header | undefined, EndpointError>
  /**
   * A block that was announced is not known: a replica that is behind answers, or there is another block since. One that
   * serves the header is to serve its logs as well, soon. Fails with the error once that takes too long.
   */
  readonly retryUnknownBlock: (
    target: Header,
    head: ReceivedHead,
    error: EndpointError,
  ) => Effect.Effect<void, EndpointError>
}

export const make = ({
  chain,
  connection,
  heads,
  pending,
  finality,
  scope,
}: HeadRetriesOptions): HeadRetries => {
  /** The head that the node announced and does not serve, and how often it was tried. */
  let unknown = { hash: "", times: 0 }

  /** How often a head was tried of which the node lacks something. */
  const timesUnknown = ({ hash }: Header): number => {
    unknown = { hash, times: unknown.hash === hash ? unknown.times + 1 : 1 }
    return unknown.times
  }

  const retryLater = (header: Header) =>
    heads.inject(header).pipe(Effect.delay(retryInterval), Background.forkIn(scope))

  const targetOf = Effect.fnUntraced(function* (header: Header) {
    const final = finality.block()
    if (chain.confirmations === "finalized") return final
    const height = confirmedHeight(chain.confirmations, header.number, final?.number)
    if (height === undefined) return undefined
    if (height === header.number) return header
    const target = yield* Effect.catchIf(
      ambiguousAsNotFound(Eth.blockByNumber(connection, height)),
      isUnknownBlock,
      () => Effect.succeed(undefined),
    )
    if (target === undefined && timesUnknown(header) <= mostRetries) yield* retryLater(header)
    return target
  })

  const retryUnknownBlock = Effect.fnUntraced(function* (
    target: Header,
    { header }: ReceivedHead,
    error: EndpointError,
  ) {
    const now = yield* Eth.blockByNumber(connection, "latest")
    const times = timesUnknown(target)
    if (now !== undefined && target.number > now.number + mostBlocksAhead) {
      const detail = `block ${target.number} was announced, but the latest block is ${now.number}`
      return yield* integrityError(connection.name, detail)
    }
    const isKnown = now === undefined || now.hash === target.hash
    if (isKnown && times > mostLogRetries) return yield* error
    const isBehind = isKnown || (now.number < target.number && times <= mostRetries)
    if (isBehind) yield* retryLater(header)
    // What the node has is followed meanwhile: where every block is late, the chain stands still for none of them.
    if (!isKnown && (!isBehind || now.number > pending.journal.head.number)) yield* heads.inject(now)
  })

  return { retryLater, targetOf, retryUnknownBlock }
}
