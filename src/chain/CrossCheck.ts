/** Compares blocks across all connected endpoints: which final block they serve, and whether any still serves ours. */
import { Effect, Schema } from "effect"
import * as Monotonic from "../Monotonic.ts"
import { isRpcError, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { BlockRef } from "./ForkChoice.ts"
import type { Disagreed, FinalVerdict } from "../endpoint/FinalityQuorum.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import type { IntegrityChecks } from "../logs/Integrity.ts"

/** A finalized block is not in the chain any more. Only an operator can decide which one is right. */
export class FinalityViolation extends Schema.TaggedError<FinalityViolation>()("FinalityViolation", {
  number: Schema.Int,
  stored: Schema.String,
  seen: Schema.String,
}) {
  override get message() {
    return `block ${this.number} was final as ${this.stored} and is now ${this.seen}: another chain, or a reorg below finality`
  }
}

/** How long an endpoint may take to return its block at a final height. */
const voteTimeout = "2 seconds"

/** How long (milliseconds) the vote of an endpoint that served another final block and disconnected still counts. */
const absentVoteDuration = 10 * 60_000

/** How long (milliseconds) a chain that is not longer than ours must be the only one served before we switch to it. */
const competingHeadDelay = 3000

export interface CrossCheck {
  /** Whether the only endpoint reports that it is still syncing: its latest block is then an old one. */
  readonly isSyncing: Effect.Effect<boolean>
  /** The highest latest block of all endpoints, `own` included. */
  readonly highestLatest: (own: number) => Effect.Effect<number>
  /** Compares a final block across the endpoints. An endpoint without a block at that height has no vote. */
  readonly agreeOn: (final: BlockRef) => Effect.Effect<FinalVerdict>
  /** Fails if this endpoint serves another block at a finalized height and no other endpoint serves ours. */
  readonly confirm: (final: BlockRef) => Effect.Effect<void, EndpointError | FinalityViolation>
  /** Whether our head is still canonical: `reorged` if no endpoint has served it for a while. */
  readonly competingVerdict: (
    head: Pick<BlockRef, "number"> & { readonly hash: string },
  ) => Effect.Effect<"canonical" | "unsure" | "reorged">
}

const headersOf = (endpoints: ReadonlyArray<RpcClient>, number: number) =>
  Effect.forEach(
    endpoints,
    (endpoint) => Effect.orElseSucceed(Eth.blockByNumber(endpoint, number), () => undefined),
    { concurrency: "unbounded" },
  )

/** Whether any of the endpoints serves this block. */
export const isShown = (
  endpoints: ReadonlyArray<RpcClient>,
  { number, hash }: { readonly number: number; readonly hash: string },
): Effect.Effect<boolean> =>
  Effect.map(headersOf(endpoints, number), (seen) => seen.some((header) => header?.hash === hash))

/**
 * @param connection the endpoint in use
 * @param endpoints all connected endpoints, the one in use included
 * @param disagreed endpoints that served different final blocks before, also on earlier connections
 */
export const make = (
  connection: RpcClient,
  endpoints: Effect.Effect<ReadonlyArray<RpcClient>>,
  checks: IntegrityChecks,
  disagreed: Disagreed,
): CrossCheck => {
  let missingSince: { readonly head: string; readonly since: number } | undefined

  /** An endpoint that does not answer in time has no vote: finality must not wait for it. */
  const headerOf = (block: number | "latest") => (client: RpcClient) =>
    Eth.blockByNumber(client, block).pipe(
      Effect.timeoutOrElse({ duration: voteTimeout, orElse: () => Effect.succeed(undefined) }),
      Effect.orElseSucceed(() => undefined),
    )

  const headersAt = (number: number) => Effect.flatMap(endpoints, (all) => headersOf(all, number))

  const others = Effect.map(endpoints, (all) => all.filter((client) => client !== connection))

  return {
    isSyncing: Effect.gen(function* () {
      if ((yield* others).length > 0) return false
      return yield* Effect.orElseSucceed(Eth.syncing(connection), () => false)
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
      const isAbsent = (name: string) => name !== connection.name && votes.every((vote) => vote.name !== name)
      const absent = now - disagreed.at < absentVoteDuration ? disagreed.endpoints.filter(isAbsent) : []
      const verdict = checks.final(hash, votes, absent)
      if (votes.some((vote) => vote.hash !== hash)) {
        disagreed.endpoints = [connection.name, ...votes.map(({ name }) => name)]
        disagreed.at = now
      } else if (absent.length === 0) disagreed.endpoints = []
      return verdict
    }),
    confirm: Effect.fnUntraced(function* ({ number, hash }) {
      // A node may have pruned old blocks, and each node reports that with another error.
      const seen = yield* Eth.blockByNumber(connection, number).pipe(
        Effect.catchIf(isRpcError, () => Effect.succeed(undefined)),
      )
      if (seen === undefined || seen.hash === hash) return
      if (yield* Effect.flatMap(endpoints, (all) => isShown(all, { number, hash }))) {
        return yield* integrityError(connection.name, `another endpoint serves a different block ${number}`)
      }
      return yield* new FinalityViolation({ number, stored: hash, seen: seen.hash })
    }),
    competingVerdict: Effect.fnUntraced(function* (head) {
      const seen = yield* headersAt(head.number)
      const now = yield* Monotonic.millis
      if (seen.length === 0 || seen.some((header) => header === undefined || header.hash === head.hash)) {
        missingSince = undefined
        return "canonical"
      }
      if (missingSince?.head !== head.hash) missingSince = { head: head.hash, since: now }
      if (now - missingSince.since < competingHeadDelay) return "unsure"
      missingSince = undefined
      return "reorged"
    }),
  }
}
