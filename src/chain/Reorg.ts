/** Where the node's chain leaves the journal's: by headers, or by asking for the recorded blocks from the top down. */
import { Effect } from "effect"
import { mostCalls } from "../endpoint/Capabilities.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import { finalizedHead } from "../store/Journal.ts"
import type { CrossCheck, FinalityViolation } from "./CrossCheck.ts"
import { ancestorCandidates } from "./ForkChoice.ts"
import type { PendingJournal } from "./PendingJournal.ts"
import { forkPoint } from "./RecentHeaders.ts"
import type { ForkPoint, Linked, RecentHeaders } from "./RecentHeaders.ts"

/** The highest recorded block that is still canonical, and how many blocks above it are not. */
interface CommonAncestor {
  readonly number: number
  /** Blocks that the chain replaced: those that were followed, and announced ones on top of them. */
  readonly depth: number
}

export interface ReorgOptions {
  readonly connection: RpcClient
  readonly capabilities: Capabilities
  readonly pending: PendingJournal
  readonly recentHeaders: RecentHeaders
  readonly crossCheck: CrossCheck
}

/** Finds the common ancestor of the journal and the node's chain. */
export const commonAncestorOf = ({
  connection,
  capabilities,
  pending,
  recentHeaders,
  crossCheck,
}: ReorgOptions): Effect.Effect<CommonAncestor, EndpointError | FinalityViolation> => {
  /**
   * Where the node's chain leaves ours, by headers. One of them is requested, and the rest of the node's own where it was not
   * received before. `undefined` where the received headers do not reach so far.
   */
  const forkPointByHeaders = Effect.gen(function* () {
    const { journal } = pending
    const parentOf = ({ parentHash }: Linked) =>
      recentHeaders.get(parentHash) ?? journal.window.find(({ hash }) => hash === parentHash)
    const ours = journal.window.at(-1)
    // Where it has no block at the height of our head, the newest is as good.
    const theirs =
      (yield* Eth.blockByNumber(connection, journal.head.number)) ??
      (yield* Eth.blockByNumber(connection, "latest"))
    if (ours === undefined || theirs === undefined) return undefined
    if (theirs.hash === ours.hash) return { lowest: ours.number + 1, depth: 0 } satisfies ForkPoint
    recentHeaders.add(theirs)
    for (;;) {
      const found = forkPoint(ours, theirs, parentOf)
      if (found === undefined || "depth" in found) return found
      const top = found.missing.number - 1
      const below = yield* Eth.blocksByNumber(
        connection,
        Array.from({ length: mostCalls }, (_, i) => top - i).filter((number) => number >= 0),
        capabilities,
      )
      for (const header of below) if (header !== undefined) recentHeaders.add(header)
      // Not one chain: a node behind a balancer, or many heights without a block.
      if (!below.some((header) => header?.hash === found.missing.parentHash)) return undefined
    }
  })

  /** The same, found by requesting the headers at the heights of the records. */
  const recordedAncestor = Effect.gen(function* () {
    const { journal } = pending
    const candidates = ancestorCandidates(journal)
    for (let i = 0; i < candidates.length; i += mostCalls) {
      const some = candidates.slice(i, i + mostCalls)
      const seen = yield* Eth.blocksByNumber(
        connection,
        some.map(({ number }) => number),
        capabilities,
      )
      const shared = some.find(({ hash }, i) => seen[i]?.hash === hash)
      if (shared !== undefined) return shared.number
    }
    if (journal.final !== undefined) {
      yield* crossCheck.confirm(journal.final)
      const detail = `the node does not have block ${journal.final.number}, which is final`
      return yield* integrityError(connection.name, detail)
    }
    return finalizedHead(journal).number
  })

  return Effect.gen(function* () {
    const { journal } = pending
    const fork = yield* forkPointByHeaders
    const ours = journal.window.at(-1)
    const above = ours === undefined ? 0 : recentHeaders.above(ours.hash)
    if (fork !== undefined) {
      const shared = ancestorCandidates(journal).find(({ number }) => number < fork.lowest)
      // Headers alone never roll back below the final block.
      if (shared !== undefined && shared !== journal.final)
        return { number: shared.number, depth: fork.depth + above }
    }
    const number = yield* recordedAncestor
    return { number, depth: Math.min(fork?.depth ?? Infinity, journal.head.number - number) + above }
  })
}
