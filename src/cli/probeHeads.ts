/** Probes how an endpoint delivers heads: announced, polled, or not at all. */
import { Clock, Deferred, Duration, Effect } from "effect"
import type { Scope } from "effect"
import { knownChains } from "../config/Chains.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { Header } from "../Domain.ts"
import { headerOf } from "../endpoint/Decode.ts"
import type { Connection } from "../endpoint/Connection.ts"
import { orInvalid } from "../endpoint/EndpointError.ts"
import type { EndpointError, Malformed } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import { variable } from "./dialect.ts"
import { failure, ok, warning } from "./Finding.ts"
import type { Trait } from "./Finding.ts"
import { span } from "./Output.ts"

/** How long to wait for a head: three block times, within bounds (seconds). */
const blockTimes = 3
const shortest = 5
const longest = 30

/** Additional time for an announcement in flight when the chain has advanced (seconds). */
const gracePeriod = 2

/** Seconds between blocks: from the latest headers, else the built-in block time of the chain. */
const blockTimeOf = ({ id }: Pick<ChainConfig, "id">, headers: ReadonlyArray<Header>): number => {
  const [newest, oldest] = [headers[0], headers.at(-1)]
  const blocks = (newest?.number ?? 0) - (oldest?.number ?? 0)
  const seconds = (newest?.timestamp ?? 0) - (oldest?.timestamp ?? 0)
  if (blocks > 0 && seconds > 0) return seconds / blocks
  return (knownChains.find((known) => known.id === id)?.blockTime ?? 0) / 1000
}

/** The finding that heads are polled, and why. */
export const polled = ({ pollInterval }: Pick<ChainConfig, "pollInterval">, why: string): Trait =>
  ok(`heads: polled every ${Duration.toSeconds(pollInterval)} s, ${why}`)

const refusalOf = (connection: Connection) =>
  Effect.match(connection.request("eth_subscribe", ["newHeads"]), {
    onFailure: ({ reason }) => reason.message,
    onSuccess: () => "eth_subscribe was refused",
  })

/**
 * Subscribes to heads as the service does, and waits for a head.
 *
 * @param headers the latest headers, newest first
 */
export const probe = Effect.fnUntraced(function* (
  chain: ChainConfig,
  socket: Connection,
  headers: ReadonlyArray<Header>,
): Effect.fn.Return<
  { readonly trait: Trait; readonly announced?: Header | undefined },
  EndpointError,
  Scope.Scope
> {
  const poll = `${variable(chain, "HEADS")}=poll`
  if (socket.polled) return { trait: polled(chain, `because ${poll} is set`) }
  const first = yield* Deferred.make<Header | Malformed>()
  const refused = yield* Effect.match(
    socket.subscribe(["newHeads"], (raw) =>
      Deferred.doneUnsafe(first, Effect.succeed(headerOf(raw, "announced"))),
    ),
    { onFailure: ({ reason }) => reason.message, onSuccess: () => undefined },
  )
  if (refused !== undefined) return { trait: failure(`heads: ${refused}`, "use another endpoint") }
  // The subscription has fallen back to polling and does not report why.
  if (socket.polled) return { trait: polled(chain, `because ${yield* refusalOf(socket)}`) }

  const latest = Eth.blockByNumber(socket, "latest")
  const before = yield* latest
  const seconds = Math.min(Math.max(Math.ceil(blockTimes * blockTimeOf(chain, headers)), shortest), longest)
  const within = (time: number) =>
    Deferred.await(first).pipe(
      Effect.raceFirst(socket.ended),
      Effect.timeoutOrElse({ duration: Duration.seconds(time), orElse: () => Effect.succeed(undefined) }),
      Effect.flatMap((head) => orInvalid(socket.name, head)),
    )
  const subscribed = (head: Header) => ({
    trait: ok(`heads: subscribed, block ${head.number} was announced`),
    announced: head,
  })
  const head = yield* within(seconds)
  if (head !== undefined) return subscribed(head)
  const after = yield* latest
  const rose = (after?.number ?? 0) - (before?.number ?? 0)
  if (after === undefined || rose < 0 || (rose === 0 && after.hash === before?.hash)) {
    const age = span((yield* Clock.currentTimeMillis) / 1000 - (before?.timestamp ?? 0), "days")
    const detail = `heads: subscribed; the chain is idle: block ${before?.number}, ${age} old, was the latest for ${seconds} s`
    return { trait: warning(detail) }
  }
  const late = yield* within(gracePeriod)
  if (late !== undefined) return subscribed(late)
  return {
    trait: failure(
      `heads: subscribed, but no head was announced: the latest block went from ${before?.number} to ${after.number} in ${seconds} s`,
      `set ${poll}, or use another endpoint`,
    ),
  }
})
