/** What everybody who can be asked says of a block of ours that the endpoint in use does not show. */
import { Effect, Predicate, Schema } from "effect"
import * as Monotonic from "../Monotonic.ts"
import { isRpcError, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { BlockRef } from "./ForkChoice.ts"
import type { Disagreed, FinalVerdict } from "./FinalityQuorum.ts"
import * as Headers from "../endpoint/Headers.ts"
import type { NamedClient } from "../endpoint/Headers.ts"
import type { IntegrityChecks } from "../logs/Integrity.ts"

/** A block that was final is not in the chain. Nothing but an operator can say which one is right. */
export class FinalityViolation extends Schema.TaggedError<FinalityViolation>()("Contradiction", {
  number: Schema.Int,
  stored: Schema.String,
  seen: Schema.String,
}) {
  override get message() {
    return `block ${this.number} was final as ${this.stored} and is ${this.seen} now: another chain, or a reorg below finality`
  }
}

/** How long an endpoint may take to say which block it has at a final height. */
const voteTimeout = "2 seconds"

/** For so long (milliseconds) an endpoint that showed another final block, and went away, is waited for. */
const connectingDeadline = 10 * 60_000

/** How long (milliseconds) a chain that is not longer than ours must be the only one to be seen before it is followed. */
const competingHeadDelay = 3000

export interface CrossCheck {
  /** Whether the only endpoint says that it is still syncing: its latest block is then an old one. */
  readonly isSyncing: Effect.Effect<boolean>
  /** The highest latest block that any endpoint shows, this one's included. */
  readonly highestLatest: (own: number) => Effect.Effect<number>
  /** Compares a final block across the endpoints. One that does not show the height has no vote. */
  readonly agreeOn: (final: BlockRef) => Effect.Effect<FinalVerdict>
  /** Fails if a block that is beyond undoing is another one here and nobody else knows ours. */
  readonly confirm: (place: BlockRef) => Effect.Effect<void, EndpointError | FinalityViolation>
  /** Whether our head is still the chain's: `gone` if nobody has shown it for a while. */
  readonly competingVerdict: (
    head: Pick<BlockRef, "number"> & { readonly hash: string },
  ) => Effect.Effect<"canonical" | "unsure" | "reorged">
}

const headersOf = (endpoints: ReadonlyArray<NamedClient>, number: number) =>
  Effect.forEach(
    endpoints,
    (witness) => Effect.orElseSucceed(Headers.header(witness, number), () => undefined),
    { concurrency: "unbounded" },
  )

/** Whether anybody shows this block. */
export const shows = (
  endpoints: ReadonlyArray<NamedClient>,
  { number, hash }: { readonly number: number; readonly hash: string },
): Effect.Effect<boolean> =>
  Effect.map(headersOf(endpoints, number), (seen) => seen.some((header) => header?.hash === hash))

/**
 * @param connection the endpoint in use
 * @param endpoints who can be asked now, the endpoint in use included
 * @param disagreed who showed another final block before, also on earlier connections
 */
export const make = (
  connection: NamedClient,
  endpoints: Effect.Effect<ReadonlyArray<NamedClient>>,
  checks: IntegrityChecks,
  disagreed: Disagreed,
): CrossCheck => {
  let doubtedSince: { readonly head: string; readonly since: number } | undefined

  /** One that does not answer in time has no vote: finality must not wait for it. */
  const headerOf = (block: number | "latest") => (client: NamedClient) =>
    Headers.header(client, block).pipe(
      Effect.timeoutOrElse({ duration: voteTimeout, orElse: () => Effect.succeed(undefined) }),
      Effect.orElseSucceed(() => undefined),
    )

  const ask = (number: number) => Effect.flatMap(endpoints, (all) => headersOf(all, number))

  const others = Effect.map(endpoints, (all) => all.filter((client) => client !== connection))

  return {
    isSyncing: Effect.gen(function* () {
      if ((yield* others).length > 0) return false
      const answer = yield* Effect.orElseSucceed(connection.request("eth_syncing", []), () => false)
      return answer === true || Predicate.isObject(answer)
    }),
    highestLatest: Effect.fnUntraced(function* (own) {
      const seen = yield* Effect.forEach(yield* others, headerOf("latest"), { concurrency: "unbounded" })
      return Math.max(own, ...seen.map((header) => header?.number ?? own))
    }),
    agreeOn: Effect.fnUntraced(function* ({ number, hash }) {
      const standbys = yield* others
      const seen = yield* Effect.forEach(standbys, headerOf(number), { concurrency: "unbounded" })
      const votes = standbys.flatMap((client, i) => {
        const voted = seen[i]?.hash
        return voted === undefined ? [] : [{ name: client.name, hash: voted }]
      })
      const now = yield* Monotonic.millis
      const isAway = (name: string) => name !== connection.name && votes.every((vote) => vote.name !== name)
      const away = now - disagreed.at < connectingDeadline ? disagreed.endpoints.filter(isAway) : []
      const verdict = checks.final(hash, votes, away)
      if (votes.some((vote) => vote.hash !== hash)) {
        disagreed.endpoints = [connection.name, ...votes.map(({ name }) => name)]
        disagreed.at = now
      } else if (away.length === 0) disagreed.endpoints = []
      return verdict
    }),
    confirm: Effect.fnUntraced(function* ({ number, hash }) {
      // A node may have thrown old blocks away, and says so in its own words.
      const seen = yield* Headers.header(connection, number).pipe(
        Effect.catchIf(isRpcError, () => Effect.succeed(undefined)),
      )
      if (seen === undefined || seen.hash === hash) return
      if (yield* Effect.flatMap(endpoints, (all) => shows(all, { number, hash }))) {
        return yield* integrityError(connection.name, `block ${number} is another one elsewhere`)
      }
      return yield* new FinalityViolation({ number, stored: hash, seen: seen.hash })
    }),
    competingVerdict: Effect.fnUntraced(function* (head) {
      const seen = yield* ask(head.number)
      const now = yield* Monotonic.millis
      if (seen.length === 0 || seen.some((header) => header === undefined || header.hash === head.hash)) {
        doubtedSince = undefined
        return "canonical"
      }
      if (doubtedSince?.head !== head.hash) doubtedSince = { head: head.hash, since: now }
      if (now - doubtedSince.since < competingHeadDelay) return "unsure"
      doubtedSince = undefined
      return "reorged"
    }),
  }
}
