/** What is final by now, and how far the floor of the journal may be raised: after the second look, where one is taken. */
import { Clock, Duration, Effect, Predicate } from "effect"
import type { Scope } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import type { Header } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { isRpcError, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError, Reason } from "../endpoint/EndpointError.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { firstUnfinalized } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/Store.ts"
import type { Audit } from "./Audit.ts"
import type { BlockRef } from "./ForkChoice.ts"
import * as Headers from "../endpoint/Headers.ts"
import type { NamedClient } from "../endpoint/Headers.ts"
import type { CrossCheck } from "./CrossCheck.ts"

/** How often the final block is asked for. */
const interval = Duration.seconds(15)

/** The floor is raised at most so often (milliseconds): what becomes final meanwhile costs no requests of its own. */
const finalizeInterval = 60_000

/**
 * Records in the window, at most. Where finality stands still for longer (a week of Ethereum, four hours of a chain with
 * four blocks a second), the oldest count as final.
 */
export const mostRecorded = 50_000

/** How often in a row the tag is to be without a block before it is said. */
const timesMissing = 2

/** "finalized block not found": the tag is known, and no block has it yet. */
export const saysNothingFinal = ({ reason }: EndpointError): boolean =>
  reason._tag === "Rejected" &&
  /\b(finali[sz]ed|safe)\b.{0,40}\b(not (yet )?(found|available|set)|unavailable|unknown)\b/i.test(
    reason.detail,
  )

export interface FinalityOptions {
  readonly chain: Pick<ChainConfig, "finality" | "finalityDepth">
  readonly connection: NamedClient
  readonly capabilities: Capabilities
  readonly audit: Audit | undefined
  /** The journal as it will stand once all moves are done. */
  readonly journal: () => Journal
  /** The journal as the store has it up to a block; `undefined` if it does not reach there. */
  readonly stored: (to: number) => Effect.Effect<Journal | undefined, StoreError>
  /** Told when more is final, or the second look is over. */
  readonly onChange: Effect.Effect<void>
  readonly onFinal: (header: Header) => void
  /** Leaves the endpoint: most of the others show another final block. */
  readonly onOutvoted: (reason: Reason) => Effect.Effect<void>
  /** Compares a final block across the endpoints. */
  readonly agreeOn: CrossCheck["agreeOn"]
  /** Reports endpoints that disagree about a final block; `undefined` once they agree. */
  readonly onDisagreement: (disagreement: Disagreement | undefined) => Effect.Effect<void>
}

/** Endpoints that show different blocks at a final height. */
export interface Disagreement {
  readonly number: number
  readonly endpoints: ReadonlyArray<string>
  /** Whether nothing is made final meanwhile; else the majority decides. */
  readonly holds: boolean
}

export interface Finality {
  /** The final block of now, as far as it is known. */
  readonly block: () => Header | undefined
  /** The lowest block that the second look found to be stored wrong; told once. */
  readonly takeWrong: () => number | undefined
  /** The block that may become the floor now, if any. */
  readonly finalize: Effect.Effect<BlockRef | undefined, EndpointError>
}

/** Asks for the final block, now and from time to time, for as long as the scope lives. */
export const make = Effect.fnUntraced(function* (
  options: FinalityOptions,
): Effect.fn.Return<Finality, EndpointError, Scope.Scope> {
  const { audit, chain, connection, journal, capabilities } = options
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const headerAt = (block: number | Headers.Tag) => Headers.header(connection, block)
  let final: Header | undefined
  /** What the second look has found up to a place: the block from which to write again, if any. */
  let lastAudit: { readonly place: BlockRef; readonly wrong: number | undefined } | undefined
  let isAuditing = false
  let finalizedAt = -Infinity

  /** How often in a row there was no block under the tag, and whether there ever was one. */
  let missing = 0
  let tagged = false

  /** Where a node has no final block under the tag now, the block at `FINALITY_DEPTH`; none where it says that none is. */
  const ask = Effect.gen(function* () {
    if (chain.finality === "tag") {
      const answer = yield* headerAt("finalized").pipe(
        Effect.catchIf(isRpcError, (error) =>
          Effect.succeed(saysNothingFinal(error) ? ("nothing" as const) : undefined),
        ),
      )
      missing = Predicate.isObject(answer) ? 0 : missing + 1
      const lasts = missing >= timesMissing
      capabilities.finalizedTag = answer !== undefined || !lasts
      capabilities.nothingFinal = answer === "nothing" && lasts
      if (answer === "nothing") return undefined
      if (answer !== undefined) {
        tagged = true
        return answer
      }
      // One that was there a moment ago is not replaced by a guess.
      if (tagged && !lasts) return undefined
    }
    const latest = yield* headerAt("latest")
    const height = (latest?.number ?? 0) - chain.finalityDepth
    return height >= 0 ? yield* headerAt(height) : undefined
  })

  /** A final block counts once the other endpoints do not contradict it. Returns whether it is a new one. */
  const learn = Effect.fnUntraced(function* (header: Header | undefined) {
    if (header === undefined || header.number === final?.number) return false
    const verdict = yield* options.agreeOn(header)
    if (verdict._tag === "Outvoted") {
      return yield* integrityError(
        connection.name,
        `block ${header.number} is final here and another one at most endpoints`,
      )
    }
    const holds = verdict._tag === "Split"
    const isDisagreement = verdict.others.length > 0
    yield* options.onDisagreement(
      isDisagreement ? { number: header.number, endpoints: verdict.others, holds } : undefined,
    )
    if (holds) return false
    final = header
    options.onFinal(header)
    return true
  })

  /** The highest block of ours that is final by now, if it is above the floor. */
  const highestFinal = (): BlockRef | undefined => {
    const { head, window } = journal()
    if (head.part !== 0 || head.hash === "") return undefined
    const oldest = window.at(-mostRecorded)
    const highest = oldest !== undefined && oldest.number > (final?.number ?? -1) ? oldest : final
    if (highest === undefined) return undefined
    const place: BlockRef = highest.number < head.number ? highest : { number: head.number, hash: head.hash }
    return place.number >= firstUnfinalized(journal()) ? place : undefined
  }

  /** Looks again at what is to become final, beside everything else. */
  const startAudit = (audit: Audit, place: BlockRef) => {
    if (isAuditing) return Effect.void
    isAuditing = true
    return Effect.gen(function* () {
      const stored = yield* options.stored(place.number)
      if (stored === undefined) return
      lastAudit = { place, wrong: yield* audit.auditRange(stored, place.number) }
      yield* options.onChange
    }).pipe(
      // With the store away nothing becomes final.
      Effect.ignore,
      Effect.ensuring(Effect.sync(() => (isAuditing = false))),
      Defects.toOwner,
      Effect.forkIn(scope),
    )
  }

  /** The lowest record that is not below the new floor must be canonical: then so is everything of ours under it. */
  const finalize = Effect.gen(function* () {
    const highest = highestFinal()
    if (highest === undefined || lastAudit?.wrong !== undefined) return undefined
    const now = Monotonic.millisUnsafe(clock)
    if (now - finalizedAt < finalizeInterval) return undefined
    if (audit && lastAudit === undefined) {
      yield* startAudit(audit, highest)
      return undefined
    }
    finalizedAt = now
    const place = lastAudit?.place ?? highest
    lastAudit = undefined
    // Meanwhile blocks may have been undone.
    if (place.number > highest.number) return undefined
    const above = journal().window.find((record) => record.number >= place.number)
    if (above === undefined || (above.number === place.number && above.hash !== place.hash)) return undefined
    const seen = yield* headerAt(above.number)
    if (seen?.hash !== above.hash) return undefined
    audit?.provenance.forget(place.number)
    return place
  })

  yield* learn(yield* ask)
  yield* Effect.sleep(interval).pipe(
    Effect.andThen(ask),
    Effect.flatMap(learn),
    // Also where the floor was raised too recently before: a chain that stands still announces no head.
    Effect.tap((isNew) => (isNew || highestFinal() !== undefined ? options.onChange : Effect.void)),
    Effect.catchIf(
      ({ reason }) => reason._tag === "Unverified",
      ({ reason }) => options.onOutvoted(reason),
    ),
    Effect.ignore,
    Effect.forever,
    Defects.toOwner,
    Effect.forkScoped,
  )
  return {
    block: () => final,
    takeWrong: () => {
      const wrong = lastAudit?.wrong
      if (wrong !== undefined) lastAudit = undefined
      return wrong
    },
    finalize,
  }
})
