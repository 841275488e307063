/** Tracks the chain's final block, and decides how far the journal may be finalized: with auditing on, after the audit. */
import { Duration, Effect, Predicate } from "effect"
import type { Scope } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Background from "../Background.ts"
import type { Header } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { isRpcError, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError, Reason } from "../endpoint/EndpointError.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { finalizedHead, firstUnfinalized } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/StoreError.ts"
import type { Audit } from "./Audit.ts"
import type { Publisher } from "./ChainEvents.ts"
import type { BlockRef } from "./ForkChoice.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import type { CrossCheck } from "./CrossCheck.ts"
import { isCanonical, recordSame } from "./StoredJournal.ts"

/** How often the final block is fetched. */
const interval = Duration.seconds(15)

/** The shortest time (milliseconds) between two finalizations: blocks that become final meanwhile cost no extra requests. */
const finalizeInterval = 60_000

/**
 * The most records in the reorg window. If finality stalls for longer (a week on Ethereum, four hours on a chain with four
 * blocks a second), the oldest records count as final.
 */
export const mostRecorded = 50_000

/** After how many consecutive queries without a block the `finalized` tag is reported as missing. */
const missingThreshold = 2

/** "finalized block not found": the node supports the tag, and no block is final yet. */
export const isNothingFinal = ({ reason }: EndpointError): boolean =>
  reason._tag === "Rejected" &&
  /\b(finali[sz]ed|safe)\b.{0,40}\b(not (yet )?(found|available|set)|unavailable|unknown)\b/i.test(
    reason.detail,
  )

export interface FinalityOptions {
  readonly chain: Pick<ChainConfig, "finality" | "finalityDepth">
  readonly connection: RpcClient
  readonly capabilities: Capabilities
  readonly audit: Audit | undefined
  /** The journal after all pending moves. */
  readonly journal: () => Journal
  /** The journal as the store has it up to a block; `undefined` if it does not reach there. */
  readonly stored: (to: number) => Effect.Effect<Journal | undefined, StoreError>
  /** Runs when the final block advances or an audit ends. */
  readonly onChange: Effect.Effect<void>
  /** Disconnects the endpoint: most of the others serve another final block. */
  readonly onOutvoted: (reason: Reason) => Effect.Effect<void>
  /** Compares a final block across the endpoints. */
  readonly agreeOn: CrossCheck["agreeOn"]
  readonly events: Publisher
}

export interface Finality {
  /** The chain's current final block, if known. */
  readonly block: () => Header | undefined
  /** The lowest block that the audit found to be stored wrong; returned once. */
  readonly takeMismatch: () => number | undefined
  /**
   * The block up to which the journal can be finalized now, if any.
   *
   * @param isFollowed whether the journal is on the chain of the newest head, as far as is known without a request
   */
  readonly finalize: (isFollowed: boolean) => Effect.Effect<BlockRef | undefined, EndpointError>
}

/**
 * Fetches the block under the `finalized` tag; else the block at `FINALITY_DEPTH`; none if the node reports that none is final.
 */
const finalBlockOf = ({ capabilities, chain, connection }: FinalityOptions) => {
  /** How many consecutive queries of the tag returned no block, and whether one ever did. */
  let missing = 0
  let tagSeen = false

  return Effect.gen(function* () {
    if (chain.finality === "tag") {
      const answer = yield* Eth.blockByNumber(connection, "finalized").pipe(
        Effect.catchIf(isRpcError, (error) =>
          Effect.succeed(isNothingFinal(error) ? ("nothing" as const) : undefined),
        ),
      )
      missing = Predicate.isObject(answer) ? 0 : missing + 1
      const isPersistent = missing >= missingThreshold
      capabilities.finalizedTag = answer !== undefined || !isPersistent
      capabilities.nothingFinal = answer === "nothing" && isPersistent
      if (answer === "nothing") return undefined
      if (answer !== undefined) {
        tagSeen = true
        return answer
      }
      // A tag that returned a block before is not replaced by the depth at once.
      if (tagSeen && !isPersistent) return undefined
    }
    const latest = yield* Eth.blockByNumber(connection, "latest")
    const height = (latest?.number ?? 0) - chain.finalityDepth
    return height >= 0 ? yield* Eth.blockByNumber(connection, height) : undefined
  })
}

/** Whether a block becomes final, by the votes of all endpoints. Fails if most of them have another one. */
const isAgreed = Effect.fnUntraced(function* (
  { agreeOn, connection, events }: FinalityOptions,
  header: Header,
) {
  const verdict = yield* agreeOn(header)
  if (verdict._tag === "Outvoted") {
    const detail = `final block ${header.number} differs from that of most endpoints`
    return yield* integrityError(connection.name, detail)
  }
  const { others: endpoints } = verdict
  const holds = verdict._tag === "Split"
  const disagreement = endpoints.length > 0 ? { number: header.number, endpoints, holds } : undefined
  yield* events.publish({ _tag: "FinalDisagreement", disagreement })
  return !holds
})

/** Our highest final block, if it is above the finalized head. @param final the chain's final block, if known */
const highestFinalOf = (journal: Journal, final: Header | undefined): BlockRef | undefined => {
  const { head, window } = journal
  if (head.part !== 0 || head.hash === "") return undefined
  const oldest = window.at(-mostRecorded)
  const highest = oldest !== undefined && oldest.number > (final?.number ?? -1) ? oldest : final
  if (highest === undefined) return undefined
  const candidate = highest.number < head.number ? highest : { number: head.number, hash: head.hash }
  return candidate.number >= firstUnfinalized(journal) ? candidate : undefined
}

/** An audit: up to which block, of which journal, and the lowest block to rewrite, if any. */
interface Audited {
  readonly candidate: BlockRef
  readonly journal: Journal
  readonly mismatch: number | undefined
}

/** The audit of the blocks that are about to become final, in the background. */
const makeFinalAudit = ({ connection, journal, onChange, stored }: FinalityOptions, scope: Scope.Scope) => {
  let last: Audited | undefined
  let isRunning = false

  /** Whether the audited blocks were replaced: what was found of them says nothing of those that are stored now. */
  const isOutdated = ({ candidate, journal: audited }: Pick<Audited, "candidate" | "journal">) =>
    // After a rollback, a backfill may have moved the finalized head, too.
    finalizedHead(audited).number !== finalizedHead(journal()).number ||
    !recordSame(audited, journal(), candidate.number)

  return {
    /** The last audit, as long as it holds. */
    current: () => {
      if (last !== undefined && isOutdated(last)) last = undefined
      return last
    },
    forget: () => {
      last = undefined
    },
    /**
     * Begins one, if none runs. The blocks of another ingestor's fork are not compared with what the endpoints serve: the
     * difference is none of the endpoints' faults.
     */
    start: (audit: Audit, candidate: BlockRef, isFollowed: boolean): Effect.Effect<unknown> => {
      if (isRunning) return Effect.void
      isRunning = true
      return Effect.gen(function* () {
        const before = yield* stored(candidate.number)
        if (before === undefined) return
        // Of the journal after all moves: where the store differs, it is that of another ingestor, and the next move conflicts.
        const of = { candidate, journal: journal() }
        const isOurs = isFollowed && recordSame(before, of.journal, candidate.number)
        if (!isOurs && !(yield* isCanonical(connection, before.window, candidate))) return
        const mismatch = yield* audit.auditRange(before, candidate.number, {
          isOutdated: () => isOutdated(of),
        })
        last = { ...of, mismatch }
        yield* onChange
      }).pipe(
        // Without the store nothing becomes final.
        Effect.ignore,
        Effect.ensuring(Effect.sync(() => (isRunning = false))),
        Background.forkIn(scope),
      )
    },
  }
}

/** Fetches the final block now and every 15 seconds, for as long as the scope lives. */
export const make = Effect.fnUntraced(function* (
  options: FinalityOptions,
): Effect.fn.Return<Finality, EndpointError, Scope.Scope> {
  const { audit, connection, journal } = options
  const finalAudit = makeFinalAudit(options, yield* Effect.scope)
  let final: Header | undefined
  let finalizedAt = -Infinity

  /** Accepts a final block unless the other endpoints disagree. Returns whether it is a new one. */
  const acceptFinal = Effect.fnUntraced(function* (header: Header | undefined) {
    if (header === undefined || header.number === final?.number) return false
    if (!(yield* isAgreed(options, header))) return false
    final = header
    options.events.record({ _tag: "FinalAnnounced", header })
    return true
  })

  const finalize = Effect.fnUntraced(function* (isFollowed: boolean) {
    const highest = highestFinalOf(journal(), final)
    const audited = finalAudit.current()
    if (highest === undefined || audited?.mismatch !== undefined) return undefined
    const now = yield* Monotonic.millis
    if (now - finalizedAt < finalizeInterval) return undefined
    if (audit && audited === undefined)
      return yield* Effect.as(finalAudit.start(audit, highest, isFollowed), undefined)
    finalizedAt = now
    const candidate = audited?.candidate ?? highest
    finalAudit.forget()
    // Blocks may have been popped meanwhile.
    if (candidate.number > highest.number) return undefined
    if (!(yield* isCanonical(connection, journal().window, candidate))) return undefined
    audit?.provenance.forget(candidate.number)
    return candidate
  })

  const fetchFinal = finalBlockOf(options)
  yield* acceptFinal(yield* fetchFinal)
  yield* Effect.sleep(interval).pipe(
    Effect.andThen(fetchFinal),
    Effect.flatMap(acceptFinal),
    // Also if the last finalization was too recent: a chain that stalls announces no further head.
    Effect.tap((isNew) =>
      isNew || highestFinalOf(journal(), final) !== undefined ? options.onChange : Effect.void,
    ),
    Effect.catchIf(
      ({ reason }) => reason._tag === "Unverified",
      ({ reason }) => options.onOutvoted(reason),
    ),
    Effect.ignore,
    Effect.forever,
    Background.forkScoped,
  )
  return {
    block: () => final,
    takeMismatch: () => {
      const mismatch = finalAudit.current()?.mismatch
      if (mismatch !== undefined) finalAudit.forget()
      return mismatch
    },
    finalize,
  }
})
